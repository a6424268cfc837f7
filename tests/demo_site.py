"""One server of the demo for the tests of a process, and what they do with its answers."""

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client
from PIL import Image, ImageChops

from spaces_app import common, page

FURTHER = (common.IFRP, common.AFRP, common.TANN, common.CLASSIFIER)  # what FDNN does without


@functools.cache
def _folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"face-destyle-{prefix}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def own_cache() -> Iterator[None]:
    """A block in which the page keeps its files in a folder of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(_folder("gradio")))
        yield


@functools.cache
def serve() -> tuple[gr.Blocks, str]:
    """One server for all tests of a process, started in `own_cache`: page and address."""
    app = page.build_app()
    _, url, _ = page.launch(app, prevent_thread_lock=True, quiet=True)
    atexit.register(app.close)
    return app, url


def connect(url: str, folder: Path) -> Client:
    # A machine that does other work at the same time answers late.
    patience = {"timeout": 60}
    return Client(url, verbose=False, download_files=str(folder), httpx_kwargs=patience)


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest, in levels of 255."""
    assert one.size == other.size
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def opened(path: str | Path) -> Image.Image:
    """A PNG that came from the server."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        picture.load()
    return picture


def assert_sentence(message: str) -> None:
    """One sentence for people: no path, no trace, no name of an exception."""
    assert re.fullmatch(r"[A-Z][^\n/\\]*\.", message), message
    assert "Error" not in message
