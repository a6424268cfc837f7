"""A whole picture in, a whole picture out, with a finder that is told where the faces are."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from face_destyle import FDNN, FaceRecovery, FDNNConfig, PictureError, Recovered, UserError, images
from face_destyle.models.base import FaceModel
from face_destyle.models.similarity import similarity
from face_destyle.pasting import Patch, compose, crop, paste
from tests import drawn
from tests.test_faces import difference, face_at, placed, weights

PLACES = placed(1.0, 10, 20, 40), placed(1.5, -20, 230, 90)


class Copy(FaceModel):
    """A network that gives back what it sees, so that the geometry alone is left."""

    def __init__(self, alignment: torch.Tensor | None = None, side: int = 128):
        super().__init__()
        self.config = type("Config", (), {"image_size": side})
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.alignment = alignment
        self.batches: list[int] = []

    def forward(self, portraits: torch.Tensor) -> Recovered:
        self.check_input(portraits)
        assert not self.training
        self.batches.append(len(portraits))
        photos = torch.nn.functional.interpolate(portraits, (128, 128))
        alignment = self.alignment
        return Recovered(photos, None if alignment is None else alignment.expand(len(photos), 2, 3))


class White(Copy):
    """A network for which every face is white."""

    def forward(self, portraits: torch.Tensor) -> Recovered:
        out = super().forward(portraits)
        return Recovered(torch.ones_like(out.photo), out.alignment)


def finder(*matrices: np.ndarray) -> object:
    return lambda picture: [face_at(matrix) for matrix in matrices]


def two_faces() -> Image.Image:
    patches = [Patch(drawn.face(seed), matrix) for seed, matrix in enumerate(PLACES)]
    return paste(Image.new("RGB", (460, 320), "teal"), patches)


def test_two_faces_are_recovered_and_the_rest_is_as_it_was() -> None:
    picture = two_faces()
    result = FaceRecovery(White(), finder(*PLACES))(picture, colour_match=False)
    changed = np.zeros((picture.height, picture.width), bool)
    for matrix in PLACES:
        x, y = matrix @ (64, 64, 1)
        assert result.picture.getpixel((round(x), round(y))) == (255, 255, 255)
        changed |= weights(matrix, picture) > 0
    assert difference(result.picture, picture)[~changed].max() == 0
    assert (~changed).sum() > 10_000
    assert [face.score for face in result.faces] == [0.9, 0.9]
    np.testing.assert_allclose(result.faces[0].matrix, PLACES[1])  # the larger
    assert result.message == "2 faces were recovered."


def test_crop_and_photo_are_the_frame() -> None:
    picture = two_faces()
    result = FaceRecovery(Copy(), finder(PLACES[0]))(picture)
    (face,) = result.faces
    assert difference(face.crop, crop(picture, PLACES[0])).max() == 0
    assert difference(face.photo, face.crop).max() == 0
    assert face.box == face_at(PLACES[0]).box
    assert result.message == "1 face was recovered."


def test_a_photo_goes_where_the_network_says_the_face_lies() -> None:
    picture, outer = Image.new("RGB", (400, 300), "black"), PLACES[1]
    inner = similarity(torch.tensor([[0.3, 0.6, 0.2, -0.1]]))
    result = FaceRecovery(White(inner), finder(outer))(picture, colour_match=False)
    # The middle of the frame is 0.2 and -0.1 half sides from that of the crop.
    x, y = outer @ (63.5 + 0.2 * 64, 63.5 - 0.1 * 64, 1)
    white = np.argwhere(np.asarray(result.picture)[..., 0] > 200)
    np.testing.assert_allclose(white.mean(0), (y, x), atol=0.5)
    np.testing.assert_allclose(result.faces[0].matrix @ (63.5, 63.5, 1), (x, y), atol=1e-4)
    scale = np.hypot(*result.faces[0].matrix[:, 0])
    assert scale == pytest.approx(0.6 * 1.5, abs=1e-5)


def test_an_alignment_that_changes_nothing_changes_nothing() -> None:
    neutral = similarity(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    with_one, without = (
        FaceRecovery(White(alignment), finder(*PLACES))(two_faces()).picture
        for alignment in (neutral, None)
    )
    assert difference(with_one, without).max() == 0


def test_no_face_leaves_the_picture_and_says_so() -> None:
    model = Copy()
    result = FaceRecovery(model, finder())(drawn.quarters())
    assert result.faces == ()
    assert difference(result.picture, drawn.quarters()).max() == 0
    assert "No face was found" in result.message
    assert model.batches == []


def test_the_largest_faces_where_there_are_too_many() -> None:
    result = FaceRecovery(Copy(), finder(*PLACES))(two_faces(), max_faces=1)
    np.testing.assert_allclose(result.faces[0].matrix, PLACES[1])
    assert result.found == 2
    assert result.message == "2 faces were found; the largest 1 were recovered."


def test_a_crowd_goes_through_in_batches() -> None:
    places = [placed(0.2, 0, 30 * number - 20, 100) for number in range(11)]
    model = Copy()
    assert len(FaceRecovery(model, finder(*places))(two_faces()).faces) == 11
    assert model.batches == [8, 3]


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"paste": False}])
def test_faces_without_a_changed_picture(options: dict[str, object]) -> None:
    result = FaceRecovery(White(), finder(*PLACES))(two_faces(), **options)
    assert difference(result.picture, two_faces()).max() == 0
    assert result.faces[0].photo.getpixel((5, 5)) == (255, 255, 255)


def test_colours_are_matched_where_asked() -> None:
    picture = two_faces()
    recovery = FaceRecovery(White(), finder(PLACES[0]))
    matched, plain = (recovery(picture, colour_match=match).picture for match in (True, False))
    x, y = (round(value) for value in PLACES[0] @ (64, 64, 1))
    assert plain.getpixel((x, y)) == (255, 255, 255)
    assert matched.getpixel((x, y))[0] < 200


@pytest.mark.parametrize("form", ["path", "bytes", "array", "palette", "alpha", "grey"])
def test_any_picture(form: str, tmp_path: Path) -> None:
    picture = two_faces()
    file = io.BytesIO()
    picture.save(file, "PNG")
    (tmp_path / "whole.png").write_bytes(file.getvalue())
    source = {
        "path": tmp_path / "whole.png",
        "bytes": file.getvalue(),
        "array": np.asarray(picture),
        "palette": picture.quantize(64),
        "alpha": picture.convert("RGBA"),
        "grey": picture.convert("L"),
    }[form]
    result = FaceRecovery(Copy(), finder(*PLACES))(source)
    assert result.picture.mode == "RGB"
    assert result.picture.size == picture.size
    assert len(result.faces) == 2


def test_a_small_input_is_the_same_frame() -> None:
    model = Copy(side=16)
    (face,) = FaceRecovery(model, finder(PLACES[0]))(two_faces()).faces
    assert face.crop.size == face.photo.size == (128, 128)


def test_a_saved_network_in_training_mode_or_not(tmp_path: Path) -> None:
    widths = {"encoder_widths": (8, 8, 8, 8), "code_rank": 4, "decoder_widths": (8, 8, 8)}
    FDNN(FDNNConfig(**widths)).save_pretrained(tmp_path / "small")
    recovery = FaceRecovery.from_pretrained(tmp_path / "small", finder=finder(*PLACES))
    first = recovery(two_faces())
    recovery.model.train()
    second = recovery(two_faces())
    assert recovery.model.training
    assert difference(first.picture, second.picture).max() == 0
    photo = recovery.model.recover(first.faces[0].crop)
    assert difference(photo, first.faces[0].photo).max() <= 1


def test_what_cannot_be_done_is_one_line() -> None:
    recovery = FaceRecovery(Copy(), finder(*PLACES))
    for options, message in (
        ({"strength": 1.5}, "strength must be from 0 to 1, not 1.5"),
        ({"strength": float("nan")}, "strength must be from 0 to 1"),
        ({"max_faces": 0}, "max_faces must be 1 or more, not 0"),
    ):
        with pytest.raises(UserError, match=message):
            recovery(two_faces(), **options)
    with pytest.raises(PictureError, match="does not exist"):
        recovery("absent.jpg")


def test_in_pixels_and_composed_it_is_the_warp_of_the_network() -> None:
    from face_destyle import recovery
    from face_destyle.models.similarity import warp

    alignment = similarity(torch.tensor([[0.2, 0.8, 0.1, 0.0]]))
    portrait = drawn.face().filter(ImageFilter.GaussianBlur(2))
    warped = warp(images.to_tensor([portrait], 128), alignment)
    matrix = recovery._in_pixels(alignment[0].double().numpy())
    cut = crop(portrait, compose(placed(), matrix))
    inner = (slice(20, 108), slice(20, 108))
    assert difference(cut, images.to_picture(warped[0]))[inner].mean() < 1.5
