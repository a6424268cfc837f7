"""`face-destyle recover`: names that are no text, and weights that have the same name."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from face_destyle import FDNN, FaceModel, FDNNConfig, published
from face_destyle.cli import main
from face_destyle.folders import RECORDS
from tests import drawn
from tests.test_cli import ROOT, one_line
from tests.test_recover_command import opened

Text = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FDNN."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    widths = {"encoder_widths": (8, 8, 8, 8), "decoder_widths": (8, 8, 8)}
    FDNN(FDNNConfig(**widths, code_rank=4, tail_width=8)).save_pretrained(folder)
    return folder


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """A folder of two."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.jpg")):
        drawn.face(number, 140).save(folder / name)
    return folder


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
LATIN = os.fsdecode(b"caf\xe9")


class TestNames:
    @pytest.mark.parametrize(
        ("name", "encoding", "said"),
        [
            pytest.param(LATIN, "utf-8", "caf\\udce9", marks=ON_LINUX),
            ("caf\u00e9", "utf-8", "caf\u00e9"),
            ("caf\u00e9", "ascii", "caf\\xe9"),
        ],
    )
    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_what_stdout_cannot_say_is_said_otherwise(
        self,
        kind: str,
        name: str,
        encoding: str,
        said: str,
        here: Path,
        tmp_path: Path,
        weights: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        source = tmp_path / (f"{name}.png" if kind == "file" else name)
        if kind == "folder":
            source.mkdir()
        drawn.face().save(source if kind == "file" else source / f"{name}.png")
        stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["recover", str(source), "--model", str(weights)]) == 0
        stdout.seek(0)
        ending = ".png" if kind == "file" else ""
        assert stdout.read() == f"{said}-recovered{ending}\n"
        (photo,) = here.rglob("*.png")
        assert photo.name == (f"{name}-recovered.png" if kind == "file" else f"{name}.png")

    @ON_LINUX
    def test_a_process_tells_what_failed(self, tmp_path: Path, weights: Path) -> None:
        """With its own stderr, and a stdout that takes UTF-8 alone."""
        folder = tmp_path / LATIN
        folder.mkdir()
        drawn.face().save(folder / f"{LATIN}.png")
        (folder / f"{LATIN}-bad.png").write_text("no picture")
        run = subprocess.run(
            [sys.executable, "-m", "face_destyle", "recover", LATIN, "--model", str(weights)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        )
        assert run.returncode == 1, run.stderr
        assert run.stdout == "caf\\udce9-recovered\n"
        assert "Traceback" not in run.stderr
        assert "caf\\udce9-bad.png is not a picture" in run.stderr.splitlines()[-1]


class TestWeights:
    def test_two_networks_of_one_name(
        self, here: Path, portraits: Path, weights: Path, capsys: Text
    ) -> None:
        """Training writes each to RUN/weights."""
        shutil.copytree(weights, here / "first" / "weights")
        shutil.copytree(weights, here / "second" / "weights")
        other = FaceModel.from_pretrained(weights)
        torch.nn.init.normal_(next(other.parameters()))
        other.save_pretrained(here / "third" / "weights")
        command = ["recover", str(portraits), "-o", "out", "--model"]
        assert main([*command, "first/weights"]) == 0
        content = (weights / "model.safetensors").read_bytes()
        name = f"weights {hashlib.sha256(content).hexdigest()[:8]}"
        records = [json.loads(line) for line in (here / "out" / RECORDS).open()]
        assert {record["weights"] for record in records} == {name}
        assert opened("out/a.png").text["Weights"] == "weights"

        capsys.readouterr()
        assert main([*command, "second/weights"]) == 0  # a copy is the same network
        assert "2 there already, 0 failed" in capsys.readouterr().err
        assert main([*command, "third/weights"]) == 2
        assert f"out holds results of {name}: choose another" in one_line(capsys.readouterr().err)

    def test_published_weights_go_on_by_their_name(
        self,
        here: Path,
        portraits: Path,
        weights: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Text,
    ) -> None:
        monkeypatch.setattr(published.Published, "folder", lambda row: weights)
        assert main(["recover", str(portraits), "-o", "out"]) == 0
        records = [json.loads(line) for line in (here / "out" / RECORDS).open()]
        assert {record["weights"] for record in records} == {"fdnn"}
        capsys.readouterr()
        assert main(["recover", str(portraits), "-o", "out"]) == 0
        assert "2 there already" in capsys.readouterr().err
