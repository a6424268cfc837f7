"""Colour profiles that the tests make themselves: the right colours, and no picture lost."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from face_destyle import images

GAMMA = 563 / 256  # as a profile can say it, nearest to 2.2
# Red, green and blue as XYZ under D50: of Display P3, which is wider, and of sRGB.
P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71689, 0.06062], [0.01393, 0.09708, 0.71410]]
)
D50 = np.array([0.9642, 1.0, 0.8249])
COLOURS = ((200, 100, 50), (90, 180, 60), (40, 80, 220), (150, 40, 120))


def profile(kind: str, space: str, pcs: str, tags: dict[str, bytes]) -> bytes:
    """An ICC profile of version 2."""
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    size = start + len(content)
    head = struct.pack(
        ">I4sI4s4s4s12x", size, b"", 0x02400000, *map(str.encode, (kind, space, pcs))
    )
    head += struct.pack(">4s28x3i", b"acsp", *(round(65536 * value) for value in D50))
    return head.ljust(128, b"\0") + table + content


def xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values))


def curve(gamma: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))


def wide() -> bytes:
    """The primaries of Display P3."""
    tags = {"wtpt": xyz(D50)}
    for name, primary in zip("rgb", P3.T, strict=True):
        tags |= {f"{name}XYZ": xyz(primary), f"{name}TRC": curve(GAMMA)}
    return profile("mntr", "RGB ", "XYZ ", tags)


def linear_grey() -> bytes:
    return profile("mntr", "GRAY", "XYZ ", {"wtpt": xyz(D50), "kTRC": curve(1.0)})


def purple_ink() -> bytes:
    """Whatever is printed, in whichever ink, it is Lab (60, 40, -30); in all four it is black."""
    nodes = bytes([255, 128, 128]) + bytes([153, 168, 98]) * 14 + bytes([0, 128, 128])
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
    steps = bytes(range(256))
    table = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + identity
    tags = {"wtpt": xyz(D50), "A2B0": table + steps * 4 + nodes + steps * 3}
    return profile("prtr", "CMYK", "Lab ", tags)


def from_xyz(values: np.ndarray) -> np.ndarray:
    linear = (np.linalg.inv(SRGB) @ values).clip(0, 1)
    small, large = linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
    return 255 * np.where(linear < 0.0031308, small, large)


def from_wide(colour: tuple[int, ...]) -> np.ndarray:
    return from_xyz(P3 @ (np.array(colour) / 255) ** GAMMA)


def painted(colours: tuple[tuple[int, ...], ...] = COLOURS, mode: str = "RGB") -> Image.Image:
    """Squares of 16 pixels, side by side."""
    picture = Image.new(mode, (16 * len(colours), 16))
    for number, colour in enumerate(colours):
        picture.paste(colour, (16 * number, 0, 16 * number + 16, 16))
    return picture


def seen(picture: Image.Image) -> np.ndarray:
    """The colour in the middle of each square."""
    assert picture.mode == "RGB"
    return np.asarray(picture)[8, 8::16].astype(float)


WIDE = np.array([from_wide(colour) for colour in COLOURS])


def test_the_profile_makes_a_difference() -> None:
    assert np.abs(WIDE - COLOURS).max(1).min() > 5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {"quality": 100, "subsampling": 0}),
        ("a.tiff", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_a_wide_picture_is_told_in_srgb(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    painted().save(tmp_path / name, icc_profile=wide(), **options)
    loaded = images.load_picture(tmp_path / name)
    np.testing.assert_allclose(seen(loaded), WIDE, atol=4)
    assert loaded.info == {}


def test_a_given_picture_has_its_profile_too() -> None:
    given = painted()
    given.info["icc_profile"] = wide()
    np.testing.assert_allclose(seen(images.load_picture(given)), WIDE, atol=3)
    assert np.array_equal(seen(given), COLOURS)


@pytest.mark.parametrize("mode", ["P", "RGBX"])
def test_other_modes_of_the_same_colours(mode: str, tmp_path: Path) -> None:
    given = painted().quantize(4) if mode == "P" else painted().convert(mode)
    given.info["icc_profile"] = wide()
    np.testing.assert_allclose(seen(images.load_picture(given)), WIDE, atol=4)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_what_is_clear_is_white(mode: str, tmp_path: Path) -> None:
    if mode == "P":
        picture = painted().quantize(4)
        options: dict[str, object] = {"transparency": picture.getpixel((8, 8))}
    else:
        alpha = Image.new("L", painted().size, 255)
        alpha.paste(0, (0, 0, 16, 16))
        picture, options = painted(), {}
        picture.putalpha(alpha)
    picture.save(tmp_path / "a.png", icc_profile=wide(), **options)
    found = seen(images.load_picture(tmp_path / "a.png"))
    assert found[0].tolist() == [255] * 3
    np.testing.assert_allclose(found[1:], WIDE[1:], atol=4)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey(mode: str, tmp_path: Path) -> None:
    levels = np.repeat(np.array([[0, 40, 128, 255]], np.uint16), 16, 1).repeat(16, 0)
    deep = Image.fromarray(levels * 257)
    picture = deep if mode == "I;16" else Image.fromarray(levels.astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=linear_grey())
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == mode
    found = seen(images.load_picture(tmp_path / "a.png"))
    np.testing.assert_allclose(found, [[value] * 3 for value in (0, 110, 188, 255)], atol=2)


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_ink(name: str, tmp_path: Path) -> None:
    inks = ((0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255))
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    painted(inks, "CMYK").save(tmp_path / name, icc_profile=purple_ink(), **options)
    found = seen(images.load_picture(tmp_path / name))
    middle = (60 + 16) / 116
    purple = from_xyz(D50 * np.array([middle + 40 / 500, middle, middle + 30 / 200]) ** 3)
    np.testing.assert_allclose(found, [[255] * 3, purple, purple, purple], atol=4)


@pytest.mark.parametrize("reduce", [True, False])
def test_a_large_picture(reduce: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "REDUCED_SIDE", 32)
    path = tmp_path / "a.png"
    picture = painted().resize((160, 128), Image.Resampling.NEAREST)
    picture.save(path, icc_profile=wide())
    loaded = images.load_picture(path, reduce=reduce)
    assert loaded.size == ((40, 32) if reduce else (160, 128))
    small = loaded.resize((64, 16), Image.Resampling.NEAREST)
    np.testing.assert_allclose(seen(small), WIDE, atol=3)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        srgb(),
        b"",
        b"no profile",
        bytes(2_000),
        wide()[:200],
        wide()[:-60],
        wide()[:132] + bytes(len(wide()) - 132),
        linear_grey(),  # of a picture that is not grey
        purple_ink(),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "HSV"])
def test_what_says_srgb_or_nothing_changes_no_bit(mode: str, content: bytes) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 64, 4 if mode == "RGBA" else 3), np.uint8)
    given = Image.fromarray(pixels) if mode == "RGBA" else Image.fromarray(pixels).convert(mode)
    plain = images.load_picture(given)
    given.info["icc_profile"] = content
    assert np.array_equal(np.asarray(images.load_picture(given)), np.asarray(plain))
