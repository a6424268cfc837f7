"""Pictures <-> tensors: the only place that knows files, EXIF, alpha, modes and value ranges.

A picture is an RGB PIL image. A tensor is RGB, `(N, 3, H, W)`, in [-1, 1].
"""

import importlib.util
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from face_destyle import profiles
from face_destyle.errors import PictureError

Source = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
Loaded = tuple[Image.Image, Image.Transpose | None]  # RGB, and how it is turned upright

MAX_PIXELS = 50_000_000
FACE_SIDE = 128
# PIL opens more, whatever a file's name says: of EPS it would run Ghostscript. JPEG includes MPO,
# several pictures in one file, as some cameras write it.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
HAS_AVIF = importlib.util.find_spec("PIL.AvifImagePlugin") is not None  # from 11.3 on
# A picture of which one face is used is read at half its size, a third, ...: neither side falls
# below this, and a picture of MAX_PIXELS needs no second copy of itself in memory.
REDUCED_SIDE = 2048
COMPRESS_LEVEL = 1  # a face takes 1.5 ms and 27 KB; at 6, zlib's default, 5.5 ms and 24 KB
# Editors leave megabytes of text and profiles in a PNG, which PIL refuses above one. Of all its
# texts together PIL takes 64 MiB at the most.
PNG_TEXT_BYTES = 2**24
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PNG_TEXT_BYTES)
STRIP = 32  # rows of what is read, at a time
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # of the EXIF data; what undoes each value
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_picture(source: Source, *, reduce: bool = True) -> Image.Image:
    """Read any picture as upright RGB, in sRGB.

    EXIF orientation is applied, colours are converted by the picture's profile, transparency is
    laid on white, 16-bit grey is scaled, and of an animation the first frame is taken.

    Args:
        source: a path, the bytes of a file (one of `FORMATS`), a PIL picture, or an `(H, W)`,
            `(H, W, 3)` or `(H, W, 4)` uint8 array.
        reduce: a picture with both sides of twice `REDUCED_SIDE` or more is reduced by a whole
            factor; False keeps every pixel, which takes 8 bytes of memory for each.

    Raises:
        PictureError: no such file, no picture, a damaged one, or one above `MAX_PIXELS`.
    """
    if isinstance(source, np.ndarray):
        return _turned(*_to_rgb(_from_array(source), "the array", reduce))
    if isinstance(source, Image.Image):
        return _turned(*_to_rgb(source, "the picture", reduce))
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), "the file", reduce)
    path = Path(source)
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder; give a picture file")
        if not path.exists():
            raise PictureError(f"{path} does not exist")
        if not path.is_file():
            raise PictureError(f"{path} is no ordinary file; give a picture file")
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}") from error
    return _open(path, str(path), reduce)


def _open(file: Path | io.BytesIO, name: str, reduce: bool) -> Image.Image:
    try:
        return _turned(*_read(file, name, reduce))
    except UnidentifiedImageError as error:
        *others, last = sorted(_formats())
        raise PictureError(
            f"{name} is not a picture that can be read: give {', '.join(others)} or {last}"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large(name)) from error
    except PictureError:
        raise
    except Exception as error:  # every decoder fails in its own way on a damaged file
        raise PictureError(f"{name} cannot be read: {_reason(error)}") from error


def _read(file: Path | io.BytesIO, name: str, reduce: bool) -> Loaded:
    with Image.open(file, formats=_formats()) as opened:
        _check_size(opened, name)
        if reduce and opened.format == "JPEG":
            opened.draft("RGB", (REDUCED_SIDE, REDUCED_SIDE))
        return _to_rgb(opened, name, reduce)


def _formats() -> tuple[str, ...]:
    """Those that this PIL has: asked for another it raises a KeyError."""
    return FORMATS if HAS_AVIF or "AVIF" in Image.OPEN else FORMATS[:-1]


def _reason(error: Exception) -> str:
    """What an error says, in one line; its name where it says nothing."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _check_size(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise PictureError(_too_large(name))


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller"


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    channels_known = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_known or 0 in array.shape:
        raise PictureError(
            f"an array of {array.dtype} and shape {array.shape} is no picture: "
            "give uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    return Image.fromarray(array)


def _to_rgb(picture: Image.Image, name: str, reduce: bool) -> Loaded:
    """Load, reduce and convert; the given picture itself stays as it is."""
    _check_size(picture, name)
    try:
        picture.load()
        rgb = _reduced_rgb(picture, name, reduce)
        turn = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(f"{name} cannot be read: {_reason(error)}") from error
    rgb.info = {}  # comments, EXIF data, colour profiles do not go along
    return rgb, turn


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Upright. By now the file's own picture is gone: a third copy would be too many."""
    return picture if turn is None else picture.transpose(turn)


def _reduced_rgb(picture: Image.Image, name: str, reduce: bool) -> Image.Image:
    profile = profiles.to_srgb(picture)
    factor = max(min(picture.size) // REDUCED_SIDE, 1) if reduce else 1
    if factor == 1 and picture.width * picture.height <= REDUCED_SIDE**2:
        return _convert(picture, name, profile)
    # Where a picture is large, what is between its file and RGB is had of a few rows alone.
    size = (-(-picture.width // factor), -(-picture.height // factor))
    reduced = Image.new("RGB", size)
    for top in range(0, picture.height, STRIP * factor):
        bottom = min(top + STRIP * factor, picture.height)
        strip = picture.crop((0, top, picture.width, bottom))
        reduced.paste(_convert(strip, name, profile).reduce(factor), (0, top // factor))
    return reduced


def _convert(picture: Image.Image, name: str, profile: profiles.Transform | None) -> Image.Image:
    if picture.mode == "F":
        raise PictureError(f"{name} holds floating-point values; save it with 8 or 16 bits")
    if picture.mode in DEEP_GREY:
        picture = _from_deep_grey(picture, name)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if profile is not None:
            alpha = picture.getchannel("A")
            picture = profiles.applied(profile, picture)
            picture.putalpha(alpha)
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB") if profile is None else profiles.applied(profile, picture)


def _from_deep_grey(picture: Image.Image, name: str) -> Image.Image:
    """PIL clips 16-bit grey at 255 instead of scaling it."""
    values = np.asarray(picture).astype(np.float32)
    if values.max() > 65535 or values.min() < 0:
        raise PictureError(f"{name} holds values of 32 bits; save it with 8 or 16 bits")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def centre_square(picture: Image.Image) -> Image.Image:
    """The largest square around the centre."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def to_tensor(pictures: Sequence[Image.Image], size: int) -> torch.Tensor:
    """RGB pictures, resized to `size` x `size` (Lanczos) -> `(N, 3, size, size)` in [-1, 1]."""
    return from_uint8(to_pixels(pictures, size))


def to_pixels(pictures: Sequence[Image.Image], size: int) -> torch.Tensor:
    """RGB pictures, resized to `size` x `size` (Lanczos) -> `(N, 3, size, size)` uint8."""
    arrays = [
        np.array(p if p.size == (size, size) else p.resize((size, size), Image.Resampling.LANCZOS))
        for p in pictures
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """`(N, 3, H, W)` uint8 -> float32 in [-1, 1]."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(pictures: torch.Tensor) -> torch.Tensor:
    """`(N, 3, H, W)` in [-1, 1], clamped to it -> uint8, rounded."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_picture(picture: torch.Tensor) -> Image.Image:
    """`(3, H, W)` in [-1, 1] -> RGB picture."""
    return Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())


def generated_metadata(weights: str) -> PngImagePlugin.PngInfo:
    """PNG text that says the picture is generated, and by which weights."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "face_destyle")
    info.add_text("Generated", "yes: this face is the output of a network, not a photograph")
    # A folder's name may hold bytes that are no text.
    info.add_text("Weights", weights.encode("utf-8", "backslashreplace").decode("utf-8"))
    return info


def to_png(picture: Image.Image, weights: str) -> bytes:
    """A recovered picture as PNG with `generated_metadata`: what `save_png` writes."""
    file = io.BytesIO()
    _write_png(picture, file, weights)
    return file.getvalue()


def _write_png(picture: Image.Image, file: Path | io.BytesIO, weights: str) -> None:
    picture.save(
        file,
        format="PNG",
        pnginfo=generated_metadata(weights),
        compress_level=COMPRESS_LEVEL,
    )


def check_png_path(path: str | Path, overwrite: bool = False) -> Path:
    """The path, where a PNG may be written to it.

    Raises:
        PictureError: it exists and `overwrite` is False, is a folder, lies in no folder, or has
            another ending than .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise PictureError(f"{path} must end in .png: recovered faces are written as PNG")
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise PictureError(f"{path} exists; choose another name or allow overwriting")
        if not path.parent.is_dir():
            raise PictureError(f"{path} cannot be written: {path.parent} is no folder")
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror}") from error
    return path


def save_png(picture: Image.Image, path: str | Path, weights: str, overwrite: bool = False) -> None:
    """Write a recovered picture as PNG with `generated_metadata`: complete or not at all.

    Raises:
        PictureError: as `check_png_path`, or the file cannot be written.
    """
    path = check_png_path(path, overwrite)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            partial = Path(file.name)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror}") from error
    try:
        _write_png(picture, partial, weights)
        os.chmod(partial, 0o644)  # a temporary file starts out private
        os.replace(partial, path)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
