"""The demo as a program sees it: the same pictures as in Python, plain errors, nothing shared."""

import importlib.metadata
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageChops

from app import launch as app_launch
from face_destyle import FaceModel, PictureError, Stylizer, cli, images, metrics
from spaces_app import common, framing, make_examples, page, photo_and_back
from tests import drawn

Server = tuple[gr.Blocks, str]
ENDPOINTS = {"/recover", "/photo_and_back"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        app = page.build_app()
        _, url, _ = page.launch(app, prevent_thread_lock=True, quiet=True)
        yield app, url
        app.close()


def connect(url: str, folder: Path) -> Client:
    return Client(url, verbose=False, download_files=str(folder))


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    return connect(server[1], tmp_path / "received")


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel.from_pretrained("fdnn")


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        picture.load()
    return picture


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


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "too large"])
@pytest.mark.parametrize("endpoint", sorted(ENDPOINTS))
def test_bad_files_are_a_sentence(kind: str, endpoint: str, client: Client, tmp_path: Path) -> None:
    path = drawn.unreadable(kind, tmp_path)
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(path), api_name=endpoint)
    assert_sentence(str(caught.value))
    assert drawn.UNREADABLE[kind][2] in str(caught.value)


def assert_sentence(message: str) -> None:
    assert re.fullmatch(r"[A-Z][^\n/\\]*\.", message), message
    assert "Error" not in message


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size": 0}, "Size"),
        ({"across": 101}, "Across"),
        ({"down": -1e9}, "Down"),
        ({"tilt": "left"}, "Tilt"),
        ({"size": None}, "Size"),
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
        assert all(same(opened(path), picture) for path in paths)


def test_two_endpoints_are_public(client: Client) -> None:
    described = client.view_api(return_format="dict")
    assert set(described["named_endpoints"]) == ENDPOINTS
    assert not described["unnamed_endpoints"]


def test_networks_share_one_place_in_the_queue(server: Server) -> None:
    app, _ = server
    running = [fn for fn in app.fns.values() if fn.concurrency_id == "net"]
    assert len(running) == 3  # the button, and the two endpoints
    assert {fn.concurrency_limit for fn in running} == {1}
    assert app._queue.max_size == 32


def test_nothing_is_recorded(server: Server) -> None:
    app, _ = server
    assert app.analytics_enabled is False
    assert app.show_error is False
    assert app.config["run_history"] is False
    assert app.delete_cache == (3600, 3600)


def test_building_the_page_loads_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(FaceModel, "from_pretrained", refuse)
    monkeypatch.setattr(Stylizer, "from_pretrained", refuse)
    common.recoverer.cache_clear()
    assert isinstance(page.build_app(), gr.Blocks)


def test_app_launches_the_page() -> None:
    assert app_launch is page.launch


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


def test_view_marks_the_eyes_of_an_aligned_face() -> None:
    shown = framing.view(drawn.face(0, 256))
    assert shown.size == (256, 256)
    for x, y in framing.FRAME_EYES:
        assert shown.getpixel((round(2 * x) - 13, round(2 * y))) == (255, 255, 255)


def test_examples_are_there_and_small() -> None:
    names = {path.stem for path in framing.EXAMPLES.glob("*.png")}
    assert {f"photo-{name}" for name in ("astronaut", *make_examples.LOOKS)} <= names
    assert len([name for name in names if name.startswith("portrait-")]) >= 4
    for path in framing.EXAMPLES.glob("*.png"):
        assert path.stat().st_size < 60_000
        assert max(images.load_picture(path).size) <= 256


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


def test_the_space_asks_for_this_gradio() -> None:
    readme = (Path(page.__file__).parent / "README.md").read_text()
    front = dict(re.findall(r"^(\w+): (.+)$", readme.split("---")[1], re.MULTILINE))
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == importlib.metadata.version("gradio")
    assert (Path(page.__file__).parents[1] / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60


def test_pictures_are_deleted(
    portrait_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "gradio"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    monkeypatch.setattr(page, "KEPT_SECONDS", 1)
    app = page.build_app()
    _, url, _ = page.launch(app, prevent_thread_lock=True, quiet=True)
    try:
        examples = set(cache.rglob("*.png"))
        client = connect(url, tmp_path / "received")
        client.predict(handle_file(portrait_file), api_name="/recover")
        client.predict(handle_file(portrait_file), "style-udnie", api_name="/photo_and_back")
        assert len(set(cache.rglob("*.png")) - examples) >= 5
        deadline = time.monotonic() + 15
        while set(cache.rglob("*.png")) - examples and time.monotonic() < deadline:
            time.sleep(0.2)
        assert set(cache.rglob("*.png")) == examples
    finally:
        app.close()
