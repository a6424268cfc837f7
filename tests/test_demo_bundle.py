"""The folder of the Space: what is in it, and that it is written complete or not at all."""

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from face_destyle.published import WEIGHTS
from spaces_app import bundle

ROOT = Path(__file__).parents[1]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
# The names of packages where they are imported by another one.
IMPORTED_AS = {"cv2": "opencv-python-headless", "PIL": "pillow"}
# The other extras of the package, and what only `make_examples` needs.
NOT_OF_THE_DEMO = {"onnx", "onnxruntime", "onnxscript", "skimage"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "out"
    assert bundle.main([str(out)]) == 0
    return out


def test_the_space_has_what_it_starts_with(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {
        "README.md",
        "requirements.txt",
        "app.py",
        "LICENSE",
        "face_destyle",
        "spaces_app",
        "cards",
    }
    assert {path.name for path in (written / "cards").iterdir()} == set(WEIGHTS)
    assert (written / "spaces_app" / "page.css").is_file()
    assert list((written / "spaces_app" / "examples").glob("*.png"))
    assert not list(written.rglob("__pycache__"))
    assert not list(written.rglob("discriminator"))
    # The page reads from it which styles the weights have seen.
    assert (written / "cards" / "fdnn" / "metrics.json").is_file()
    assert sum(path.stat().st_size for path in written.rglob("*") if path.is_file()) < 100e6


def test_the_source_is_that_of_the_checkout(written: Path) -> None:
    for folder in bundle.CODE:
        for path in (ROOT / folder).rglob("*.py"):
            copy = written / path.relative_to(ROOT)
            assert copy.read_bytes() == path.read_bytes()


def test_the_readme_names_the_weights(written: Path) -> None:
    front = (written / "README.md").read_text().split("---")[1]
    models = re.search(r"models:\n((?:  - .*\n)+)", front)
    assert models
    assert models[1].split()[1::2] == [row.repo_id for row in WEIGHTS.values()]
    assert "sdk: gradio\n" in front
    assert "\ntags:\n" in front


def test_new_weights_come_into_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(WEIGHTS["fdnn"], name="fdnn-new", repo_id="face-destyle/fdnn-new")
    monkeypatch.setitem(WEIGHTS, "fdnn-new", new)
    text = bundle.with_models((ROOT / "spaces_app" / "README.md").read_text())
    assert text.count("  - face-destyle/fdnn-new\n") == 1
    assert text.count("models:") == 1


def test_the_requirements_are_the_tested_versions(written: Path) -> None:
    lines = (written / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if "==" in line]
    assert len(pinned) >= 6
    for line in pinned:
        assert line in CONSTRAINTS.splitlines(), line
    assert not any(line.startswith("gradio") for line in lines)  # the Space brings it


def test_the_requirements_are_all_that_is_imported(written: Path) -> None:
    imported = set()
    for path in written.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    required = set(re.findall(r"^([\w-]+)==", (written / "requirements.txt").read_text(), re.M))
    own = {"face_destyle", "spaces_app"}
    names = {IMPORTED_AS.get(name, name) for name in imported - own - NOT_OF_THE_DEMO}
    of_the_space = {"gradio", "gradio_client", "fastapi"}  # gradio is made with fastapi
    assert {
        name for name in names - of_the_space if name not in sys.stdlib_module_names
    } <= required


def test_a_folder_that_exists_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    assert bundle.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("exists: give the name of a new folder\n")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_nothing_half_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "FILES", ("app.py", "absent.txt"))
    assert bundle.main([str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "absent.txt" in line
    assert list(tmp_path.iterdir()) == []
