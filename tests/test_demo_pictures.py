"""Whole pictures and several files, as a program sees them."""

import time
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from face_destyle import FaceModel, FaceRecovery, images
from face_destyle.faces import find_faces
from spaces_app import files, framing, whole
from tests import drawn
from tests.demo_site import assert_sentence, difference, opened, same

PORTRAITS = framing.EXAMPLES / "whole-two-portraits.png"


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel.from_pretrained("fdnn")


def test_a_whole_picture_is_that_of_the_package(client: Client, model: FaceModel) -> None:
    received, faces = client.predict(handle_file(PORTRAITS), api_name="/recover_whole")
    expected = FaceRecovery(model)(PORTRAITS)
    assert expected.found == 2
    assert difference(opened(received), expected.picture) <= 1
    assert opened(received).info["Weights"] == "fdnn"
    assert [face["caption"] for face in faces] == ["Face 1", "Face 2"]
    for face, recovered in zip(faces, expected.faces, strict=True):
        assert difference(opened(face["image"]), recovered.photo) <= 1


def test_one_face_of_two(client: Client) -> None:
    picture = images.load_picture(PORTRAITS)
    found = find_faces(picture)
    for number in (1, 2):
        received, faces = client.predict(
            handle_file(PORTRAITS), face=number, api_name="/recover_whole"
        )
        assert len(faces) == 1
        change = np.abs(np.asarray(opened(received), int) - np.asarray(picture, int)).max(2)
        middles = [
            (round((face.box[1] + face.box[3]) / 2), round((face.box[0] + face.box[2]) / 2))
            for face in found
        ]
        parts = [change[y - 20 : y + 20, x - 20 : x + 20] for y, x in middles]
        assert parts[number - 1].max() > 20
        assert parts[2 - number].max() == 0


def test_no_strength_leaves_the_picture(client: Client) -> None:
    received, _ = client.predict(handle_file(PORTRAITS), strength=0, api_name="/recover_whole")
    assert same(opened(received), images.load_picture(PORTRAITS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"face": 3}, r"Face must be a whole number from 0 \(all\) to 2\."),
        ({"face": 0.5}, r"Face must be a whole number"),
        ({"weights": "fdnn-tann"}, r"Weights must be one of fdnn, fdnn-ifrp, fdnn-afrp\."),
        ({"strength": 2}, r"Strength must be a number from 0 to 1\."),
    ],
)
def test_wrong_numbers_are_a_sentence(
    arguments: dict[str, Any], words: str, client: Client
) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(handle_file(PORTRAITS), **arguments, api_name="/recover_whole")


def test_no_face_is_a_sentence(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    drawn.quarters(200, 120).save(path)
    with pytest.raises(AppError, match="No face was found") as caught:
        client.predict(handle_file(path), api_name="/recover_whole")
    assert_sentence(str(caught.value))


def test_a_picture_without_a_face_clears_the_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: told.append(message))
    seen, face, count = whole._find({"path": str(PORTRAITS)})
    assert (len(face.choices), count) == (3, "2 faces were found.")
    assert seen and not told
    empty = tmp_path / "empty.png"
    drawn.quarters(200, 120).save(empty)
    for path in (empty, drawn.unreadable("text", tmp_path), tmp_path / "deleted.png"):
        seen, face, count = whole._find({"path": str(path)})
        assert (seen, face.choices, face.value, count) == (None, [("All faces", 0)], 0, "")
    assert [words.split()[0] for words in told] == ["No", "The", "Your"]


def test_a_face_of_the_last_picture_is_all_faces_on_the_page(url: str) -> None:
    upload = {"path": str(PORTRAITS)}
    counts = [
        len(whole._recover_for_page(upload, "fdnn", face, True, 1)[3]) for face in (0, 2, 3, None)
    ]
    assert counts == [2, 1, 2, 2]


def test_the_note_does_not_count_the_loading_of_the_network(
    url: str, model: FaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*_: object) -> FaceModel:
        time.sleep(2)
        return model

    monkeypatch.setattr(whole, "recoverer", slowly)
    picture = images.load_picture(PORTRAITS)
    start = time.perf_counter()
    _, seconds = whole._recover(picture, find_faces(picture), "fdnn", True, 1)
    assert 0 < seconds <= time.perf_counter() - start - 2


def test_boxes_are_numbered_where_the_faces_are() -> None:
    picture = images.load_picture(PORTRAITS)
    found = find_faces(picture)
    drawing = np.asarray(whole.numbered(picture, found), int)
    before = np.asarray(picture, int)
    assert drawing.shape == before.shape
    for face in found:
        left, top, right, bottom = (round(value) for value in face.box)
        assert (drawing[top, left + 5 : right - 5] == 255).mean() > 0.9
        assert (drawing[bottom, left + 5 : right - 5] == 255).mean() > 0.9
    assert np.abs(drawing - before)[:40].max() == 0


def test_the_page_shows_large_pictures_reduced() -> None:
    large = Image.new("RGB", (2 * whole.PREVIEW, whole.PREVIEW))
    assert whole.preview(large).size == (whole.PREVIEW, whole.PREVIEW // 2)
    assert whole.numbered(large, []).size == (whole.PREVIEW, whole.PREVIEW // 2)
    assert large.size == (2 * whole.PREVIEW, whole.PREVIEW)


def received_zip(path: str) -> dict[str, Image.Image]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        entries = {}
        for name in archive.namelist():
            with archive.open(name) as file, Image.open(file) as picture:
                assert picture.format == "PNG"
                assert picture.info["Weights"] == "fdnn"
                entries[name] = picture.convert("RGB")
    return entries


def test_several_files(client: Client, model: FaceModel, tmp_path: Path) -> None:
    one, other = tmp_path / "one.png", tmp_path / "sub" / "one.png"
    other.parent.mkdir()
    drawn.face(1, 150).save(one)
    drawn.face(2, 90).crop((0, 0, 90, 70)).save(other)
    bad = drawn.unreadable("truncated", tmp_path)
    uploads = [handle_file(path) for path in (one, bad, other)]
    path, table = client.predict(uploads, api_name="/recover_files")
    entries = received_zip(path)
    assert list(entries) == ["one.png", "one-2.png"]
    assert difference(entries["one.png"], model.recover(one)) <= 1
    assert difference(entries["one-2.png"], model.recover(other)) <= 1
    assert table["headers"] == ["File", "PNG", "What became of it"]
    assert [row[:2] for row in table["data"]] == [
        ["one.png", "one.png"],
        ["truncated.jpg", ""],
        ["one.png", "one-2.png"],
    ]
    assert table["data"][0][2] == "recovered"
    assert "truncated" in table["data"][1][2]
    assert str(tmp_path) not in str(table)


def test_several_whole_pictures(client: Client, model: FaceModel, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    drawn.quarters(200, 120).save(empty)
    uploads = [handle_file(path) for path in (PORTRAITS, empty)]
    path, table = client.predict(uploads, way="whole", api_name="/recover_files")
    entries = received_zip(path)
    assert list(entries) == [PORTRAITS.name]
    assert difference(entries[PORTRAITS.name], FaceRecovery(model)(PORTRAITS).picture) <= 1
    assert table["data"][0][2] == "2 faces were recovered."
    assert table["data"][1][2].startswith("No face was found")


@pytest.mark.parametrize("way", ["faces", "whole"])
def test_a_deleted_file_does_not_lose_the_others(url: str, tmp_path: Path, way: str) -> None:
    uploads = [{"path": str(path)} for path in (tmp_path / "deleted.png", PORTRAITS)]
    path, rows = files.recover_files(uploads, way=way)
    assert [row[:2] for row in rows] == [["deleted.png", ""], [PORTRAITS.name, PORTRAITS.name]]
    assert rows[0][2] == "your picture was deleted meanwhile: choose it again"
    assert path and list(received_zip(path)) == [PORTRAITS.name]


def test_nothing_recovered_is_a_table_without_a_zip(client: Client, tmp_path: Path) -> None:
    bad = drawn.unreadable("text", tmp_path)
    path, table = client.predict([handle_file(bad)], api_name="/recover_files")
    assert path is None or not Path(str(path)).is_file()
    assert table["data"][0][:2] == ["text.png", ""]


def test_no_files_and_too_many_are_a_sentence(portrait_file: Path) -> None:
    upload = {"path": str(portrait_file), "orig_name": "p.png"}
    for uploads, words in (([], "Choose some"), ([upload] * 65, "65 files are too many")):
        with pytest.raises(Exception, match=words):
            files.recover_files(uploads)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\pictures\\me.jpg", "me.jpg"),
        ("two\nlines.png", "twolines.png"),
        ("..", "picture"),
        ("", "stored.png"),
        ("x" * 300 + ".png", "x" * 76 + ".png"),
    ],
)
def test_names_have_no_folders(given: str, expected: str) -> None:
    name = files.shown_name({"path": "/tmp/stored.png", "orig_name": given})
    assert name == expected
    entry = files._entry(name, set())
    assert entry.endswith(".png")
    assert not {"/", "\\", ":"} & set(entry)


def test_entries_do_not_replace_each_other() -> None:
    taken: set[str] = set()
    names = [files._entry(name, taken) for name in ("a.jpg", "A.png", "a.png", "a-2.gif")]
    assert len({name.casefold() for name in names}) == 4
