"""Faces in a picture: where they are, how they lie in the frame, cut out and pasted back."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from face_destyle import faces, images, pasting
from face_destyle.errors import UserError, WeightsError
from face_destyle.faces import (
    FRAME_EYES,
    CascadeFinder,
    Face,
    InTurn,
    YuNetFinder,
    default_finder,
    find_faces,
    with_cascades,
)
from face_destyle.pasting import Patch, crop, paste
from tests import drawn

UPRIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def placed(scale: float = 1.0, angle: float = 0.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """A matrix, frame -> picture: the frame turned clockwise and scaled about its middle."""
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([63.5, 63.5])
    return np.column_stack([turn, middle - turn @ middle + (x, y)])


def face_at(matrix: np.ndarray) -> Face:
    """The face whose eyes a matrix takes from the frame into the picture."""
    left, right = (matrix[:, :2] @ np.array(FRAME_EYES).T + matrix[:, 2:]).T
    corners = matrix[:, :2] @ np.array([[20, 108], [20, 120]]) + matrix[:, 2:]
    box = (*corners.min(1).tolist(), *corners.max(1).tolist())
    return Face(box, 0.9, (tuple(left), tuple(right)))


def smooth(width: int, height: int) -> Image.Image:
    """Nothing in it is finer than what resampling keeps."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 60 + phase) * 60 + np.cos(y / 50 - phase) * 50 + 128 for phase in range(3)]
    return Image.fromarray(np.stack(waves, -1).round().astype(np.uint8))


def scene(matrix: np.ndarray, width: int = 400, height: int = 300) -> Image.Image:
    """A drawn face in a picture, as a matrix says."""
    return paste(Image.new("RGB", (width, height), "teal"), [Patch(drawn.face(), matrix)])


def difference(first: Image.Image, second: Image.Image) -> np.ndarray:
    """Of 255, the largest of the three colours: (H, W)."""
    assert first.size == second.size
    return np.abs(np.asarray(first, int) - np.asarray(second, int)).max(2)


def weights(matrix: np.ndarray, picture: Image.Image) -> np.ndarray:
    """The mask of one photo over the picture: (H, W)."""
    return pasting._share(0, [Patch(picture, matrix)], (0, 0, *picture.size))


@pytest.mark.parametrize("angle", [0.0, 30.0, -90.0, 170.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 7.0])
def test_the_matrix_brings_the_eyes_to_their_places(scale: float, angle: float) -> None:
    matrix = placed(scale, angle, 40, -9)
    face = face_at(matrix)
    np.testing.assert_allclose(face.matrix, matrix, atol=1e-9)
    assert face.angle == pytest.approx(angle)


def test_an_aligned_picture_is_cut_out_as_it_is() -> None:
    portrait = drawn.face()
    assert difference(crop(portrait, UPRIGHT), portrait).max() == 0
    larger = Image.new("RGB", (200, 180))
    larger.paste(portrait, (31, 17))
    assert difference(crop(larger, placed(x=31, y=17)), portrait).max() == 0


@pytest.mark.parametrize(("scale", "angle"), [(2.5, 20.0), (1.0, 45.0), (6.0, -75.0)])
def test_a_turned_face_comes_out_upright(scale: float, angle: float) -> None:
    matrix = placed(scale, angle, 500, 500)
    portrait = drawn.face().filter(ImageFilter.GaussianBlur(2))
    picture = paste(Image.new("RGB", (1130, 1130)), [Patch(portrait, matrix)])
    inner = (slice(30, 100), slice(30, 100))
    assert difference(crop(picture, matrix), portrait)[inner].mean() < 1.5


def test_a_large_picture_is_averaged_not_picked_from() -> None:
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(crop(Image.fromarray(stripes), placed(12.3, 3.0, 936, 936)), int)
    assert small.min() >= 120
    assert small.max() <= 135


def test_beyond_the_edge_the_outermost_pixels_go_on() -> None:
    picture = Image.new("RGB", (60, 60), (200, 10, 90))
    cut = np.asarray(crop(picture, placed(1.5, 30, 40, 40)))
    assert (cut == (200, 10, 90)).all()
    assert (np.asarray(crop(picture, placed(1.0, 0, 5000, 0))) == (200, 10, 90)).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (2500, 20)])
def test_odd_pictures(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    matrix = placed(0.7, 12, size[0] / 2 - 64, size[1] / 2 - 64)
    pasted = paste(picture, [Patch(crop(picture, matrix), matrix)])
    assert pasted.size == size
    assert difference(pasted, picture).max() <= 2


@pytest.mark.parametrize(
    "matrix",
    [
        placed(x=100, y=60),
        placed(0.6, 25, 90, 50),
        placed(1.7, -140, 130, 70),
        placed(1.0, 10, -60, -40),
        placed(1.2, 0, 300, 200),
    ],
    ids=["whole pixels", "small", "large", "at the upper left", "at the lower right"],
)
def test_pasting_the_crop_back_changes_nothing(matrix: np.ndarray) -> None:
    picture = smooth(400, 300)
    pasted = paste(picture, [Patch(crop(picture, matrix), matrix)])
    assert difference(pasted, picture).max() <= 2


def test_at_whole_pixels_even_a_noisy_crop_goes_back_unchanged() -> None:
    picture = scene(placed(x=70, y=40)).effect_spread(3)
    matrix = placed(x=70, y=40)
    assert difference(paste(picture, [Patch(crop(picture, matrix), matrix)]), picture).max() == 0


@pytest.mark.parametrize("scale", [0.25, 0.7, 1.0, 4.0])
def test_outside_the_mask_nothing_changes_and_no_seam_shows(scale: float) -> None:
    picture = Image.new("RGB", (700, 600), "black")
    matrix = placed(scale, 20, 280, 230)
    pasted = np.asarray(paste(picture, [Patch(Image.new("RGB", (128, 128), "white"), matrix)]), int)
    inside = weights(matrix, picture) > 0
    assert pasted[~inside].max() == 0
    assert pasted[inside].max() == 255  # the largest difference that there is
    padded = np.pad(inside, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge = inside & ~around
    assert edge.any()
    assert pasted[edge].max() <= 2


def test_two_faces_each_in_its_place() -> None:
    picture = Image.new("RGB", (420, 200), "grey")
    left, right = placed(1.0, 8, 20, 30), placed(1.2, -15, 250, 30)
    pasted = paste(picture, [Patch(drawn.face(0), left), Patch(drawn.face(1), right)])
    for number, matrix in enumerate((left, right)):
        inner = (slice(40, 90), slice(40, 90))
        assert difference(crop(pasted, matrix), drawn.face(number))[inner].mean() < 6
    untouched = (weights(left, picture) == 0) & (weights(right, picture) == 0)
    assert difference(pasted, picture)[untouched].max() == 0
    assert untouched.any()


def test_overlapping_faces_count_by_their_masks() -> None:
    picture = Image.new("RGB", (300, 200), "black")
    matrices = placed(x=30, y=30), placed(x=90, y=30)
    colours = (255, 0, 0), (0, 0, 255)
    patches = [
        Patch(Image.new("RGB", (128, 128), colour), matrix)
        for colour, matrix in zip(colours, matrices, strict=True)
    ]
    first, second = (np.asarray(paste(picture, order), int) for order in (patches, patches[::-1]))
    assert np.abs(first - second).max() <= 1
    assert first[94, 124, 0] == pytest.approx(first[94, 123, 2], abs=3)  # halfway: as much of each
    assert first.sum(2).max() <= 256  # never more than one photo's worth


def test_a_face_above_all_strips_has_no_lines() -> None:
    picture = Image.new("RGB", (1000, 1300), "black")
    matrix = placed(7.0, 5, 430, 580)
    pasted = np.asarray(paste(picture, [Patch(smooth(128, 128), matrix)]), int)
    assert np.abs(np.diff(pasted[300:1000, 350:650], axis=0)).max() <= 3


def test_strength_is_the_share_of_the_photo() -> None:
    picture, white = Image.new("RGB", (128, 128), "black"), Image.new("RGB", (128, 128), "white")
    for strength, expected in ((0.0, 0), (0.4, 102), (1.0, 255)):
        pasted = paste(picture, [Patch(white, UPRIGHT)], strength)
        assert pasted.getpixel((64, 64)) == (expected,) * 3


def test_matched_colours_are_those_of_the_surroundings() -> None:
    under, photo = drawn.face(0), drawn.face(1)
    blue = Image.blend(photo, Image.new("RGB", photo.size, "blue"), 0.3)
    matched = pasting.match_colours(blue, under)
    ring = weights(UPRIGHT, under)
    ring = (ring > 0) & (ring < 1)
    means = [np.asarray(picture, float)[ring].mean(0) for picture in (under, matched, blue)]
    assert np.abs(means[0] - means[1]).max() < 6
    assert np.abs(means[0] - means[2]).max() > 30
    assert difference(pasting.match_colours(under, under), under).max() <= 3


def test_faces_come_the_largest_first_and_specks_not_at_all() -> None:
    small, large, speck = (face_at(placed(scale)) for scale in (0.5, 2.0, 0.01))
    assert find_faces(drawn.face(), lambda picture: [small, speck, large]) == [large, small]
    assert find_faces(drawn.face(), lambda picture: []) == []


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    default_finder.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'face-destyle\[faces\]'.* by hand"):
        find_faces(drawn.face())


def test_opencv_5_has_no_cascades(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(
        UserError, match=r"has no Haar cascades: pip install 'face-destyle\[faces\]'"
    ):
        CascadeFinder()


def test_yunet_files_that_are_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="does not exist: give the path of"):
        YuNetFinder(tmp_path / "absent.onnx")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"this is no network")
    with pytest.raises(WeightsError, match="cannot read .*wrong.onnx: give the path of"):
        YuNetFinder(wrong)
    assert capfd.readouterr().err == ""


def test_another_file_in_the_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_bytes(b"another")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(path))
    with pytest.raises(WeightsError, match="damaged or another file"):
        YuNetFinder()


@pytest.mark.parametrize("offline", [True, False], ids=["offline mode", "no network"])
def test_without_yunet_the_cascades_find_faces(
    offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*arguments: object, **options: object) -> None:
        raise RuntimeError("Name or service not known")

    def tried(*arguments: object) -> None:
        pytest.fail("the download tries again and again")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    if not offline:
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreached)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", tried)
    default_finder.cache_clear()
    assert isinstance(default_finder(), CascadeFinder)
    default_finder.cache_clear()


def test_a_finder_is_asked_where_those_before_it_find_none() -> None:
    face, asked = face_at(placed()), []

    def finds(name: str, *found: Face) -> faces.Finder:
        return lambda picture: asked.append(name) or list(found)

    assert InTurn(finds("a"), finds("b", face), finds("c", face))(drawn.face()) == [face]
    assert asked == ["a", "b"]
    assert InTurn(finds("d"), finds("e"))(drawn.face()) == []


def test_where_yunet_finds_none_the_cascades_look(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage.data import astronaut

    monkeypatch.setattr(faces, "YuNetFinder", lambda: lambda picture: [])
    default_finder.cache_clear()
    finder = default_finder()
    default_finder.cache_clear()
    assert find_faces(images.load_picture(astronaut()), finder)


def test_without_cascades_a_finder_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    def finder(picture: Image.Image) -> list[Face]:
        return []

    assert with_cascades(finder) is not finder
    monkeypatch.delattr(cv2, "CascadeClassifier")
    assert with_cascades(finder) is finder


class FakeYuNet:
    """Sees one face at a known place of any picture, in the coordinates it is given."""

    def __init__(self, face: Face, size: tuple[int, int]):
        self.face, self.whole = face, size

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
        self.size = size

    def detect(self, pixels: np.ndarray) -> tuple[int, np.ndarray]:
        assert pixels.shape[:2] == self.size[::-1]
        # The longer side and the same padding on every side give the scale.
        long, short = max(self.size), min(self.size)
        scale = (long - short) / (max(self.whole) - min(self.whole))
        edge = (long - max(self.whole) * scale) / 2
        points = (np.array([*self.face.eyes] + [self.face.eyes[0]] * 3) + 0.5) * scale - 0.5 + edge
        left, top, right, bottom = ((v + 0.5) * scale - 0.5 + edge for v in self.face.box)
        row = [left, top, right - left, bottom - top, *points.ravel(), self.face.score]
        return 1, np.array([row], np.float32)


def test_yunet_positions_are_those_of_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    picture = smooth(800, 400)
    face = face_at(placed(1.1, 12, 300, 100))
    fake = type("Fake", (), {"create": lambda *_: FakeYuNet(face, picture.size)})
    monkeypatch.setattr(cv2, "FaceDetectorYN", fake)
    (found,) = find_faces(picture, YuNetFinder(__file__))
    np.testing.assert_allclose(found.eyes, face.eyes, atol=0.1)
    np.testing.assert_allclose(found.box, face.box, atol=0.1)
    assert found.landmarks is not None
    assert found.landmarks[:2] == found.eyes


def test_the_cascades_find_a_face_and_its_eyes() -> None:
    from skimage.data import astronaut

    picture = images.load_picture(astronaut())
    face = find_faces(picture, CascadeFinder())[0]
    np.testing.assert_allclose(face.eyes, [(205.5, 105.5), (246.5, 106)], atol=6)
    turned = picture.rotate(-10, Image.Resampling.BICUBIC)
    assert find_faces(turned, CascadeFinder())[0].angle == pytest.approx(10, abs=6)


def test_no_face_in_a_picture_without_one() -> None:
    for picture in (Image.new("RGB", (300, 200)), Image.new("RGB", (1, 1)), smooth(2000, 3)):
        assert find_faces(picture, CascadeFinder()) == []
