"""The demo as a program sees it: the same pictures as in Python, plain errors, nothing shared."""

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from face_destyle import FaceModel, Stylizer, cli, images, metrics
from face_destyle.recovery import upright
from spaces_app import common, page, photo_and_back
from tests import demo_site, drawn
from tests.demo_site import assert_sentence, connect, difference, opened, same

Server = tuple[gr.Blocks, str]
OF_ONE_PICTURE = {
    "/recover",
    "/recover_turned",
    "/recover_with_attributes",
    "/recover_tiny",
    "/recover_tiny_faces",
    "/photo_and_back",
    "/compare",
    "/recover_whole",
}
ENDPOINTS = OF_ONE_PICTURE | {"/recover_files"}
UNFRAMED = (100, 0, 0, 0, 1)  # what `/recover` takes beside the picture: without all it refuses


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with demo_site.own_cache():
        yield demo_site.serve()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    return connect(server[1], tmp_path / "received")


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel.from_pretrained("fdnn")


def _png(path: Path) -> None:
    drawn.face(1, 200).crop((0, 0, 200, 150)).save(path)


def _turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.face(2, 300).crop((20, 0, 300, 180)).save(path, exif=exif, quality=90)


def _large_jpeg(path: Path) -> None:
    drawn.face(2, 4500).save(path, quality=50)


def _hidden_colour(path: Path) -> None:
    picture = drawn.face(3, 160).convert("RGBA")
    picture.paste((255, 0, 0, 0), (0, 0, 80, 160))
    picture.save(path)


def _palette_with_alpha(path: Path) -> None:
    drawn.face(3, 160).quantize(32).save(path, transparency=0)


def _cmyk(path: Path) -> None:
    drawn.face(4, 160).convert("CMYK").save(path)


def _deep_grey(path: Path) -> None:
    grey = np.asarray(drawn.face(5, 160).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def _animation(path: Path) -> None:
    drawn.face(6).save(path, save_all=True, append_images=[drawn.face(7)])


def _tiny(path: Path) -> None:
    Image.new("RGB", (1, 1), "orange").save(path)


READABLE: dict[str, Callable[[Path], None]] = {
    "wide.png": _png,
    "turned.jpg": _turned_jpeg,
    "large.jpeg": _large_jpeg,
    "alpha.png": _hidden_colour,
    "palette.png": _palette_with_alpha,
    "cmyk.jpg": _cmyk,
    "cmyk.tif": _cmyk,
    "grey16.png": _deep_grey,
    "moves.gif": _animation,
    "tiny.bmp": _tiny,
    "face.webp": _png,
}


@pytest.mark.parametrize("name", READABLE)
def test_recover_is_the_picture_of_the_package(
    name: str, client: Client, model: FaceModel, tmp_path: Path
) -> None:
    path = tmp_path / name
    READABLE[name](path)
    received = opened(client.predict(handle_file(path), api_name="/recover"))
    assert received.size == (128, 128)
    assert same(received, model.recover(path))


def test_recover_is_the_picture_of_the_command_line(client: Client, tmp_path: Path) -> None:
    path, written = tmp_path / "portrait.jpg", tmp_path / "photo.png"
    _turned_jpeg(path)
    assert cli.main(["recover", str(path), "-o", str(written)]) == 0
    received = opened(client.predict(handle_file(path), api_name="/recover"))
    assert same(received, opened(written))
    assert received.info == opened(written).info


def test_received_files_say_that_they_are_generated(client: Client, portrait_file: Path) -> None:
    received = opened(client.predict(handle_file(portrait_file), api_name="/recover"))
    assert received.info["Weights"] == "fdnn"
    assert received.info["Generated"].startswith("yes")
    _, portrait, face, _ = client.predict(
        handle_file(portrait_file), "style-udnie", api_name="/photo_and_back"
    )
    assert opened(portrait).info["Weights"] == "style-udnie"
    assert opened(face).info["Weights"] == "fdnn"


def test_frame_arguments_cut_the_square(client: Client, model: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    picture = drawn.face(1, 200)
    picture.save(path)
    arguments = {"size": 50, "across": -100, "down": 100, "tilt": 0}
    received = client.predict(picture=handle_file(path), **arguments, api_name="/recover")
    assert same(opened(received), model.recover(picture.crop((0, 100, 100, 200))))


@pytest.mark.parametrize("style", [name for _, name in photo_and_back.STYLES])
def test_photo_and_back(style: str, client: Client, model: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    _png(path)
    photo, portrait, face, table = client.predict(
        handle_file(path), style, api_name="/photo_and_back"
    )
    expected = images.centre_square(images.load_picture(path)).resize(
        (128, 128), Image.Resampling.LANCZOS
    )
    assert same(opened(photo), expected)
    painted = Stylizer.from_pretrained(style).stylize(path)
    assert same(opened(portrait), painted)
    assert same(opened(face), model.recover(painted))
    tensors = [images.to_tensor([p], 128) for p in (painted, model.recover(painted), expected)]
    for row, fake in zip(table.splitlines()[2:], tensors, strict=False):
        psnr, ssim = (float(number) for number in re.findall(r"-?\d+\.\d+", row))
        assert psnr == pytest.approx(metrics.psnr(fake, tensors[2]).item(), abs=0.051)
        assert ssim == pytest.approx(metrics.ssim(fake, tensors[2]).item(), abs=0.0051)


@pytest.mark.parametrize("kind", drawn.UNREADABLE_FILES)
@pytest.mark.parametrize("endpoint", ["/recover", "/photo_and_back"])
def test_bad_files_are_a_sentence(kind: str, endpoint: str, client: Client, tmp_path: Path) -> None:
    path = drawn.unreadable(kind, tmp_path)
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(path), api_name=endpoint)
    assert_sentence(str(caught.value))
    assert drawn.UNREADABLE[kind][2] in str(caught.value)


@pytest.mark.parametrize("endpoint", sorted(OF_ONE_PICTURE - {"/recover", "/photo_and_back"}))
def test_a_bad_file_is_a_sentence_everywhere(endpoint: str, client: Client, tmp_path: Path) -> None:
    path = drawn.unreadable("text", tmp_path)
    with pytest.raises(AppError, match=r"^The file is not a picture that can be read: give .*\.$"):
        client.predict(handle_file(path), api_name=endpoint)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size": 0}, "Size"),
        ({"across": 101}, "Across"),
        ({"down": -1e9}, "Down"),
        ({"tilt": "left"}, "Tilt"),
        ({"size": None}, "Size"),
        ({"strength": 1.1}, "Strength"),
        ({"strength": "all"}, "Strength"),
    ],
)
def test_bad_frames_are_a_sentence(
    arguments: dict[str, Any], word: str, client: Client, portrait_file: Path
) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(portrait_file), **arguments, api_name="/recover")
    assert_sentence(str(caught.value))
    assert str(caught.value).startswith(f"{word} must be a number from")


def test_no_picture_and_no_style_are_a_sentence(client: Client, portrait_file: Path) -> None:
    with pytest.raises(AppError, match="Choose a picture first"):
        client.predict(None, api_name="/recover")
    with pytest.raises(AppError, match=r"Style must be one of style-the-scream, .*\.$"):
        client.predict(handle_file(portrait_file), "fdnn", api_name="/photo_and_back")
    with pytest.raises(AppError, match=r"Weights must be one of fdnn, .*\.$"):
        client.predict(
            handle_file(portrait_file), "style-udnie", weights="udnie", api_name="/photo_and_back"
        )


def test_a_file_of_the_server_is_refused(server: Server, portrait_file: Path) -> None:
    call = f"{server[1]}gradio_api/call/recover"
    stolen = {"path": str(portrait_file), "meta": {"_type": "gradio.FileData"}}
    asked = httpx.post(call, json={"data": [stolen, *UNFRAMED]}, timeout=60).json()
    stream = httpx.get(f"{call}/{asked['event_id']}", timeout=60).text
    assert "event: error" in stream
    assert "event: complete" not in stream
    assert portrait_file.name not in stream


def test_strength_mixes_portrait_and_face(
    client: Client, model: FaceModel, portrait_file: Path, portrait: Image.Image
) -> None:
    def mixed(strength: float) -> Image.Image:
        path = handle_file(portrait_file)
        return opened(client.predict(path, strength=strength, api_name="/recover"))

    face = model.recover(portrait_file)
    assert same(mixed(0), portrait)
    assert same(mixed(1), face)
    assert same(mixed(0.25), Image.blend(portrait, face, 0.25))


def test_a_network_that_turns_is_measured_in_its_own_frame(
    client: Client, portrait_file: Path, portrait: Image.Image
) -> None:
    received = client.predict(
        handle_file(portrait_file), "style-udnie", weights="fdnn-ifrp", api_name="/photo_and_back"
    )
    shown, table = [opened(path) for path in received[:3]], received[3]
    painted = Stylizer.from_pretrained("style-udnie").stylize(portrait)
    seen = images.to_tensor([portrait, painted], 128)
    network = FaceModel.from_pretrained("fdnn-ifrp")
    with torch.inference_mode():
        alignment = network(seen[1:]).alignment
    (photo,), (turned,) = (upright(picture[None], alignment) for picture in seen)
    expected = [photo, turned, network.recover(painted)]
    assert all(same(*pair) for pair in zip(shown, expected, strict=True))
    assert not same(photo, portrait)
    assert shown[2].info["Weights"] == "fdnn-ifrp"
    real, fake = (images.to_tensor([picture], 128) for picture in (photo, expected[2]))
    assert f"**{metrics.psnr(fake, real).item():.1f}**" in table
    assert "| compared with the photo, turned upright |" in table
    assert "| portrait, turned upright |" in table


def test_a_picture_that_was_deleted_is_a_sentence(server: Server, portrait_file: Path) -> None:
    with portrait_file.open("rb") as file:
        uploaded = httpx.post(f"{server[1]}gradio_api/upload", files={"files": file}, timeout=60)
    (path,) = uploaded.json()
    Path(path).unlink()
    call = f"{server[1]}gradio_api/call/recover"
    picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked = httpx.post(call, json={"data": [picture, *UNFRAMED]}, timeout=60).json()
    stream = httpx.get(f"{call}/{asked['event_id']}", timeout=60).text
    assert "event: error" in stream
    assert "Your picture was deleted meanwhile: choose it again." in stream


def test_trouble_with_the_weights_does_not_name_folders() -> None:
    load = common.speaks_plainly(lambda: FaceModel.from_pretrained("/secret/folder"))
    with pytest.raises(gr.Error) as caught:
        load()
    assert_sentence(caught.value.message)


def test_large_files_are_refused(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(b"\0" * 10_500_000)
    client = connect(server[1], tmp_path / "received")
    with pytest.raises(Exception, match=r"(?i)413|size|large"):
        client.predict(handle_file(path), api_name="/recover")


def test_visitors_get_their_own_pictures(server: Server, model: FaceModel, tmp_path: Path) -> None:
    def visit(seed: int) -> list[str]:
        folder = tmp_path / f"visitor-{seed}"
        folder.mkdir()
        path = folder / "portrait.png"  # the same name for everybody
        drawn.face(seed).save(path)
        client = connect(server[1], folder / "received")
        return [client.predict(handle_file(path), api_name="/recover") for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        received = list(pool.map(visit, [0, 1]))
    expected = [model.recover(drawn.face(seed)) for seed in (0, 1)]
    assert not same(*expected)
    for paths, picture in zip(received, expected, strict=True):
        # Those that go through the network together may round the last bit elsewhere.
        assert all(difference(opened(path), picture) <= 1 for path in paths)


def test_these_endpoints_are_public(client: Client) -> None:
    described = client.view_api(return_format="dict")
    assert set(described["named_endpoints"]) == ENDPOINTS
    assert not described["unnamed_endpoints"]


def test_networks_share_one_place_in_the_queue(server: Server) -> None:
    app, _ = server
    limits: dict[str, set[int]] = {}
    for fn in app.fns.values():
        if fn.concurrency_id in ("net", "long", "look"):
            limits.setdefault(fn.concurrency_id, set()).add(fn.concurrency_limit)
    assert limits == {"net": {16}, "long": {1}, "look": {2}}
    finders = [fn for fn in app.fns.values() if fn.name == "_find"]
    assert [fn.concurrency_id for fn in finders] == ["look"]  # not behind other visitors' files
    places = {f"/{fn.api_name}": fn.concurrency_id for fn in app.fns.values()}
    long = {"/recover_whole", "/recover_files", "/recover_tiny_faces"}
    assert {name: places[name] for name in ENDPOINTS} == {
        name: "long" if name in long else "net" for name in ENDPOINTS
    }
    assert app._queue.max_size == 32


def test_nobody_goes_past_the_queue(server: Server) -> None:
    answer = httpx.post(f"{server[1]}gradio_api/run/recover", json={"data": [None]})
    assert answer.status_code == 404
    assert "join the queue" in answer.text


def test_the_api_says_what_it_takes(client: Client) -> None:
    described = client.view_api(return_format="dict")["named_endpoints"]
    parameters = {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in described.items()
    }
    frame = ["size", "across", "down", "tilt"]
    assert parameters["/recover"] == ["picture", *frame, "strength"]
    assert parameters["/photo_and_back"] == ["picture", "style", *frame, "weights"]
    assert parameters["/recover_with_attributes"] == ["picture", "attributes", *frame, "strength"]
    choices = ["weights", "face", "match_colour", "strength"]
    assert parameters["/recover_whole"] == ["picture", *choices]
    assert parameters["/recover_files"] == ["files", "weights", "way"]
    for endpoint in described.values():
        assert all(parameter["type"] for parameter in endpoint["parameters"])
        assert not endpoint["parameters"][0]["parameter_has_default"]
        assert all(later["parameter_has_default"] for later in endpoint["parameters"][2:])


def test_pictures_are_deleted(
    portrait_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "gradio"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    monkeypatch.setattr(page, "KEPT_SECONDS", 8)
    monkeypatch.setattr(page, "SWEEP_SECONDS", 0.5)
    app = page.build_app()
    _, url, _ = page.launch(app, prevent_thread_lock=True, quiet=True)
    try:
        examples = _found(cache)
        client = connect(url, tmp_path / "received")
        client.predict(handle_file(portrait_file), api_name="/recover")
        client.predict(handle_file(portrait_file), "style-udnie", api_name="/photo_and_back")
        assert sum(path.suffix == ".png" for path in _found(cache) - examples) >= 5
        deadline = time.monotonic() + 30
        while _found(cache) - examples and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _found(cache) == examples  # no folder is left either
    finally:
        app.close()


def _found(folder: Path) -> set[Path]:
    """All files and folders in it; unlike Path.rglob it bears that they vanish meanwhile."""
    return {
        Path(place, name)
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }
