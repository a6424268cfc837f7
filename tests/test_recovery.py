"""A whole picture in, a whole picture out, with a finder that is told where the faces are."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from face_destyle import (
    AFRP,
    FDNN,
    AFRPConfig,
    FaceRecovery,
    FDNNConfig,
    PictureError,
    Recovered,
    UserError,
    images,
    recovery,
)
from face_destyle.models.base import FaceModel
from face_destyle.models.similarity import similarity, warp
from face_destyle.pasting import Patch, compose, crop, invert, paste
from tests import drawn
from tests.test_faces import difference, face_at, placed, weights

ROOT = Path(__file__).parents[1]
PLACES = placed(1.0, 10, 20, 40), placed(1.5, -20, 230, 90)


class Copy(FaceModel):
    """A network that gives back what it sees, so that the geometry alone is left."""

    expects_aligned = True

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


class Upright(Copy):
    """A network that knows how its input is turned, and turns it upright."""

    expects_aligned = False

    def forward(self, portraits: torch.Tensor) -> Recovered:
        out = super().forward(portraits)
        assert out.alignment is not None
        return Recovered(warp(portraits, out.alignment), out.alignment)


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
    result = FaceRecovery(White(), finder(*PLACES))(picture, match_colour=False)
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


def test_a_large_picture_keeps_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "REDUCED_SIDE", 100)
    picture = two_faces()
    picture.save(tmp_path / "whole.png")
    assert images.load_picture(picture).size == (154, 107)
    for source in (tmp_path / "whole.png", picture, np.asarray(picture)):
        result = FaceRecovery(White(), finder(PLACES[0]))(source, match_colour=False)
        assert result.picture.size == picture.size
        outside = weights(PLACES[0], picture) == 0
        assert difference(result.picture, picture)[outside].max() == 0
        assert len(result.faces) == 1


def test_a_large_picture_is_in_memory_twice(tmp_path: Path) -> None:
    """At 4 bytes a pixel; transparent and lying on its side, with a face that fills it."""
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    picture = Image.new("RGBA", (5000, 5000), (255, 0, 0, 0))
    picture.save(tmp_path / "large.png", compress_level=1, exif=exif)
    code = (
        "import sys; from face_destyle import FaceRecovery; from tests.memory import peak\n"
        "from tests.test_faces import face_at, placed; from tests.test_recovery import White\n"
        "before = peak()\n"
        "result = FaceRecovery(White(), lambda _: [face_at(placed(38.0, 0))])(sys.argv[1])\n"
        "assert result.picture.size == (5000, 5000) and len(result.faces) == 1\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) < 13 * picture.width * picture.height


def test_no_seam_at_the_edge_of_a_mask() -> None:
    """White over black, the largest difference there is, at two faces of one picture."""
    picture = Image.new("RGB", (460, 320), "black")
    result = FaceRecovery(White(), finder(*PLACES))(picture, match_colour=False)
    pasted = np.asarray(result.picture, int)
    inside = np.any([weights(matrix, picture) > 0 for matrix in PLACES], 0)
    padded = np.pad(inside, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge = inside & ~around
    assert edge.sum() > 500
    assert pasted[edge].max() <= 2
    assert pasted[~inside].max() == 0
    assert pasted.max() == 255


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
    result = FaceRecovery(White(inner), finder(outer))(picture, match_colour=False)
    # The middle of the frame is 0.2 and -0.1 half sides from that of the crop.
    x, y = outer @ (63.5 + 0.2 * 64, 63.5 - 0.1 * 64, 1)
    white = np.argwhere(np.asarray(result.picture)[..., 0] > 200)
    np.testing.assert_allclose(white.mean(0), (y, x), atol=0.5)
    np.testing.assert_allclose(result.faces[0].matrix @ (63.5, 63.5, 1), (x, y), atol=1e-4)
    scale = np.hypot(*result.faces[0].matrix[:, 0])
    assert scale == pytest.approx(0.6 * 1.5, abs=1e-5)


def test_a_network_that_aligns_gets_room_and_has_the_last_word() -> None:
    """The finder is off; the network is not; what is pasted is what was there."""
    true, found = placed(1.2, 15, 130, 80), placed(1.3, 5, 135, 76)
    picture = paste(Image.new("RGB", (400, 300), "teal"), [Patch(drawn.face(3), true)])
    picture = picture.filter(ImageFilter.GaussianBlur(2))
    inside = compose(invert(recovery._loose(found)), true)
    alignment = torch.from_numpy(normalised(inside))[None].float()
    result = FaceRecovery(Upright(alignment), finder(found))(picture, match_colour=False)
    (face,) = result.faces
    np.testing.assert_allclose(face.matrix, true, atol=1e-4)
    inner = (slice(10, 118), slice(10, 118))
    assert difference(face.photo, crop(picture, true))[inner].mean() < 2
    assert difference(result.picture, picture).mean() < 0.3
    # Pasted where the finder saw it, it would show.
    wrong = paste(picture, [Patch(face.photo, found)])
    assert difference(wrong, picture).mean() > 3


def test_what_a_network_that_aligns_sees_is_larger_than_the_frame() -> None:
    picture, neutral = two_faces(), similarity(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    (face,) = FaceRecovery(Upright(neutral), finder(PLACES[0]))(picture).faces
    larger = placed(1 / 0.9, 0)
    assert difference(face.crop, crop(picture, compose(PLACES[0], larger))).max() == 0
    np.testing.assert_allclose(face.matrix, compose(PLACES[0], larger))


def normalised(matrix: np.ndarray) -> np.ndarray:
    """A similarity of pixels of the frame in normalised coordinates."""
    pixels = np.array([[64, 0, 63.5], [0, 64, 63.5]])
    return compose(invert(pixels), compose(matrix, pixels))


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
    recover = FaceRecovery(model, finder(*places))
    assert len(recover(two_faces()).faces) == 11
    assert len(recover(two_faces(), batch_size=6).faces) == 11
    assert model.batches == [8, 3, 6, 5]


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"paste": False}])
def test_faces_without_a_changed_picture(options: dict[str, object]) -> None:
    result = FaceRecovery(White(), finder(*PLACES))(two_faces(), **options)
    assert difference(result.picture, two_faces()).max() == 0
    assert result.faces[0].photo.getpixel((5, 5)) == (255, 255, 255)


def test_colours_are_matched_where_asked() -> None:
    picture = two_faces()
    recover = FaceRecovery(White(), finder(PLACES[0]))
    matched, plain = (recover(picture, match_colour=match).picture for match in (True, False))
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
    recover = FaceRecovery.from_pretrained(tmp_path / "small", finder=finder(*PLACES))
    first = recover(two_faces())
    recover.model.train()
    second = recover(two_faces())
    assert recover.model.training
    assert difference(first.picture, second.picture).max() == 0
    photo = recover.model.recover(first.faces[0].crop)
    assert difference(photo, first.faces[0].photo).max() <= 1


def test_what_cannot_be_done_is_one_line() -> None:
    recover = FaceRecovery(Copy(), finder(*PLACES))
    for options, message in (
        ({"strength": 1.5}, "strength must be from 0 to 1, not 1.5"),
        ({"strength": float("nan")}, "strength must be from 0 to 1"),
        ({"max_faces": 0}, "max_faces must be 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"attributes": "Smiling"}, "takes no attributes: leave them out"),
    ):
        with pytest.raises(UserError, match=message):
            recover(two_faces(), **options)
    with pytest.raises(PictureError, match="does not exist"):
        recover("absent.jpg")


def test_in_pixels_and_composed_it_is_the_warp_of_the_network() -> None:
    alignment = similarity(torch.tensor([[0.2, 0.8, 0.1, 0.0]]))
    portrait = drawn.face().filter(ImageFilter.GaussianBlur(2))
    warped = warp(images.to_tensor([portrait], 128), alignment)
    matrix = recovery._in_pixels(alignment[0].double().numpy())
    cut = crop(portrait, compose(placed(), matrix))
    inner = (slice(20, 108), slice(20, 108))
    assert difference(cut, images.to_picture(warped[0]))[inner].mean() < 1.5


def guided() -> AFRP:
    """A small network that obeys, if not well: what it was given at zero is no longer that."""
    torch.manual_seed(0)
    model = AFRP(AFRPConfig(**SMALL_AFRP)).eval()
    torch.nn.init.normal_(model.code.joined.weight)
    return model


SMALL_AFRP = {
    "encoder_widths": (8, 8, 8, 8),
    "localisation_widths": (4, 4, 4, 4),
    "localisation_full": 4,
    "code_rank": 4,
    "decoder_widths": (8, 8, 8),
    "skip_width": 4,
    "tail_width": 4,
}


def test_attributes_are_those_of_the_network() -> None:
    model = guided()
    recover = FaceRecovery(model, finder(PLACES[0]))
    plain, smiling = (recover(two_faces(), attributes=wish) for wish in (None, "Smiling,-Young"))
    assert difference(plain.faces[0].photo, smiling.faces[0].photo).max() > 0
    photo = model.recover(smiling.faces[0].crop, attributes="Smiling,-Young")
    assert difference(photo, smiling.faces[0].photo).max() == 0
    with pytest.raises(UserError, match="did you mean Smiling"):
        recover(two_faces(), attributes="Smilng")


@pytest.mark.parametrize("source", [drawn.face(1), drawn.quarters(), drawn.face(2, 900)])
def test_portraits_are_recovered_as_by_the_network(source: Image.Image) -> None:
    model = guided()
    portraits = [recovery.read_portrait(picture, model) for picture in (source, drawn.face())]
    photos = recovery.recover_portraits(model, portraits)
    for photo, expected in zip(photos, model.recover([source, drawn.face()]), strict=True):
        assert difference(photo, expected).max() == 0


@pytest.mark.parametrize("side", [128, 16])
def test_strength_mixes_photo_and_portrait(side: int) -> None:
    model = White(side=side)
    portraits = [recovery.read_portrait(drawn.face(), model)]
    none, some, full = (
        recovery.recover_portraits(model, portraits, strength)[0] for strength in (0.0, 0.4, 1.0)
    )
    expected = portraits[0].resize((128, 128), Image.Resampling.NEAREST)
    assert difference(none, expected).max() == 0
    white = Image.new("RGB", (128, 128), "white")
    assert difference(full, white).max() == 0
    assert difference(some, Image.blend(expected, white, 0.4)).max() == 0
    with pytest.raises(UserError, match="strength must be from 0 to 1"):
        recovery.recover_portraits(model, portraits, -0.1)


def test_a_portrait_is_mixed_in_upright() -> None:
    alignment = similarity(torch.tensor([[0.5, 0.8, 0.1, 0.0]]))
    portrait = drawn.face().filter(ImageFilter.GaussianBlur(2))
    (mixed,) = recovery.recover_portraits(Upright(alignment), [portrait], 0.5)
    (photo,) = recovery.recover_portraits(Upright(alignment), [portrait])
    assert difference(mixed, photo).max() <= 1
    assert difference(mixed, portrait).max() > 50
