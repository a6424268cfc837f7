"""The demo under strangers: many at once, and three hundred files that are odd or broken."""

import asyncio
import functools
import http.client
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from face_destyle import FaceModel, images
from face_destyle.models.base import inference
from tests import drawn

ROOT = Path(__file__).parents[2]
CLIENTS, REQUESTS = 16, 2000
WARM_UP = 8  # requests of each client before those that count
UPLOADS = 300
BATCH = 8
ROUNDS = 5
STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Server:
    """A demo in a process of its own."""

    url: str
    pid: int
    cache: Path

    def memory(self) -> int:
        """What it holds now, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("demo")
    cache, log = folder / "gradio", folder / "log.txt"
    environment = os.environ | {
        "GRADIO_TEMP_DIR": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while (address := re.search(r"http://[\d.]+:\d+", log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield Server(address[0], process.pid, cache)
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Answer:
    """What the server made of a file: a picture, or a sentence."""

    picture: Image.Image | None
    message: str


async def ask(client: httpx.AsyncClient, content: bytes, name: str) -> Answer:
    """Send a file to `/recover` over raw HTTP, as a browser does, all else left as it stands."""
    sent = await client.post("/gradio_api/upload", files={"files": (name, content)})
    if sent.status_code != 200:
        return Answer(None, sent.text)
    file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    others = _others(str(client.base_url))
    call = await client.post("/gradio_api/call/recover", json={"data": [file, *others]})
    call.raise_for_status()
    stream = await client.get(f"/gradio_api/call/recover/{call.json()['event_id']}")
    event, data = _last_event(stream.text)
    if event != "complete":
        return Answer(None, data if isinstance(data, str) else json.dumps(data))
    received = await client.get(f"/gradio_api/file={data[0]['path']}")
    received.raise_for_status()
    return Answer(images.load_picture(received.content), "")


@functools.cache
def _others(url: str) -> list[Any]:
    """What the page sends beside the file."""
    described = httpx.get(f"{url}/gradio_api/info").json()
    picture, *others = described["named_endpoints"]["/recover"]["parameters"]
    assert picture["parameter_name"] == "picture"
    return [parameter["parameter_default"] for parameter in others]


def _last_event(stream: str) -> tuple[str, Any]:
    events = re.findall(r"event: (\w+)\ndata: (.*)", stream)
    assert events, stream
    event, data = events[-1]
    return event, json.loads(data)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def bare_rate(model: FaceModel) -> float:
    """Faces a second of the network alone, eight at a time.

    The best of several rounds: another process on the same cores makes two threads wait for each
    other at every layer, and a low figure would ask nothing of the demo.
    """
    faces, seconds = drawn.faces(BATCH), []
    with inference(model):
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(10):
                model(faces)
            seconds.append(time.perf_counter() - start)
    return 10 * BATCH / min(seconds)


class Visitor:
    """A program with one connection to the server, made of what Python brings.

    It shares the cores with the server: a client with more comfort takes as long as the network.
    """

    def __init__(self, server: Server):
        self.connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
        self.others = _others(server.url)

    def plainly(self, content: bytes) -> bytes:
        """The PNG of one request, as `spaces_app/README.md` says it."""
        return self._ask("POST", "/gradio_api/recover", content)

    def as_the_page(self, content: bytes) -> bytes:
        """The PNG of the four requests that the page makes."""
        head = b'--cut\r\nContent-Disposition: form-data; name="files"; filename="face.png"\r\n\r\n'
        form = head + content + b"\r\n--cut--\r\n"
        kind = "multipart/form-data; boundary=cut"
        (path,) = json.loads(self._ask("POST", "/gradio_api/upload", form, kind))
        file = {"path": path, "orig_name": "face.png", "meta": {"_type": "gradio.FileData"}}
        call = json.dumps({"data": [file, *self.others]}).encode()
        asked = self._ask("POST", "/gradio_api/call/recover", call, "application/json")
        number = json.loads(asked)["event_id"]
        stream = self._ask("GET", f"/gradio_api/call/recover/{number}").decode()
        event, data = _last_event(stream)
        assert event == "complete", stream
        return self._ask("GET", f"/gradio_api/file={quote(data[0]['path'])}")

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        self.connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = self.connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return content


@dataclass(frozen=True)
class Load:
    """What became of many requests.

    Attributes:
        rate: faces a second.
        worst: the largest difference between what a client received and its own face, of 255.
        growth: the server's memory in the last quarter of the requests, to that in the first.
    """

    rate: float
    worst: int
    growth: float


def put_to_load(server: Server, ask: Callable[[Visitor, bytes], bytes]) -> Load:
    """Many requests of clients that each know what must come back."""
    model = FaceModel.from_pretrained("fdnn")
    files = [encoded(drawn.face(seed)) for seed in range(CLIENTS)]
    expected = [np.asarray(model.recover(file), np.int16) for file in files]
    memory: list[int] = []

    def client(number: int, requests: int = REQUESTS // CLIENTS) -> int:
        visitor, worst = Visitor(server), 0
        for _ in range(requests):
            received = images.load_picture(ask(visitor, files[number]))
            difference = np.abs(np.asarray(received, np.int16) - expected[number])
            worst = max(worst, int(difference.max()))
            if number == 0:
                memory.append(server.memory())
        return worst

    with ThreadPoolExecutor(CLIENTS) as pool:
        # Every thread and every size of a batch takes its memory once, and keeps it.
        list(pool.map(partial(client, requests=WARM_UP), range(CLIENTS)))
        memory.clear()
        start = time.perf_counter()
        worst = max(pool.map(client, range(CLIENTS)))
    rate = REQUESTS / (time.perf_counter() - start)
    quarter = len(memory) // 4
    growth = float(np.mean(memory[-quarter:]) / np.mean(memory[:quarter]))
    return Load(rate, worst, growth)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_sixteen_clients_get_their_own_faces(server: Server) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    bare = bare_rate(FaceModel.from_pretrained("fdnn"))
    torch.set_num_threads(1)
    load = put_to_load(server, Visitor.plainly)
    report = f"{load}, the network alone {bare:.1f} faces/s"
    assert load.worst <= 1, report
    assert load.growth < 1.1, report
    assert load.rate > bare / 2, report


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_sixteen_clients_get_their_own_faces_as_the_page_does(server: Server) -> None:
    """Four requests a face cost more than the network: of the rate, nothing is asked."""
    load = put_to_load(server, Visitor.as_the_page)
    assert load.worst <= 1, load
    assert load.growth < 1.1, load


def odd_file(seed: int) -> tuple[str, bytes]:
    """One of many kinds of files that strangers send: its name, and its bytes."""
    rng = random.Random(seed)
    face = drawn.face(seed % 8, rng.choice([1, 7, 64, 128, 300]))
    png, jpeg = encoded(face), encoded(face, "JPEG")
    cut = rng.randrange(1, len(jpeg))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "<script>alert(1)</script>" * 50, zip=True)
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(0, 20)
    exif[0x010E] = "x" * rng.randrange(1, 40_000)
    noise = bytearray(png)
    for _ in range(rng.randrange(1, 30)):
        noise[rng.randrange(8, len(noise))] = rng.randrange(256)
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("truncated.jpg", lambda: jpeg[:cut]),
        ("truncated.png", lambda: png[: rng.randrange(1, len(png))]),
        ("damaged.png", lambda: bytes(noise)),
        ("empty.png", lambda: b""),
        ("noise.png", lambda: rng.randbytes(rng.randrange(1, 5000))),
        ("text.jpg", lambda: b"not a picture at all\n"),
        ("bomb.png", lambda: encoded(Image.new("1", (20_000, 20_000)))),
        ("wide.png", lambda: encoded(Image.new("L", (30_000, 1)))),
        ("tall.gif", lambda: encoded(Image.new("P", (1, 5_000)), "GIF")),
        ("../../../../tmp/evil.png", lambda: png),
        ("C:\\windows\\evil.png", lambda: png),
        ("naïve 肖像 🎨.png", lambda: png),
        ("x" * 180 + ".png", lambda: png),
        ("no-ending", lambda: png),
        ("wrong-ending.jpg", lambda: png),
        ("page.html", lambda: b"<html><script>alert(1)</script></html>"),
        ("drawing.svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("comment.png", lambda: encoded(face, pnginfo=text)),
        ("exif.jpg", lambda: encoded(face, "JPEG", exif=exif)),
        ("alpha.png", lambda: encoded(face.convert("RGBA"))),
        ("grey-alpha.png", lambda: encoded(face.convert("LA"))),
        ("palette.png", lambda: encoded(face.quantize(rng.randrange(2, 256)))),
        ("cmyk.jpg", lambda: encoded(face.convert("CMYK"), "JPEG")),
        ("bits.png", lambda: encoded(face.convert("1"))),
        ("floats.tif", lambda: encoded(face.convert("F"), "TIFF")),
        (
            "deep.png",
            lambda: encoded(Image.fromarray(np.asarray(face.convert("L")).astype("u2") * 257)),
        ),
        ("face.webp", lambda: encoded(face, "WEBP")),
        ("face.bmp", lambda: encoded(face, "BMP")),
        ("face.ico", lambda: encoded(face.resize((32, 32)), "ICO")),
        ("moves.gif", lambda: encoded(face, "GIF", save_all=True, append_images=[face.rotate(9)])),
    ]
    name, make = kinds[seed % len(kinds)]
    return name, make()


def test_odd_files_are_a_sentence_or_the_right_picture(server: Server) -> None:
    model = FaceModel.from_pretrained("fdnn")
    readable = 0

    async def everything() -> None:
        nonlocal readable
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            for seed in range(UPLOADS):
                name, content = odd_file(seed)
                answer = await ask(http, content, name)
                if answer.picture is None:
                    check_refusal(name, answer.message)
                    continue
                readable += 1
                expected = np.asarray(model.recover(content), int)
                assert np.abs(np.asarray(answer.picture, int) - expected).max() <= 1, name

    asyncio.run(everything())
    assert UPLOADS / 3 < readable < UPLOADS
    assert httpx.get(server.url).status_code == 200
    left = list(server.cache.rglob("*.partial"))
    assert left == []
    assert not Path("/tmp/evil.png").exists()


def check_refusal(name: str, message: str) -> None:
    """One sentence, without a path, a trace or the name of an exception."""
    found = re.search(r'"error": "([^"]*)"', message)
    sentence = found[1] if found else message
    assert re.fullmatch(r"[A-Z][^\n/\\]*\.", sentence), f"{name}: {message}"
    assert "Traceback" not in message
    assert "Error" not in sentence


@pytest.mark.parametrize("seed", range(3))
def test_odd_files_are_the_same_every_time(seed: int) -> None:
    assert odd_file(seed) == odd_file(seed)
