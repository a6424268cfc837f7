"""Recovery over plain HTTP: the picture of the package in one request, plain errors, no files."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import handle_file
from PIL import Image

from face_destyle import FaceModel
from spaces_app import page, plain
from spaces_app.common import AT_ONCE, MAX_FILE_BYTES, MOST_WAITING
from tests import demo_site, drawn
from tests.demo_site import assert_sentence, difference, same


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[gr.Blocks, str]]:
    with demo_site.own_cache():
        yield demo_site.serve()


@pytest.fixture
def address(served: tuple[gr.Blocks, str]) -> str:
    return served[1].rstrip("/") + plain.PATH


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel.from_pretrained("fdnn")


def post(address: str, content: bytes, **query: float | str) -> httpx.Response:
    return httpx.post(address, content=content, params=query, timeout=60)


def png(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "no-store"
    return Image.open(io.BytesIO(response.content))


def refused(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("text/plain")
    assert_sentence(response.text)
    return response.text


def test_the_answer_is_the_picture_of_the_package(
    address: str, model: FaceModel, portrait_file: Path
) -> None:
    received = png(post(address, portrait_file.read_bytes()))
    assert same(received, model.recover(portrait_file))
    assert received.info["Weights"] == "fdnn"
    assert received.info["Generated"].startswith("yes")


def test_the_arguments_are_those_of_the_tab(address: str, model: FaceModel, tmp_path: Path) -> None:
    picture = drawn.face(1, 200)
    picture.save(tmp_path / "portrait.png")
    content = (tmp_path / "portrait.png").read_bytes()
    received = png(post(address, content, size=50, across=-100, down=100, strength=1))
    assert same(received, model.recover(picture.crop((0, 100, 100, 200))))


@pytest.mark.parametrize("kind", drawn.UNREADABLE_FILES)
def test_bad_files_are_a_sentence(kind: str, address: str, tmp_path: Path) -> None:
    content = drawn.unreadable(kind, tmp_path).read_bytes()
    sentence = refused(post(address, content), 400)
    assert drawn.UNREADABLE[kind][2] in sentence or sentence == "Send a picture."


@pytest.mark.parametrize(
    ("query", "start"),
    [
        ({"size": 0}, "Size must be a number from"),
        ({"tilt": "left"}, "Tilt must be a number from"),
        ({"down": "nan"}, "Down must be a number from"),
        ({"strength": 2}, "Strength must be a number from"),
        ({"weights": "fdnn"}, "The arguments that can be given are size, across"),
        ({"si\nze": "1"}, "The arguments that can be given are"),
    ],
)
def test_bad_arguments_are_a_sentence(
    query: dict[str, str | float], start: str, address: str, portrait_file: Path
) -> None:
    assert refused(post(address, portrait_file.read_bytes(), **query), 400).startswith(start)


def test_large_files_are_refused(address: str) -> None:
    assert "at most 10 MB" in refused(post(address, b"x" * (MAX_FILE_BYTES + 1)), 413)
    refused(post(address, b"x" * MAX_FILE_BYTES), 400)  # it is no picture, but not too large


def test_a_slow_upload_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "SLOWEST_UPLOAD", 0.2)

    async def slow() -> httpx.Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(1)
            yield b"x"

        async with httpx.AsyncClient() as client:
            return await client.post(address, content=parts(), timeout=30)

    refused(asyncio.run(slow()), 408)


def test_whoever_comes_when_too_many_wait_is_sent_away(
    address: str, portrait_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_recover", lambda *_: time.sleep(2) or b"")
    content = portrait_file.read_bytes()
    count = AT_ONCE + MOST_WAITING + 3
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: post(address, content), range(count)))
    away = [answer for answer in answers if answer.status_code != 200]
    assert len(away) == 3
    for answer in away:
        assert refused(answer, 503).startswith("Too many are waiting")


def test_a_failure_is_a_sentence(
    address: str, portrait_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "recovered", lambda *_: 1 / 0)
    sentence = refused(post(address, portrait_file.read_bytes()), 500)
    assert sentence == "That did not work."


def test_nothing_is_written(address: str, portrait_file: Path) -> None:
    cache = demo_site._folder("gradio")
    before = set(cache.rglob("*"))
    png(post(address, portrait_file.read_bytes()))
    refused(post(address, b"no picture"), 400)
    assert set(cache.rglob("*")) == before


def test_everybody_gets_their_own(address: str, model: FaceModel) -> None:
    faces = [drawn.face(seed) for seed in range(12)]

    def ask(face: Image.Image) -> Image.Image:
        file = io.BytesIO()
        face.save(file, format="PNG")
        return png(post(address, file.getvalue()))

    with ThreadPoolExecutor(12) as pool:
        received = list(pool.map(ask, faces))
    for face, answer in zip(faces, received, strict=True):
        assert difference(answer, model.recover(face)) <= 1


def test_it_is_not_there_where_a_password_is_asked(portrait_file: Path) -> None:
    app = page.build_app()
    _, url, _ = page.launch(app, prevent_thread_lock=True, quiet=True, auth=("one", "secret"))
    try:
        answer = post(url.rstrip("/") + plain.PATH, portrait_file.read_bytes())
        assert answer.status_code in (401, 404, 405)
    finally:
        app.close()


def test_a_part_that_changes_is_not_described_again(served: tuple[gr.Blocks, str]) -> None:
    """As an answer changes a label, or hides a picture."""
    app, _ = served
    session = app.app.state_holder["changed"]
    key, block = next((key, one) for key, one in app.blocks.items() if isinstance(one, gr.Image))
    session[key] = block
    assert session[key] is block
    assert not session.config_values


def test_sessions_hold_nothing(served: tuple[gr.Blocks, str], portrait_file: Path) -> None:
    app, url = served
    client = demo_site.connect(url, portrait_file.parent / "received")
    client.predict(handle_file(portrait_file), api_name="/recover")
    holder = app.app.state_holder
    assert holder.session_data
    assert holder.capacity == page.SESSIONS
    for session in holder.session_data.values():
        assert portrait_file.name not in repr(session.config_values)
        assert not any(
            "value" in block.get("props", {}) for block in session.config_values.values()
        )
