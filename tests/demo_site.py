"""The demo with every tab: networks that are not published yet are stood in for by random ones."""

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client
from PIL import Image, ImageChops
from torch import nn

from face_destyle import AFRP, IFRP, TANN, AttributeClassifier, HubModel
from face_destyle.models.similarity import SimilarityTransformer
from face_destyle.published import WEIGHTS, Published
from spaces_app import common, page

NETWORKS: dict[str, type[HubModel]] = {
    common.IFRP: IFRP,
    common.AFRP: AFRP,
    common.TANN: TANN,
    common.CLASSIFIER: AttributeClassifier,
}


@dataclass(frozen=True)
class StandIn(Published):
    """A row of the table whose files lie elsewhere."""

    where: Path = Path()

    def folder(self) -> Path:
        return self.where


@functools.cache
def _folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"face-destyle-{prefix}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def stand_in(name: str) -> Published:
    """A row of the table for a random network that aligns, and obeys attributes, somehow."""
    torch.manual_seed(len(name))
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, SimilarityTransformer):
            with torch.no_grad():
                module.last.bias.copy_(torch.tensor([0.15, 0.95, 0.05, -0.04]))
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
    folder = _folder("weights") / name
    network.half().save_pretrained(folder)
    fields = {field: getattr(WEIGHTS["fdnn"], field) for field in ("tag", "licence", "paper")}
    return StandIn(
        name=name,
        repo_id=f"face-destyle/{name}",
        sha256="",
        data="none: random numbers",
        where=folder,
        **fields,
    )


@contextmanager
def all_published() -> Iterator[None]:
    """A block in which every network of the page is in the table of published weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(_folder("gradio")))
        for name in NETWORKS:
            if name not in WEIGHTS:
                patch.setitem(WEIGHTS, name, stand_in(name))
        yield


@functools.cache
def serve() -> tuple[gr.Blocks, str]:
    """One server for all tests of a process, started in `all_published`: page and address."""
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
