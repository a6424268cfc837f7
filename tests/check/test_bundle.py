"""The folder of the Space, started as a Space would: in an environment of its own, offline."""

import os
import re
import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from face_destyle import FaceModel
from spaces_app.bundle import bundle

ROOT = Path(__file__).parents[2]
STARTS_WITHIN = 120  # seconds


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "out"
    bundle(out)
    return out


@pytest.fixture(scope="module")
def python(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with what a Space installs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    version = re.search(r"^sdk_version: (.+)$", (space / "README.md").read_text(), re.MULTILINE)
    assert version
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    install += ["-r", str(space / "requirements.txt"), f"gradio=={version[1]}"]
    subprocess.run(install, cwd=space, check=True)
    return python


@pytest.fixture(scope="module")
def address(space: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("run"), free_port()
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "GRADIO")) and not key.lower().endswith("proxy")
    }
    environment |= {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "HF_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    log = folder / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(
            [str(python), "app.py"], cwd=space, env=environment, stdout=file, stderr=file
        )
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while "Running on" not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(30)


def test_the_package_is_that_of_the_folder(space: Path, python: Path) -> None:
    code = "import face_destyle; print(face_destyle.__file__)"
    done = subprocess.run(
        [str(python), "-c", code], cwd=space, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(space)


def test_the_space_recovers_a_face(address: str, portrait_file: Path, tmp_path: Path) -> None:
    client = Client(address, verbose=False, download_files=str(tmp_path / "received"))
    received = client.predict(handle_file(portrait_file), api_name="/recover")
    expected = FaceModel.from_pretrained("fdnn").recover(portrait_file)
    with Image.open(received) as picture:
        assert picture.info["Weights"] == "fdnn"
        # Another number of threads may round the last bit elsewhere.
        difference = np.abs(np.asarray(picture, int) - np.asarray(expected, int))
    assert difference.max() <= 1


def test_the_space_paints_and_finds_faces(
    address: str, space: Path, portrait_file: Path, tmp_path: Path
) -> None:
    client = Client(address, verbose=False, download_files=str(tmp_path / "received"))
    scores = client.predict(handle_file(portrait_file), "style-udnie", api_name="/photo_and_back")[
        -1
    ]
    assert "PSNR" in scores
    example = space / "spaces_app" / "examples" / "whole-two-portraits.png"
    _, faces = client.predict(handle_file(example), api_name="/recover_whole")
    assert len(faces) == 2
