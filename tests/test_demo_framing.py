"""The square that a visitor frames, and the examples that lie in the frame."""

from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from face_destyle import PictureError, images
from spaces_app import framing, make_examples
from tests import drawn
from tests.demo_site import same


@pytest.mark.parametrize("size", [(128, 128), (201, 90), (90, 201), (1, 1), (3, 2)])
def test_default_frame_is_the_centre_square(size: tuple[int, int]) -> None:
    picture = drawn.face(1, 256).resize(size)
    assert same(framing.cut_square(picture, 100, 0, 0, 0), images.centre_square(picture))


def test_tilt_levels_a_leaning_face() -> None:
    upright = drawn.face(2, 256)
    leaning = upright.rotate(-20, Image.Resampling.BICUBIC)
    middle = (64, 64, 192, 192)  # what no corner was turned into
    levelled = np.asarray(framing.cut_square(leaning, 100, 0, 0, 20).crop(middle), float)
    wanted = np.asarray(upright.crop(middle), float)
    turned_wrongly = framing.cut_square(leaning, 100, 0, 0, -20).crop(middle)
    assert np.abs(levelled - wanted).mean() < 8
    assert np.abs(np.asarray(turned_wrongly, float) - wanted).mean() > 20


def test_frame_stays_inside_the_picture() -> None:
    picture = Image.new("RGB", (101, 67), "black")
    for across in (-100, 100):
        for down in (-100, 100):
            square = framing.cut_square(picture, 37, across, down, 0)
            assert square.size == (25, 25)
            assert square.getextrema() == ((0, 0),) * 3
    with pytest.raises(PictureError, match="size must be"):
        framing.cut_square(picture, float("nan"), 0, 0, 0)


def test_a_bad_file_leaves_no_square(
    tmp_path: Path, portrait_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: told.append(message))
    good, bad = portrait_file, drawn.unreadable("text", tmp_path)
    frame = (100, 0, 0, 0)
    assert framing.look(framing.view, {"path": str(good)}, *frame)
    assert framing.look(framing.view, None, *frame) is None
    assert not told
    assert framing.look(framing.view, {"path": str(bad)}, *frame) is None
    assert len(told) == 1 and "The file is not a picture that can be read: give " in told[0]


def test_view_marks_the_eyes_of_an_aligned_face() -> None:
    shown = framing.view(drawn.face(0, 256))
    assert shown.size == (256, 256)
    for x, y in framing.FRAME_EYES:
        assert shown.getpixel((round(2 * x) - 13, round(2 * y))) == (255, 255, 255)


def test_examples_are_there_and_small() -> None:
    names = {path.stem for path in framing.EXAMPLES.glob("*.png")}
    assert {f"photo-{name}" for name in ("astronaut", *make_examples.LOOKS)} <= names
    assert len([name for name in names if name.startswith("portrait-")]) >= 4
    for kind in ("turned-", "tiny-", "whole-"):
        assert any(name.startswith(kind) for name in names)
    for path in framing.EXAMPLES.glob("*.png"):
        assert path.stat().st_size < 60_000
        assert max(images.load_picture(path).size) <= 400


@pytest.mark.parametrize("name", ["astronaut", *make_examples.LOOKS])
def test_examples_have_their_eyes_in_the_frame(name: str) -> None:
    drawn_anew = (
        make_examples.astronaut()
        if name == "astronaut"
        else make_examples.draw_face(make_examples.LOOKS[name])
    )
    kept = images.load_picture(framing.EXAMPLES / f"photo-{name}.png")
    # The palette of the kept file costs a little.
    assert np.abs(np.asarray(drawn_anew, float) - np.asarray(kept, float)).mean() < 4
    grey = np.asarray(kept.convert("L"), float)
    for x, y in ((round(2 * x), round(2 * y)) for x, y in framing.FRAME_EYES):
        iris, cheek = grey[y - 4 : y + 5, x - 4 : x + 5], grey[y + 28 : y + 37, x - 4 : x + 5]
        assert iris.mean() < cheek.mean() - 15
