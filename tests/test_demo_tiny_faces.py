"""A photo of several heads in the tab of TANN, as a program and as the page see it."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from face_destyle import FaceModel, images, pasting
from face_destyle.faces import FRAME_LANDMARKS, Face, default_finder, find_faces
from spaces_app import framing, tiny_faces
from tests import demo_site, drawn
from tests.demo_site import assert_sentence, difference, opened, same

PORTRAITS = framing.EXAMPLES / "whole-two-portraits.png"
ONE = framing.EXAMPLES / "photo-astronaut.png"
UPLOAD = {"path": str(PORTRAITS)}


@pytest.fixture
def no_opencv(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cv2", None)
    default_finder.cache_clear()
    yield
    default_finder.cache_clear()


def test_each_face_is_that_of_its_part_of_the_photo(client: Client) -> None:
    pairs = client.predict(handle_file(PORTRAITS), api_name="/recover_tiny_faces")
    captions = [pair["caption"] for pair in pairs]
    assert captions == [
        *("Face 1", "1: 16 × 16", "1: frontal"),
        *("Face 2", "2: 16 × 16", "2: frontal"),
    ]
    model, photo = FaceModel.from_pretrained("fdnn-tann"), images.load_picture(PORTRAITS)
    shown = [opened(pair["image"]) for pair in pairs]
    found = find_faces(photo)
    assert len(found) == 2
    for number, face in enumerate(found):
        part, seen, frontal = shown[3 * number : 3 * number + 3]
        assert same(part, pasting.crop(photo, tiny_faces.head_frame(face)))
        pixels = part.resize((16, 16), Image.Resampling.LANCZOS)
        assert same(seen, pixels.resize((128, 128), Image.Resampling.NEAREST))
        assert difference(frontal, model.recover(part)) <= 1
        assert [picture.info.get("Weights") for picture in (part, seen, frontal)] == [
            *(None, None),
            "fdnn-tann",
        ]
        back = pasting.invert(tiny_faces.head_frame(face))
        eyes = np.array(face.eyes) @ back[:, :2].T + back[:, 2]
        assert np.abs(eyes - ((46.7, 55.9), (81.2, 55.9))).max() < 8
    assert not same(shown[2], shown[5])


def test_the_page_shows_every_face_of_two(url: str) -> None:
    place, pairs, text = tiny_faces._recover_faces_for_page(UPLOAD)
    assert place.visible
    assert [caption for _, caption in pairs][::3] == ["Face 1", "Face 2"]
    assert text.startswith("2 faces were found in the whole photo; each is recovered below")


def test_one_face_that_is_small_in_its_photo_is_shown(url: str, tmp_path: Path) -> None:
    wide, path = Image.new("RGB", (400, 360), (206, 200, 188)), tmp_path / "wide.png"
    wide.paste(images.load_picture(ONE).resize((160, 160)), (40, 20))
    wide.save(path)
    place, pairs, text = tiny_faces._recover_faces_for_page({"path": str(path)})
    assert place.visible
    assert [caption for _, caption in pairs] == ["Face 1", "1: 16 × 16", "1: frontal"]
    assert text.startswith("One face was found in the whole photo; it is recovered below")


def test_a_face_that_fills_its_photo_is_not_shown_twice(url: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    drawn.quarters(200, 120).save(empty)
    for path, count in ((ONE, 1), (empty, 0)):
        assert len(find_faces(images.load_picture(path))) == count
        place, pairs, text = tiny_faces._recover_faces_for_page({"path": str(path)})
        assert (place.visible, pairs, text) == (False, [], "")


def test_faces_are_looked_for_in_a_large_photo_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[int, int]] = []
    monkeypatch.setattr(tiny_faces, "find_faces", lambda photo: looked.append(photo.size) or [])
    for side in (16, tiny_faces.SMALLEST - 1, tiny_faces.SMALLEST):
        path = tmp_path / f"{side}.png"
        drawn.face(2, side).save(path)
        place, _, text = tiny_faces._recover_faces_for_page({"path": str(path)})
        assert (place.visible, text) == (False, "")
    assert looked == [(tiny_faces.SMALLEST, tiny_faces.SMALLEST)]


def test_a_crowd_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (face, _) = find_faces(images.load_picture(PORTRAITS))
    monkeypatch.setattr(tiny_faces, "find_faces", lambda _: [face] * 20)
    monkeypatch.setattr(tiny_faces, "MOST_FACES", 3)
    _, pairs, text = tiny_faces._recover_faces_for_page(UPLOAD)
    assert [caption for _, caption in pairs][::3] == ["Face 1", "Face 2", "Face 3"]
    assert text.startswith("20 faces were found in the whole photo; each of the largest 3 is")


def test_no_face_is_a_sentence_for_a_program(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    drawn.quarters(200, 120).save(path)
    with pytest.raises(AppError, match="No face was found in this photo: ") as caught:
        client.predict(handle_file(path), api_name="/recover_tiny_faces")
    assert_sentence(str(caught.value))


def test_without_opencv_the_tab_works_and_says_so(client: Client, no_opencv: None) -> None:
    _, face = client.predict(handle_file(PORTRAITS), api_name="/recover_tiny")
    assert same(opened(face), FaceModel.from_pretrained("fdnn-tann").recover(PORTRAITS))
    place, pairs, text = tiny_faces._recover_faces_for_page(UPLOAD)
    assert (place.visible, pairs) == (False, [])
    assert text.startswith("This demo cannot look for faces")
    assert_sentence(text)
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(PORTRAITS), api_name="/recover_tiny_faces")
    assert str(caught.value) == text


def test_a_bad_picture_is_told_once_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for way in ("Warning", "Info"):
        monkeypatch.setattr(gr, way, lambda message, **_: told.append(message))
    bad = {"path": str(drawn.unreadable("text", tmp_path))}
    for upload in (None, bad, {"path": str(tmp_path / "deleted.png")}):
        assert tiny_faces._recover_faces_for_page(upload) == (gr.skip(),) * 3
    assert not told


def test_the_button_recovers_the_square_and_the_faces() -> None:
    with demo_site.own_cache():
        app = demo_site.serve()[0]
    clicks = [
        fn
        for fn in app.fns.values()
        for block, event in fn.targets
        if event == "click" and app.blocks[block].elem_id == "tiny-run"
    ]
    assert [fn.concurrency_id for fn in clicks] == ["long", "net"]
    faces, square = clicks
    assert [block.elem_id for block in faces.inputs] == ["tiny-picture"]
    assert not {block._id for block in faces.outputs} & {block._id for block in square.outputs}
    # Whoever waits for other visitors' files may choose another photo meanwhile.
    assert faces.trigger_mode == "always_last"


def _face(landmarks: np.ndarray) -> Face:
    points = tuple((float(x), float(y)) for x, y in landmarks)
    return Face((0, 0, 1, 1), 1.0, (points[0], points[1]), points)


def test_a_frontal_head_is_framed_by_its_landmarks_a_little_smaller() -> None:
    cos, sin = 3 * math.cos(math.radians(20)), 3 * math.sin(math.radians(20))
    turn = np.array([[cos, -sin, 40.0], [sin, cos, -7.0]])
    places = np.array(FRAME_LANDMARKS)
    frame = tiny_faces.head_frame(_face(places @ turn[:, :2].T + turn[:, 2]))
    # Frame -> crop: 0.9 times as large, about the middle.
    inner = pasting.compose(pasting.invert(frame), turn)
    assert np.allclose(inner, [[0.9, 0, 6.35], [0, 0.9, 6.35]])


def test_a_head_that_looks_aside_keeps_its_size() -> None:
    aside = np.array(FRAME_LANDMARKS)
    aside[:, 0] = 64 + (aside[:, 0] - 64) / 3  # a third of the distance of the eyes is left
    face = _face(aside)
    by_eyes = np.hypot(*face.matrix[:, 0])
    assert by_eyes < 0.35
    assert 0.6 < np.hypot(*tiny_faces.head_frame(face)[:, 0]) < 1.2


def test_without_landmarks_a_head_is_framed_by_its_eyes() -> None:
    face = Face((0, 0, 128, 128), 1.0, (FRAME_LANDMARKS[0], FRAME_LANDMARKS[1]))
    frame = tiny_faces.head_frame(face)
    assert np.allclose(pasting.invert(frame), [[0.9, 0, 6.35], [0, 0.9, 6.35]])
