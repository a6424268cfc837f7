"""What holds for every test: no network, no telemetry, one thread a worker."""

import os

# Both libraries read these once, when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests import drawn

# Workers that share the cores would wait for each other's threads.
torch.set_num_threads(1)


@pytest.fixture
def portrait() -> Image.Image:
    """A drawn 128 x 128 face."""
    return drawn.face()


@pytest.fixture
def portrait_file(tmp_path: Path, portrait: Image.Image) -> Path:
    """The drawn face as a PNG file."""
    path = tmp_path / "portrait.png"
    portrait.save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a demo with weights for every study."""
    from tests import demo_site  # gradio, which only the demo's tests need

    with demo_site.own_cache():
        yield demo_site.serve()[1]


@pytest.fixture
def client(url: str, tmp_path: Path) -> Any:
    """A program at that demo."""
    from tests import demo_site

    return demo_site.connect(url, tmp_path / "received")
