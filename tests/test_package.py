"""The form of the package: what the wheel holds, what an import brings, who imports whom."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("face_destyle", "train", "spaces_app", "benchmarks")
LIGHT = {"torch", "numpy", "PIL", "huggingface_hub", "safetensors"}
HEAVY = (
    "gradio",
    "datasets",
    "accelerate",
    "matplotlib",
    "torchvision",
    "torchmetrics",
    "onnx",
    "cv2",
)
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python_files(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return files


def imported(path: Path, *, inside_functions: bool) -> set[str]:
    """The top-level names that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if inside_functions else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_wheel_carries_types_weights_and_cards(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "face_destyle/py.typed" in names
    assert "face_destyle/models/fdnn.py" in names
    for card in (path for path in (ROOT / "cards").iterdir() if path.is_dir()):
        for file in ("README.md", "config.json", "model.safetensors"):
            assert f"face_destyle/cards/{card.name}/{file}" in names
    for file in ("config.json", "model.safetensors"):
        assert f"face_destyle/cards/fdnn/discriminator/{file}" in names


def test_wheel_carries_every_published_weight_unchanged(wheel: zipfile.ZipFile) -> None:
    from face_destyle.published import WEIGHTS

    for name in WEIGHTS:
        packed = wheel.read(f"face_destyle/cards/{name}/model.safetensors")
        assert packed == (ROOT / "cards" / name / "model.safetensors").read_bytes()


def test_wheel_carries_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"face_destyle"}
    assert not [name for name in wheel.namelist() if name.endswith((".pyc", ".partial"))]


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    from face_destyle import __version__

    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "face-destyle"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "app",
        "train",
        "eval",
        "faces",
        "onnx",
        "dev",
    }
    assert b"face-destyle = face_destyle.cli:main" in wheel.read(f"{info}/entry_points.txt")
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_import_brings_none_of_the_extras() -> None:
    code = f"import sys, face_destyle; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("path", python_files("face_destyle"), ids=lambda p: p.name)
def test_package_needs_only_its_dependencies_at_import(path: Path) -> None:
    allowed = LIGHT | set(sys.stdlib_module_names) | {"face_destyle"}
    assert imported(path, inside_functions=False) <= allowed


def test_dependencies_are_the_light_ones() -> None:
    names = {re.split(r"[^\w-]", text)[0] for text in project()["dependencies"]}
    assert names == {"torch", "numpy", "pillow", "huggingface_hub", "safetensors"}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("face_destyle", {"train", "spaces_app", "benchmarks", "app", "tests"}),
        ("train", {"spaces_app", "benchmarks", "app", "tests", "gradio"}),
        ("spaces_app", {"train", "benchmarks", "app", "tests", "datasets", "accelerate"}),
        ("benchmarks", {"spaces_app", "app", "tests", "gradio"}),
    ],
)
def test_imports_run_one_way(package: str, forbidden: set[str]) -> None:
    for path in python_files(package):
        found = imported(path, inside_functions=True) & forbidden
        assert not found, f"{path.relative_to(ROOT)} imports {', '.join(sorted(found))}"


def test_nothing_imports_torchvision() -> None:
    for path in python_files(*PACKAGES, "tests"):
        assert "torchvision" not in imported(path, inside_functions=True), path
    for name in ("pyproject.toml", "constraints.txt"):
        assert "torchvision" not in (ROOT / name).read_text()


def test_constraints_pin_each_requirement_once() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = [normal(line.split("==")[0]) for line in lines]
    assert len(pinned) == len(set(pinned))
    extras = project()["optional-dependencies"].values()
    wanted = [*project()["dependencies"], *(text for extra in extras for text in extra)]
    for text in wanted:
        assert normal(re.split(r"[^\w.-]", text)[0]) in pinned, f"{text} is not in constraints.txt"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_files_stay_short(folder: str) -> None:
    for path in python_files(folder):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines < 450, f"{path.relative_to(ROOT)} has {lines} lines"


def test_files_stay_small() -> None:
    folders = ("cards", "docs", "tests", *PACKAGES)
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    large = [str(path.relative_to(ROOT)) for path in files if path.stat().st_size > 9 * MEGABYTE]
    assert not large
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert weights
    assert sum(path.stat().st_size for path in weights) < 60 * MEGABYTE


def test_every_published_weight_has_a_card_that_says_its_licence() -> None:
    from face_destyle.published import WEIGHTS

    for row in WEIGHTS.values():
        card = (ROOT / "cards" / row.name / "README.md").read_text(encoding="utf-8")
        assert "non-commercial" in card, row.name
