"""The wheel in a clean environment, without the extras, without the network."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_destyle import FaceModel

ROOT = Path(__file__).parents[2]
LARGEST = 60_000_000  # bytes: the weights, which are not compressed further; PyPI takes 100 MB
HEAVY = ("gradio", "datasets", "accelerate", "matplotlib", "torchvision", "torchmetrics", "onnx")


class Installed:
    """An environment that holds the wheel and what it depends on."""

    def __init__(self, folder: Path, home: Path, wheel: Path):
        self.wheel = wheel
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.home = home

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment where nothing outside the machine is reachable."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "HF_", "GRADIO")) and not key.lower().endswith("proxy")
        }
        nowhere = "http://127.0.0.1:9"
        environment |= {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "HF_HOME": str(self.home)}
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
        )

    def python(self, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", code, cwd=cwd)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    environment = Installed(folder / "environment", folder / "home", wheel)
    install = [str(environment.bin / "python"), "-m", "pip", "install", "--quiet"]
    install += ["-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(install, cwd=folder, check=True)
    return environment


def test_no_extra_is_installed(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    names = {line.split("==")[0].lower() for line in done.stdout.splitlines()}
    assert "face-destyle" in {name.replace("_", "-") for name in names}
    assert not names & set(HEAVY)


def test_size_of_the_wheel(installed: Installed) -> None:
    assert installed.wheel.stat().st_size < LARGEST


def test_import_takes_as_long_as_that_of_torch(installed: Installed, tmp_path: Path) -> None:
    """Both in one process, which the load of the machine slows alike; and an extra with neither."""
    code = """
import sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
from face_destyle import FaceModel
print((time.perf_counter() - middle) / (middle - start))
print(*sys.modules)
"""
    ratios = []
    for _ in range(3):
        done = installed.python(code, tmp_path)
        assert done.returncode == 0, done.stderr
        ratio, modules = done.stdout.splitlines()
        ratios.append(float(ratio))
        assert not {name.partition(".")[0] for name in modules.split()} & set(HEAVY)
    assert min(ratios) < 1


def test_import_is_that_of_the_wheel(installed: Installed, tmp_path: Path) -> None:
    done = installed.python("import face_destyle; print(face_destyle.__file__)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "face_destyle")
    assert "site-packages" in done.stdout


def test_list_names_the_weights(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("face-destyle", "list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("fdnn", "style-the-scream", "style-starry-night", "style-udnie"):
        assert name in done.stdout


def test_command_line_and_python_recover_the_same_face(
    installed: Installed, tmp_path: Path, portrait_file: Path
) -> None:
    done = installed.run(
        "face-destyle", "recover", str(portrait_file), "-o", "photo.png", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    code = (
        "from face_destyle import FaceModel; "
        f"FaceModel.from_pretrained('fdnn').recover({str(portrait_file)!r}).save('python.png')"
    )
    done = installed.python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    shell, python = (np.asarray(Image.open(tmp_path / n)) for n in ("photo.png", "python.png"))
    assert shell.shape == (128, 128, 3)
    assert np.array_equal(shell, python)
    checkout = np.asarray(FaceModel.from_pretrained("fdnn").recover(portrait_file))
    # Another number of threads may round the last bit elsewhere.
    assert np.abs(checkout.astype(int) - shell.astype(int)).max() <= 1


def test_save_writes_a_card_without_the_network(installed: Installed, tmp_path: Path) -> None:
    code = (
        "from face_destyle import FaceModel; FaceModel.from_pretrained('fdnn').save_pretrained('x')"
    )
    done = installed.python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_unreachable_hub_is_one_line(
    installed: Installed, tmp_path: Path, portrait_file: Path
) -> None:
    done = installed.run(
        "face-destyle",
        "recover",
        str(portrait_file),
        "-o",
        "x.png",
        "--model",
        "org/name",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "x.png").exists()


def test_missing_extra_is_named_in_one_line(installed: Installed, tmp_path: Path) -> None:
    code = """
import torch
from face_destyle import UserError
from face_destyle.metrics import psnr
try:
    psnr(torch.zeros(1, 3, 128, 128), torch.ones(1, 3, 128, 128))
except UserError as error:
    print(error)
"""
    done = installed.python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert "face-destyle[eval]" in line
