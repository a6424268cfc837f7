"""The command line as people use it, in the process and as a process of its own."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from face_destyle import FDNN, FaceModel, FDNNConfig, __version__, published
from face_destyle.cli import main
from tests import drawn

ROOT = Path(__file__).parents[1]
MEGABYTE = 1_000_000
Failure = Callable[[], str]


def process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "face_destyle", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def one_line(stderr: str) -> str:
    """The one line that stderr is."""
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "small"
    FDNN(
        FDNNConfig(
            encoder_widths=(8, 8, 8, 8),
            code_rank=4,
            decoder_widths=(8, 8, 8),
            tail_width=8,
        )
    ).save_pretrained(folder)
    return folder


class TestRecover:
    def test_is_what_python_gives(
        self, here: Path, portrait_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["recover", str(portrait_file), "-o", "photo.png"]) == 0
        captured = capsys.readouterr()
        assert captured.out == "photo.png\n"
        assert captured.err == ""
        with Image.open("photo.png") as opened:
            assert opened.text["Weights"] == "fdnn"
            photo = np.asarray(opened)
        expected = FaceModel.from_pretrained("fdnn").recover(portrait_file)
        assert np.array_equal(photo, np.asarray(expected))

    def test_default_output_lies_in_the_current_folder(
        self, here: Path, portrait_file: Path
    ) -> None:
        assert main(["recover", str(portrait_file)]) == 0
        assert [path.name for path in here.iterdir()] == ["portrait-recovered.png"]
        assert [path.name for path in portrait_file.parent.iterdir() if path.is_file()] == [
            "portrait.png"
        ]

    def test_model_folder(self, here: Path, portrait_file: Path, small_weights: Path) -> None:
        assert main(["recover", str(portrait_file), "--model", str(small_weights)]) == 0
        with Image.open("portrait-recovered.png") as opened:
            assert opened.size == (128, 128)
            assert opened.text["Weights"] == "small"  # and not where on the disk it lies

    def test_overwrite(
        self, here: Path, portrait_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = here / "photo.png"
        output.write_text("mine")
        assert main(["recover", str(portrait_file), "-o", str(output)]) == 2
        assert "photo.png exists" in one_line(capsys.readouterr().err)
        assert output.read_text() == "mine"
        assert main(["recover", str(portrait_file), "-o", str(output), "--overwrite"]) == 0
        with Image.open(output) as opened:
            assert opened.size == (128, 128)

    @pytest.mark.parametrize("kind", drawn.UNREADABLE)
    def test_unreadable_input(
        self, kind: str, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = drawn.unreadable(kind, tmp_path)
        assert main(["recover", str(path), "-o", "photo.png"]) == 2
        captured = capsys.readouterr()
        line = one_line(captured.err)
        assert drawn.UNREADABLE[kind][2] in line
        assert str(path) in line
        assert captured.out == ""
        assert list(here.iterdir()) == []

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("photo.jpg", "must end in .png"),
            ("nowhere/photo.png", "cannot be written"),
            ("folder.png", "is a folder"),
            ("file/photo.png", "cannot be written"),
            ("x" * 300 + ".png", "cannot be written"),
        ],
    )
    def test_impossible_output(
        self,
        output: str,
        message: str,
        here: Path,
        portrait_file: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (here / "folder.png").mkdir()
        (here / "file").touch()
        assert main(["recover", str(portrait_file), "-o", output]) == 2
        assert message in one_line(capsys.readouterr().err)
        assert sorted(path.name for path in here.rglob("*")) == ["file", "folder.png"]

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("fdn", "use a published name (fdnn"),
            ("org/absent", "not in the local cache"),
            ("a b/c?d", "cannot get config.json"),
            ("style-udnie", "load it with Stylizer"),
            ("", "no config.json"),
            ("n" * 5000, "no weights named"),
            (".", "no config.json"),
        ],
    )
    def test_impossible_model(
        self,
        model: str,
        message: str,
        here: Path,
        portrait_file: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(["recover", str(portrait_file), "--model", model]) == 2
        assert message in one_line(capsys.readouterr().err)
        assert list(here.iterdir()) == []

    def test_the_output_is_looked_at_before_the_work(
        self, here: Path, portrait_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["recover", str(portrait_file), "-o", "photo.jpg", "--model", "fdn"]) == 2
        assert "must end in .png" in one_line(capsys.readouterr().err)

    @pytest.mark.parametrize("name", ["a\nb.png", "ü –.png"])
    def test_a_strange_name_stays_on_one_line(
        self, name: str, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["recover", name]) == 2
        assert "does not exist" in one_line(capsys.readouterr().err)

    @pytest.mark.parametrize(
        "make", [lambda: drawn.face().convert("CMYK"), lambda: Image.new("I;16", (9, 300))]
    )
    def test_unusual_pictures_are_recovered(
        self, make: Callable[[], Image.Image], here: Path, tmp_path: Path, small_weights: Path
    ) -> None:
        path = tmp_path / "unusual.tiff"
        make().save(path)
        assert main(["recover", str(path), "--model", str(small_weights)]) == 0
        with Image.open("unusual-recovered.png") as opened:
            assert opened.size == (128, 128)


class TestDamagedWeights:
    """Each names what is wrong, in one line."""

    @pytest.fixture
    def weights(self, small_weights: Path, tmp_path: Path) -> Path:
        """A copy to damage."""
        return Path(shutil.copytree(small_weights, tmp_path / "damaged"))

    @pytest.fixture
    def failure(
        self, weights: Path, here: Path, portrait_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> Failure:
        """Recover with the damaged copy: the line on stderr."""

        def line() -> str:
            assert main(["recover", str(portrait_file), "--model", str(weights)]) == 2
            assert list(here.iterdir()) == []
            return one_line(capsys.readouterr().err)

        return line

    def configure(self, weights: Path, **fields: object) -> None:
        config = json.loads((weights / "config.json").read_text()) | fields
        (weights / "config.json").write_text(json.dumps(config))

    def test_unknown_key(self, weights: Path, failure: Failure) -> None:
        self.configure(weights, depth=3)
        assert "unknown key depth" in failure()

    def test_wrong_type(self, weights: Path, failure: Failure) -> None:
        self.configure(weights, model_type="resnet")
        assert "model_type is 'resnet'" in failure()

    def test_missing_key(self, weights: Path, failure: Failure) -> None:
        state = load_file(weights / "model.safetensors")
        del state["head.bias"]
        save_file(state, weights / "model.safetensors")
        assert "missing head.bias" in failure()

    def test_truncated(self, weights: Path, failure: Failure) -> None:
        content = (weights / "model.safetensors").read_bytes()
        (weights / "model.safetensors").write_bytes(content[:-100])
        assert "model.safetensors is damaged" in failure()


class TestWhatStdoutCannotSay:
    def said(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
        """By a command, to one that takes ASCII alone."""
        with monkeypatch.context() as patch:
            stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
            patch.setattr(sys, "stdout", stdout)
            assert main(arguments) == 0
        stdout.seek(0)
        return stdout.read()

    def test_the_name_of_an_exported_file(
        self, here: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "face_destyle.onnx_backend.to_onnx", lambda model, path: path.write_bytes(b"new")
        )
        said = self.said(monkeypatch, "export", str(small_weights), "-o", "caf\u00e9.onnx")
        assert said == "caf\\xe9.onnx\n"
        assert (here / "caf\u00e9.onnx").read_bytes() == b"new"

    def test_what_a_table_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        row = dataclasses.replace(published.WEIGHTS["fdnn"], paper="Caf\u00e9", data="\u2013")
        monkeypatch.setitem(published.WEIGHTS, "fdnn", row)
        assert "Caf\\xe9\n" in self.said(monkeypatch, "list")
        said = self.said(monkeypatch, "info", "fdnn")
        assert "Caf\\xe9\n" in said and "\\u2013\n" in said


class TestTables:
    def test_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["name", "licence", "size", "paper"]
        assert [line.split()[0] for line in lines[1:]] == list(published.WEIGHTS)
        assert all("non-commercial" in line and " MB" in line for line in lines[1:])

    @pytest.mark.parametrize("name", published.WEIGHTS)
    def test_info(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", name]) == 0
        out = capsys.readouterr().out
        row = published.WEIGHTS[name]
        for fact in (row.repo_id, row.tag, row.licence, row.sha256, row.data, row.paper):
            assert fact in out
        for key in json.loads((row.folder() / "config.json").read_text()):
            assert f"  {key}:" in out

    def test_info_shows_the_figures(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        figures = {"seen": {"psnr": 21.23456, "styles": ["candy", "feathers"]}, "photos": 1119}
        monkeypatch.setattr(published.Published, "figures", lambda row: figures)
        assert main(["info", "fdnn"]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert {"psnr: 21.23", "styles: candy, feathers", "photos: 1119"} <= set(lines)

    def test_info_of_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "fdn"]) == 2
        names = ", ".join(published.WEIGHTS)
        assert f"known are {names}" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["recover"],
        ["export"],
        ["recover", "a.png", "--size"],
        ["recover", "a.png", "--strength", "much"],
        ["recover", "a.png", "--backend", "jax"],
        ["recover", "a.png", "--attributes", "-Young"],
    ],
)
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "--help" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recover", "--help"], ["export", "--help"], ["--version"]]
)
def test_help_and_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert (__version__ if "--version" in arguments else "usage: face-destyle") in out


class TestProcess:
    def test_recover_and_memory(self, tmp_path: Path, portrait_file: Path) -> None:
        """The whole command in one process, with how much memory that took."""
        code = (
            "import sys; from face_destyle.cli import main; code = main(); "
            "from tests.memory import peak; sys.stderr.write(str(peak())); sys.exit(code)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, "recover", str(portrait_file), "-o", "photo.png"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert run.returncode == 0, run.stderr
        assert int(run.stderr) < 500 * MEGABYTE
        with Image.open(tmp_path / "photo.png") as opened:
            assert opened.size == (128, 128)

    @pytest.mark.parametrize("kind", ["truncated", "too large"])
    def test_unreadable_input(self, kind: str, tmp_path: Path) -> None:
        path = drawn.unreadable(kind, tmp_path)
        run = process("recover", path, "-o", "photo.png", cwd=tmp_path)
        assert run.returncode == 2
        assert drawn.UNREADABLE[kind][2] in one_line(run.stderr)
        assert list(tmp_path.iterdir()) == [path]

    def test_existing_output(self, tmp_path: Path, portrait_file: Path) -> None:
        before = hashlib.sha256(portrait_file.read_bytes()).digest()
        run = process("recover", portrait_file, "-o", portrait_file, cwd=tmp_path)
        assert run.returncode == 2
        assert "exists" in one_line(run.stderr)
        assert hashlib.sha256(portrait_file.read_bytes()).digest() == before

    def test_weights_on_a_hub_that_is_not_reached(
        self, tmp_path: Path, portrait_file: Path
    ) -> None:
        run = process("recover", portrait_file, "--model", "org/absent", cwd=tmp_path)
        assert run.returncode == 2
        assert "not in the local cache" in one_line(run.stderr)

    def test_help_does_not_wait_for_torch(self, tmp_path: Path) -> None:
        code = (
            "import sys; from face_destyle.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "sys.exit(len({'torch', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
        )
        assert run.returncode == 0

    def test_list_as_a_module(self, tmp_path: Path) -> None:
        run = process("list", cwd=tmp_path)
        assert run.returncode == 0
        assert "style-the-scream" in run.stdout
