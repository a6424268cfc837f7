"""Pictures that the tests draw themselves: no photo of anybody is needed."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, PngImagePlugin

from face_destyle import images

SKINS = ((236, 200, 170), (198, 146, 110), (122, 82, 60), (250, 220, 196))
HAIRS = ((60, 40, 30), (20, 20, 24), (190, 150, 80), (130, 60, 40))


def face(seed: int = 0, size: int = 128) -> Image.Image:
    """A face with its eyes where an aligned face has them; other seeds draw other people."""
    random = np.random.default_rng(seed)
    skin, hair = SKINS[seed % len(SKINS)], HAIRS[seed // 2 % len(HAIRS)]
    background = tuple(int(value) for value in random.integers(90, 230, 3))
    wide, long = random.integers(32, 40), random.integers(44, 52)
    picture = Image.new("RGB", (128, 128), background)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((64 - wide - 8, 14, 64 + wide + 8, 110), fill=hair)
    pen.ellipse((64 - wide, 68 - long, 64 + wide, 68 + long), fill=skin)
    for x in (44.8, 83.2):
        pen.ellipse((x - 7, 51, x + 7, 59), fill="white")
        pen.ellipse((x - 3, 52, x + 3, 58), fill=hair)
        pen.line((x - 8, 45, x + 8, 44), fill=hair, width=3)
    pen.line((64, 58, 61, 76, 67, 78), fill=tuple(value * 3 // 4 for value in skin), width=2)
    pen.chord((50, 84, 78, 98), 0, 180, fill=(180, 60, 70))
    noise = random.normal(0, 4, (128, 128, 3))
    pixels = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def faces(count: int, size: int = 128) -> torch.Tensor:
    """Different faces as `(count, 3, size, size)` in [-1, 1]."""
    return images.to_tensor([face(seed) for seed in range(count)], size)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green over blue, white: the corners tell how a picture was turned."""
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill="red")
    pen.rectangle((width // 2, 0, width, height // 2 - 1), fill=(0, 255, 0))
    pen.rectangle((0, height // 2, width // 2 - 1, height), fill="blue")
    return picture


def _empty(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    face(size=256).save(path, format="JPEG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _text(path: Path) -> None:
    path.write_text("this is no picture\n")


def _too_large(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, format="PNG")


def _much_text(path: Path) -> None:
    """Small, until its text is unpacked."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "\0" * (images.PNG_TEXT_BYTES + 1), zip=True)
    face().save(path, format="PNG", pnginfo=info)


def _no_number(path: Path) -> None:
    """A PPM whose width is none."""
    path.write_bytes(b"P6\n12x 4\n255\n" + bytes(144))


def _no_item(path: Path) -> None:
    """An AVIF file that says it holds a picture and names none."""
    handler = struct.pack(">I4s8x4s13x", 33, b"hdlr", b"pict")
    meta = struct.pack(">I4s4x", 12 + len(handler), b"meta") + handler
    path.write_bytes(struct.pack(">I4s", 32, b"ftyp") + b"avif\0\0\0\0avifmif1miafMA1B" + meta)


def _short_marker(path: Path) -> None:
    """JPEG 2000: it begins with its size, in no bytes."""
    path.write_bytes(b"\xff\x4f\xff\x51\0\x02")


def _postscript(path: Path) -> None:
    """A program, which PIL would have Ghostscript run."""
    face().save(path, format="EPS")


def _folder(path: Path) -> None:
    path.mkdir()


def _absent(path: Path) -> None:
    """Leave it out."""


# What cannot be read: the name of the file, how it is made, what the error says of it.
# All but the last two, which are no files, can be uploaded and stand in a folder of portraits.
UNREADABLE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "empty": ("empty.png", _empty, "not a picture"),
    "truncated": ("truncated.jpg", _truncated, "truncated"),
    "text": ("text.png", _text, "not a picture"),
    "postscript": ("postscript.png", _postscript, "not a picture that can be read: give "),
    "too large": ("large.png", _too_large, "more than 50 million pixels"),
    "much text": ("much-text.png", _much_text, "Decompressed data too large"),
    "ppm": ("damaged.ppm", _no_number, "cannot be read: invalid literal"),
    # As it goes wrong, or as no picture at all, by what this Pillow is built with.
    "avif": ("damaged.avif", _no_item, "be read"),
    "jpeg 2000": ("damaged.png", _short_marker, "be read"),
    "folder": ("folder.png", _folder, "is a folder"),
    "absent": ("absent.png", _absent, "does not exist"),
}


UNREADABLE_FILES = list(UNREADABLE)[:-2]


def unreadable(kind: str, folder: Path) -> Path:
    """Make one of `UNREADABLE`."""
    name, make, _ = UNREADABLE[kind]
    path = folder / name
    make(path)
    return path
