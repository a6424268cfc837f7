"""The tabs of the later studies as a program sees them: the pictures of the package."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from face_destyle import AFRP, FaceModel, PictureError, images
from face_destyle.attributes import NAMES, UNKNOWN, to_vector, with_attribute
from face_destyle.models.similarity import similarity, warp
from spaces_app import common, guided, results, tiny, turned
from spaces_app.common import AFRP as AFRP_NAME
from spaces_app.framing import enlarged
from tests import demo_site, drawn
from tests.demo_site import assert_sentence, difference, opened, same


def test_a_turned_portrait(client: Client, portrait_file: Path, portrait: Image.Image) -> None:
    face, found = client.predict(handle_file(portrait_file), api_name="/recover_turned")
    model = FaceModel.from_pretrained("fdnn-ifrp")
    assert same(opened(face), model.recover(portrait_file))
    assert opened(face).info["Weights"] == "fdnn-ifrp"
    with torch.inference_mode():
        out = model(images.to_tensor([portrait], 128))
    assert same(opened(found), turned.overlay(portrait, out.alignment))
    assert not same(opened(found), enlarged(portrait))


def test_strength_lies_over_the_upright_portrait(
    client: Client, portrait_file: Path, portrait: Image.Image
) -> None:
    weak, _ = client.predict(handle_file(portrait_file), strength=0, api_name="/recover_turned")
    portraits = images.to_tensor([portrait], 128)
    with torch.inference_mode():
        alignment = FaceModel.from_pretrained("fdnn-ifrp")(portraits).alignment
    assert same(opened(weak), images.to_picture(warp(portraits, alignment)[0]))


def test_the_overlay_is_drawn_where_the_face_is() -> None:
    # Turned by a quarter clockwise and half as large: the eyes are at the right, one below the
    # other.
    alignment = similarity(torch.tensor([[math.pi / 2, 0.5, 0.0, 0.0]]))
    drawing = np.asarray(turned.overlay(Image.new("RGB", (128, 128), "red"), alignment), int)
    white = np.argwhere((drawing == 255).all(2))
    for corner in ((64, 64), (64, 191), (191, 64), (191, 191)):
        assert np.abs(white - corner).max(1).min() <= 3
    assert (drawing[:50] == (255, 0, 0)).all()
    top = (drawing[:, 188:196] == 255).all(2).sum()  # the top of the frame is at the right
    assert top > 1.5 * (drawing[:, 61:69] == 255).all(2).sum()
    for x, y in ((44.8, 55.0), (83.2, 55.0)):
        eye = 128 - (y + 0.5 - 64), 128 + (x + 0.5 - 64)
        ring = np.hypot(white[:, 1] + 0.5 - eye[0], white[:, 0] + 0.5 - eye[1])
        assert ((ring > 5) & (ring < 10)).sum() > 20


def test_the_overlay_without_an_alignment_is_the_picture(portrait: Image.Image) -> None:
    assert same(turned.overlay(portrait, None), enlarged(portrait))
    assert turned.words(None) == ""


@pytest.mark.parametrize(("angle", "way"), [(30, "30° clockwise"), (-12, "12° counterclockwise")])
def test_the_alignment_in_words(angle: float, way: str) -> None:
    alignment = similarity(torch.tensor([[math.radians(angle), 0.9, 0, 0]]))
    assert turned.words(alignment) == f"Found: turned {way}, 0.90 times the usual size."


def test_attributes_are_those_of_the_package(client: Client, portrait_file: Path) -> None:
    wish = "Blond_Hair,Smiling,-Young"
    face, strip = client.predict(
        handle_file(portrait_file), wish, api_name="/recover_with_attributes"
    )
    model = AFRP.from_pretrained(AFRP_NAME)
    assert same(opened(face), model.recover(portrait_file, attributes=wish))
    # What nothing was said of is turned round from what is seen.
    reader = common.classifier()
    seen = dict(zip(NAMES, reader.decide(reader.predict(opened(face))), strict=True))
    is_open = seen["Mouth_Slightly_Open"] == 1
    changes = {"Smiling": False, "Mouth_Slightly_Open": not is_open}
    labels = [edit["caption"] for edit in strip]
    mouth = "mouth closed" if is_open else "mouth slightly open"
    assert labels[:3] == ["not smiling", mouth, "young"]
    assert labels[4:6] == ["hair not blond", "black hair"]
    for edit, (name, value) in zip(strip, changes.items(), strict=False):
        vector = with_attribute(to_vector(wish), name, value)
        expected = model.recover(portrait_file, attributes=vector)
        assert difference(opened(edit["image"]), expected) <= 1


def test_without_attributes_the_portrait_decides(client: Client, portrait_file: Path) -> None:
    face, strip = client.predict(handle_file(portrait_file), api_name="/recover_with_attributes")
    assert same(opened(face), FaceModel.from_pretrained(AFRP_NAME).recover(portrait_file))
    shown = [opened(edit["image"]) for edit in strip]
    assert len(shown) == len(guided.EDITS) == 8
    assert all(difference(opened(face), edit) > 1 for edit in shown)
    again, _ = client.predict(handle_file(portrait_file), api_name="/recover_with_attributes")
    assert same(opened(face), opened(again))


@pytest.mark.parametrize(
    ("wish", "words"),
    [("Smilng", "did you mean Smiling"), ("Bald,Bangs", "exclude each other")],
)
def test_a_wrong_attribute_is_a_sentence(
    wish: str, words: str, client: Client, portrait_file: Path
) -> None:
    with pytest.raises(AppError, match=words) as caught:
        client.predict(handle_file(portrait_file), wish, api_name="/recover_with_attributes")
    assert caught.value.args[0][0].isupper()


def test_the_form_is_read_from_the_square_of_the_new_picture() -> None:
    with demo_site.own_cache():
        fns = demo_site.serve()[0].fns
    (read,) = [fn for fn in fns.values() if fn.name == "_read_chosen"]
    look = fns[read.trigger_after]
    reset = fns[look.trigger_after]
    assert look.outputs[0].elem_id == "guided-view"
    assert [event for _, event in reset.targets] == ["change"]
    assert reset.outputs == read.inputs[1:]  # the sliders
    (button,) = [fn for fn in fns.values() if fn.name == "_read"]
    assert [event for _, event in button.targets] == ["click"]


def marks(form: list[dict[str, Any]]) -> list[list[str]]:
    """The values that are marked as seen, of each attribute."""
    return [[v for label, v in row["choices"] if label.endswith("(seen)")] for row in form]


def test_what_is_seen_is_marked_and_not_chosen(portrait_file: Path) -> None:
    frame, picture = (100, 0, 0, 0), {"path": str(portrait_file)}
    with demo_site.own_cache():
        chosen, again = guided._read_chosen(picture, *frame), guided._read(picture, *frame)
        face = common.recoverer("fdnn-afrp").recover(portrait_file)
        seen = common.classifier().decide(common.classifier().predict(face))
    expected = [[guided.YES if value else guided.NO] for value in seen]
    assert marks(chosen) == marks(again) == expected
    assert [row["value"] for row in chosen] == [guided.OPEN] * len(NAMES)
    assert not any("value" in row for row in again)  # what was chosen stays chosen


def test_a_bad_file_leaves_the_form_open(tmp_path: Path) -> None:
    frame = (100, 0, 0, 0)
    bad = {"path": str(drawn.unreadable("text", tmp_path))}
    form = guided._read_chosen(bad, *frame)
    assert not any(marks(form)) and {row["value"] for row in form} == {guided.OPEN}
    with pytest.raises(PictureError):
        guided._read(bad, *frame)


def test_every_edit_changes_what_is_asked_or_else_seen() -> None:
    for value in (0.0, 1.0):
        vector, opposite = (value,) * len(NAMES), (1 - value,) * len(NAMES)
        assert all(guided._other(name, vector, opposite) == (not value) for name in guided.EDITS)
        assert all(guided._other(name, UNKNOWN, vector) == (not value) for name in guided.EDITS)


@pytest.mark.parametrize("side", [16, 24, 200])
def test_a_tiny_photo(side: int, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "tiny.png"
    drawn.face(2, side).save(path)
    seen, face = client.predict(handle_file(path), api_name="/recover_tiny")
    assert same(opened(face), FaceModel.from_pretrained("fdnn-tann").recover(path))
    pixels = images.load_picture(path).resize((16, 16), Image.Resampling.LANCZOS)
    assert same(opened(seen), pixels.resize((128, 128), Image.Resampling.NEAREST))


def test_a_large_photo_is_shown_beside_its_pixels(url: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    drawn.face(2, tiny.LARGE - 1).save(small)
    drawn.face(2, tiny.LARGE).save(large)
    shown = [
        tiny._recover_for_page({"path": str(path)}, 100, 0, 0, 0, 1)[2] for path in (small, large)
    ]
    assert [photo.visible for photo in shown] == [False, True]


def test_compare_shows_every_network(client: Client, portrait_file: Path) -> None:
    shown = client.predict(handle_file(portrait_file), api_name="/compare")
    assert [item["caption"] for item in shown] == ["Portrait", "FDNN", "IFRP", "AFRP"]
    faces = [opened(item["image"]) for item in shown]
    assert same(faces[0], images.load_picture(portrait_file))
    for face, name in zip(faces[1:], ("fdnn", "fdnn-ifrp", "fdnn-afrp"), strict=True):
        assert same(face, FaceModel.from_pretrained(name).recover(portrait_file))
        assert face.info["Weights"] == name


@pytest.mark.parametrize("strength", [-0.1, 1.5, math.nan, None, "all"])
def test_strength_has_limits(strength: object, portrait: Image.Image) -> None:
    outcome = results.Outcome("fdnn", portrait, portrait, None, 0.1)
    with pytest.raises(Exception, match="strength must be a number from 0 to 1") as caught:
        outcome.mixed(strength)  # type: ignore[arg-type]
    text = str(caught.value)
    assert_sentence(text[0].upper() + text[1:] + ".")
