"""Every picture a visitor may bring: the right pixels, or one line that says what to do."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from face_destyle import images
from face_destyle.errors import PictureError
from tests import drawn

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ROOT = Path(__file__).parents[1]
MEGABYTE = 1_000_000


def corners(picture: Image.Image) -> list[tuple[int, int, int]]:
    assert picture.mode == "RGB"
    right, bottom = picture.width - 2, picture.height - 2
    return [picture.getpixel(at) for at in ((1, 1), (right, 1), (1, bottom), (right, bottom))]


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("kind", drawn.UNREADABLE)
def test_unreadable_files_are_named(kind: str, tmp_path: Path) -> None:
    path = drawn.unreadable(kind, tmp_path)
    with pytest.raises(PictureError) as caught:
        images.load_picture(path)
    message = str(caught.value)
    assert drawn.UNREADABLE[kind][2] in message
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", drawn.UNREADABLE_FILES)
def test_unreadable_bytes(kind: str, tmp_path: Path) -> None:
    content = drawn.unreadable(kind, tmp_path).read_bytes()
    with pytest.raises(PictureError, match=drawn.UNREADABLE[kind][2]):
        images.load_picture(content)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, of what is damaged
@pytest.mark.parametrize("damage", ["png", "gif", "webp", "bmp", "tiff"])
def test_every_cut_is_an_error_or_a_picture(damage: str, tmp_path: Path) -> None:
    content = saved(drawn.face(size=40), tmp_path / f"whole.{damage}").read_bytes()
    refused = 0
    for length in range(1, len(content), max(1, len(content) // 40)):
        try:
            assert images.load_picture(content[:length]).size == (40, 40)
        except PictureError:
            refused += 1
    assert refused > 20


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_never_leave_the_one_error() -> None:
    random = np.random.default_rng(0)
    for suffix in ("PNG", "JPEG", "TIFF", "GIF", "WEBP"):
        buffer = io.BytesIO()
        drawn.face(size=32).save(buffer, format=suffix)
        for _ in range(60):
            content = bytearray(buffer.getvalue())
            for at in random.integers(8, len(content), 6):
                content[at] = random.integers(256)
            try:
                assert images.load_picture(bytes(content)).mode == "RGB"
            except PictureError as error:
                assert str(error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no\n  such\tbox"), "no such box"),
        (AssertionError(), "AssertionError"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_whatever_a_decoder_raises_is_one_line(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, formats: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(PictureError) as caught:
        images.load_picture(b"")
    assert str(caught.value) == f"the file cannot be read: {reason}"


def test_a_png_with_megabytes_beside_the_picture(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a" * 2_000_000, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "b" * 2_000_000, zip=True)
    path = saved(drawn.quarters(), tmp_path / "a.png", pnginfo=info, icc_profile=bytes(2_000_000))
    loaded = images.load_picture(path)
    assert corners(loaded) == [RED, GREEN, BLUE, WHITE]
    assert loaded.info == {}


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(PictureError, match="cannot be read"):
        images.load_picture("x" * 5000 + ".png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="no ordinary file"):
        images.load_picture(tmp_path / "pipe.png")


def test_one_pixel(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (1, 1), RED), tmp_path / "one.png")
    square = images.centre_square(images.load_picture(path))
    tensor = images.to_tensor([square], 128)
    assert tensor.shape == (1, 3, 128, 128)
    assert torch.equal(tensor[0, :, 64, 64], torch.tensor([1.0, -1.0, -1.0]))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled(suffix: str, tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    path = saved(Image.fromarray(values), tmp_path / f"deep.{suffix}")
    grey = np.asarray(images.load_picture(path))
    assert (grey == np.arange(256).reshape(16, 16, 1)).all()


def test_32_bit_values_are_refused(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), tmp_path / "whole.tiff")
    broken = saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), tmp_path / "broken.tiff")
    for path in (whole, broken):
        with pytest.raises(PictureError, match="8 or 16 bits"):
            images.load_picture(path)


def test_cmyk(tmp_path: Path) -> None:
    path = saved(drawn.quarters().convert("CMYK"), tmp_path / "ink.jpg", quality=95)
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
    found = np.array(corners(images.load_picture(path)))
    assert np.abs(found - np.array([RED, GREEN, BLUE, WHITE])).max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 4, 8))
    loaded = images.load_picture(picture.convert(mode))
    assert loaded.getpixel((1, 1)) == (0, 0, 0)
    assert loaded.getpixel((6, 1)) == WHITE


def test_half_alpha() -> None:
    loaded = images.load_picture(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
    assert loaded.getpixel((0, 0)) == (127, 127, 127)


def test_palette_with_alpha(tmp_path: Path) -> None:
    picture = drawn.quarters().quantize(8)
    clear = picture.getpixel((1, 1))
    path = saved(picture, tmp_path / "palette.png", transparency=clear)
    assert corners(images.load_picture(path)) == [WHITE, GREEN, BLUE, WHITE]
    # An alpha for each colour of the palette, as bytes.
    path = saved(picture, tmp_path / "alphas.png", transparency=bytes([0] * 8))
    assert corners(images.load_picture(path)) == [WHITE] * 4


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", [(76,) * 3, (150,) * 3, (29,) * 3, WHITE]),
        ("P", [RED, GREEN, BLUE, WHITE]),
        ("HSV", [RED, GREEN, BLUE, WHITE]),
        ("RGBX", [RED, GREEN, BLUE, WHITE]),
    ],
)
def test_other_modes(mode: str, expected: list[tuple[int, int, int]]) -> None:
    assert corners(images.load_picture(drawn.quarters().convert(mode))) == expected


def test_black_and_white() -> None:
    picture = Image.new("1", (4, 4), 0)
    picture.putpixel((1, 1), 1)
    loaded = images.load_picture(picture)
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 1))) == ((0, 0, 0), WHITE)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [drawn.quarters(), Image.new("RGB", (64, 48), "black")]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as opened:
        assert opened.n_frames == 2
    assert corners(images.load_picture(path)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    undo = images.TURNS.get(orientation)
    inverse = {Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
    inverse |= {new: old for old, new in inverse.items()}
    turned = drawn.quarters()
    if undo is not None:
        turned = turned.transpose(inverse.get(undo, undo))
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = saved(turned, tmp_path / f"turned.{suffix}", exif=exif.tobytes())
    loaded = images.load_picture(path)
    assert loaded.size == (64, 48)
    expected = np.array([RED, GREEN, BLUE, WHITE])
    assert np.abs(np.array(corners(loaded)) - expected).max() < 60  # lossy formats bleed


def test_orientation_table_is_the_standard(tmp_path: Path) -> None:
    """6 is a camera held upright: its first row is the right side of the scene."""
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    path = saved(drawn.quarters(), tmp_path / "upright.png", exif=exif.tobytes())
    loaded = images.load_picture(path)
    assert loaded.size == (48, 64)
    assert corners(loaded) == [BLUE, RED, WHITE, GREEN]


def test_a_given_picture_is_left_alone(tmp_path: Path) -> None:
    path = saved(drawn.face(size=5000), tmp_path / "large.jpg")
    with Image.open(path) as opened:
        images.load_picture(opened)
        assert opened.size == (5000, 5000)
    given = drawn.face()
    given.info["comment"] = "mine"
    loaded = images.load_picture(given)
    assert given.info == {"comment": "mine"}
    assert loaded is not given
    assert loaded.info == {}
    assert np.array_equal(np.asarray(loaded), np.asarray(given))


def test_a_damaged_picture_that_was_opened_elsewhere(tmp_path: Path) -> None:
    with (
        Image.open(drawn.unreadable("truncated", tmp_path)) as opened,
        pytest.raises(PictureError, match="truncated"),
    ):
        images.load_picture(opened)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    with pytest.raises(PictureError, match=r"give uint8 of shape \(H, W\)"):
        images.load_picture(array)


def test_arrays_that_are_a_picture() -> None:
    rgb = np.asarray(drawn.face())
    assert np.array_equal(np.asarray(images.load_picture(rgb)), rgb)
    grey = np.asarray(images.load_picture(rgb[..., 0]))
    assert np.array_equal(grey, np.repeat(rgb[..., :1], 3, axis=2))
    clear = np.dstack([rgb, np.zeros((128, 128), np.uint8)])
    assert (np.asarray(images.load_picture(clear)) == 255).all()


def test_a_large_picture_is_reduced_and_turned_right(tmp_path: Path) -> None:
    """In strips: the same as the whole at once, and no strip out of place."""
    columns = np.linspace(0, 255, 4100)[None, :, None] * np.array([1, 0, 0])
    rows = np.linspace(0, 255, 4500)[:, None, None] * np.array([0, 1, 0])
    pixels = (columns + rows).round().astype(np.uint8)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 3
    path = saved(Image.fromarray(pixels), tmp_path / "large.png", exif=exif.tobytes())
    loaded = images.load_picture(path)
    assert loaded.size == (2050, 2250)
    expected = Image.fromarray(pixels).reduce(2).transpose(Image.Transpose.ROTATE_180)
    assert np.array_equal(np.asarray(loaded), np.asarray(expected))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_keeps_every_pixel_where_asked(
    orientation: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "REDUCED_SIDE", 50)
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = saved(drawn.face(size=210).crop((0, 0, 180, 210)), tmp_path / name, exif=exif)
    with Image.open(path) as opened:
        turn = images.TURNS.get(orientation)
        pixels = np.asarray(opened if turn is None else opened.transpose(turn))
    for source in (path, path.read_bytes(), pixels, Image.fromarray(pixels)):
        loaded = images.load_picture(source, reduce=False)
        assert np.array_equal(np.asarray(loaded), pixels)
        assert max(images.load_picture(source).size) < 210


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_a_large_picture_is_converted_as_a_small_one(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = drawn.face(size=140)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 200)
    elif mode == "P":
        picture = picture.quantize(16)
        picture.info["transparency"] = 3
    else:
        picture = picture.convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(drawn.face(1, 140).convert("L"))
    whole = images.load_picture(picture)
    monkeypatch.setattr(images, "REDUCED_SIDE", 80)  # 140 is not twice as much
    assert np.array_equal(np.asarray(images.load_picture(picture)), np.asarray(whole))


def test_a_large_picture_with_alpha_stays_small_in_memory(tmp_path: Path) -> None:
    """The costliest picture that is taken: 50 million pixels, transparent."""
    path = tmp_path / "large.png"
    Image.new("RGBA", (7000, 7000), (255, 0, 0, 0)).save(path, compress_level=1)
    code = (
        "import sys; from face_destyle import images; from tests.memory import peak; "
        "assert images.load_picture(sys.argv[1]).getpixel((5, 5)) == (255, 255, 255); "
        "print(peak())"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) < 500 * MEGABYTE


def test_tensors_and_back_are_exact() -> None:
    pictures = [drawn.face(seed) for seed in range(3)]
    tensor = images.to_tensor(pictures, 128)
    assert tensor.dtype == torch.float32
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    for picture, one in zip(pictures, tensor, strict=True):
        assert np.array_equal(np.asarray(images.to_picture(one)), np.asarray(picture))


def test_every_level_survives() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(images.to_uint8(images.from_uint8(levels)), levels)


def test_out_of_range_is_clamped() -> None:
    tensor = torch.tensor([-3.0, 3.0, 0.0]).view(1, 3, 1, 1)
    assert images.to_uint8(tensor).flatten().tolist() == [0, 255, 128]


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (101, 64), (7, 7)])
def test_centre_square(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "black")
    picture.putpixel((size[0] // 2, size[1] // 2), WHITE)
    square = images.centre_square(picture)
    assert square.size == (min(size), min(size))
    assert square.getpixel((min(size) // 2, min(size) // 2)) == WHITE


class TestSavePng:
    def test_metadata_says_generated(self, tmp_path: Path, portrait: Image.Image) -> None:
        path = tmp_path / "out.png"
        images.save_png(portrait, path, "fdnn")
        assert images.to_png(portrait, "fdnn") == path.read_bytes()
        with Image.open(path) as opened:
            assert opened.text["Weights"] == "fdnn"
            assert "not a photograph" in opened.text["Generated"]
            assert np.array_equal(np.asarray(opened), np.asarray(portrait))
        assert list(tmp_path.iterdir()) == [path]

    def test_weights_whose_name_is_no_text(self, tmp_path: Path, portrait: Image.Image) -> None:
        """A folder's name in Latin-1, as Python holds it."""
        images.save_png(portrait, tmp_path / "out.png", os.fsdecode(b"caf\xe9"))
        with Image.open(tmp_path / "out.png") as opened:
            assert opened.text["Weights"] == "caf\\udce9"

    def test_existing_file_is_kept(self, tmp_path: Path, portrait: Image.Image) -> None:
        path = tmp_path / "out.png"
        path.write_text("mine")
        with pytest.raises(PictureError, match="exists"):
            images.save_png(portrait, path, "fdnn")
        assert path.read_text() == "mine"
        images.save_png(portrait, path, "fdnn", overwrite=True)
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("out.jpg", "must end in .png"),
            ("nowhere/out.png", "cannot be written"),
            ("file/out.png", "cannot be written"),
            ("folder.png", "is a folder"),
            ("x" * 300 + ".png", "cannot be written"),
        ],
    )
    def test_impossible_paths(
        self, name: str, message: str, tmp_path: Path, portrait: Image.Image
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder.png").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(PictureError, match=message):
            images.save_png(portrait, tmp_path / name, "fdnn", overwrite=True)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(PictureError, match="No space left"):
            images.save_png(portrait, tmp_path / "out.png", "fdnn")
        assert list(tmp_path.iterdir()) == []
