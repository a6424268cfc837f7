"""`face-destyle recover` beyond one portrait: whole pictures, folders, attributes, ONNX."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from face_destyle import (
    AFRP,
    FDNN,
    AFRPConfig,
    FaceModel,
    FaceRecovery,
    FDNNConfig,
    faces,
    images,
)
from face_destyle.cli import main
from face_destyle.folders import RECORDS
from face_destyle.recovery import with_attributes
from tests import drawn
from tests.test_cli import ROOT, one_line
from tests.test_faces import difference, face_at
from tests.test_recovery import PLACES, SMALL_AFRP, two_faces

Text = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FDNN, and beside it an AFRP that hears what is asked of it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    widths = {"encoder_widths": (8, 8, 8, 8), "decoder_widths": (8, 8, 8)}
    FDNN(FDNNConfig(**widths, code_rank=4, tail_width=8)).save_pretrained(folder / "small")
    model = AFRP(AFRPConfig(**SMALL_AFRP))
    torch.nn.init.normal_(model.code.joined.weight)
    model.save_pretrained(folder / "guided")
    return folder / "small"


@pytest.fixture
def guided(weights: Path) -> Path:
    return weights.with_name("guided")


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """A folder of five portraits, one in a sub-folder, and a file that is none."""
    folder = tmp_path / "portraits"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "c.webp", "d.png", "deep/e.png")):
        drawn.face(number, 140).save(folder / name)
    drawn.unreadable("truncated", folder)
    return folder


def opened(path: Path | str) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


class TestWhole:
    @pytest.fixture(autouse=True)
    def finder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Finds the two faces in any picture of their size, and none in another."""

        def find(picture: Image.Image) -> list[faces.Face]:
            known = picture.size == two_faces().size
            return [face_at(place) for place in PLACES] if known else []

        monkeypatch.setattr(faces, "default_finder", lambda: find)

    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        path = tmp_path / "whole.png"
        two_faces().save(path)
        return path

    def test_is_what_python_gives(self, here: Path, whole: Path, weights: Path) -> None:
        arguments = ["recover", str(whole), "--whole", "--model", str(weights)]
        assert main(arguments) == 0
        expected = FaceRecovery.from_pretrained(weights)(whole)
        assert len(expected.faces) == 2
        picture = opened("whole-recovered.png")
        assert difference(picture, expected.picture).max() == 0
        assert difference(picture, two_faces()).max() > 0
        assert picture.text["Weights"] == "small"

    def test_a_large_picture_keeps_its_size(
        self, here: Path, whole: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(images, "REDUCED_SIDE", 100)
        assert main(["recover", str(whole), "--whole", "--model", str(weights)]) == 0
        assert opened("whole-recovered.png").size == two_faces().size

    def test_strength_and_colours(self, here: Path, whole: Path, weights: Path) -> None:
        arguments = ["recover", str(whole), "--whole", "--model", str(weights)]
        changed = ["--strength", "0.3", "--no-match-colour", "-o", "other.png"]
        assert main([*arguments, *changed]) == 0
        recover = FaceRecovery.from_pretrained(weights)
        expected = recover(whole, strength=0.3, match_colour=False).picture
        assert difference(opened("other.png"), expected).max() == 0

    def test_no_face_is_an_error_that_names_the_way_out(
        self, here: Path, tmp_path: Path, weights: Path, capsys: Text
    ) -> None:
        path = tmp_path / "landscape.png"
        drawn.quarters().save(path)
        assert main(["recover", str(path), "--whole", "--model", str(weights)]) == 2
        line = one_line(capsys.readouterr().err)
        assert f"no face was found in {path}: crop the face by hand" in line
        assert list(here.iterdir()) == []

    def test_a_folder(self, here: Path, tmp_path: Path, weights: Path, capsys: Text) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        two_faces().save(folder / "group.png")
        drawn.quarters().save(folder / "landscape.png")
        arguments = ["recover", str(folder), "--whole", "--model", str(weights), "-o", "out"]
        assert main(arguments) == 1
        assert "landscape.png: crop the face by hand" in capsys.readouterr().err
        expected = FaceRecovery.from_pretrained(weights)(two_faces()).picture
        assert difference(opened("out/group.png"), expected).max() == 0
        assert not (here / "out" / "landscape.png").exists()

    def test_a_finder_that_is_no_file(
        self, here: Path, whole: Path, weights: Path, capsys: Text
    ) -> None:
        arguments = ["recover", str(whole), "--whole", "--model", str(weights)]
        assert main([*arguments, "--finder", "absent.onnx"]) == 2
        assert "absent.onnx does not exist" in one_line(capsys.readouterr().err)


class TestFolder:
    def test_each_is_what_python_gives(
        self, here: Path, portraits: Path, weights: Path, capsys: Text
    ) -> None:
        model = FaceModel.from_pretrained(weights)
        arguments = ["recover", str(portraits), "--model", str(weights), "--batch-size", "2"]
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == "portraits-recovered\n"
        summary, failed = captured.err.splitlines()
        assert "5 recovered" in summary and "0 there already, 1 failed" in summary
        assert "truncated.jpg" in failed
        for name in ("a.png", "b.jpg", "c.webp", "d.png", "deep/e.png"):
            photo = opened((here / "portraits-recovered" / name).with_suffix(".png"))
            assert photo.text["Weights"] == "small"
            assert difference(photo, model.recover(portraits / name)).max() <= 1

        (portraits / "truncated.jpg").unlink()
        assert main(arguments) == 0
        assert "0 recovered (0.0 a second), 5 there already, 0 failed" in capsys.readouterr().err

    def test_what_changes_photos_is_in_the_records(
        self, here: Path, portraits: Path, guided: Path
    ) -> None:
        arguments = ["recover", str(portraits), "--model", str(guided), "-o", "out"]
        wishes = ["--attributes= Young , -Smiling", "--strength", "0.5"]
        assert main([*arguments, *wishes]) == 1
        (line, *_) = (here / "out" / RECORDS).read_text().splitlines()
        options = json.loads(line)["options"]
        assert options == "--strength 0.5 --attributes=-Smiling,Young"

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("photo.png", "is a folder: give the name of a folder"),
            ("file", "is a folder: give the name of a folder"),
            ("nowhere/out", "nowhere is no folder"),
            ("../portraits", "is the folder of the portraits"),
        ],
    )
    def test_impossible_output(
        self, output: str, message: str, here: Path, portraits: Path, weights: Path, capsys: Text
    ) -> None:
        (here / "file").touch()
        arguments = ["recover", str(portraits), "--model", str(weights), "-o", output]
        assert main(arguments) == 2
        assert message in one_line(capsys.readouterr().err)
        assert [path.name for path in here.iterdir()] == ["file"]
        assert not list(portraits.rglob("*.jsonl"))

    def test_without_a_finder_nothing_begins(
        self,
        here: Path,
        portraits: Path,
        weights: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Text,
    ) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        faces.default_finder.cache_clear()
        assert main(["recover", str(portraits), "--whole", "--model", str(weights)]) == 2
        assert "pip install 'face-destyle[faces]'" in one_line(capsys.readouterr().err)
        assert list(here.iterdir()) == []

    def test_an_interrupt_ends_in_one_line(
        self, here: Path, portraits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Text
    ) -> None:
        def interrupt(name: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(FaceModel, "from_pretrained", interrupt)
        assert main(["recover", str(portraits)]) == 130
        assert capsys.readouterr().err.strip() == "face-destyle: stopped"

    def test_as_a_process(self, tmp_path: Path, portraits: Path, weights: Path) -> None:
        command = ["recover", portraits, "-o", "out", "--model", weights, "--batch-size", "16"]
        run = subprocess.run(
            [sys.executable, "-m", "face_destyle", *map(str, command)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert run.returncode == 1, run.stderr
        assert run.stdout == "out\n"
        assert "Traceback" not in run.stderr
        assert "truncated.jpg" in run.stderr.splitlines()[-1]
        records = [json.loads(line) for line in (tmp_path / "out" / RECORDS).open()]
        assert [record["status"] for record in records].count("done") == 5
        assert len(records) == 6


class TestOptions:
    def test_strength_is_the_share_of_the_photo(
        self, here: Path, portrait_file: Path, weights: Path
    ) -> None:
        arguments = ["recover", str(portrait_file), "--model", str(weights)]
        assert main([*arguments, "--strength", "0.25"]) == 0
        photo = FaceModel.from_pretrained(weights).recover(portrait_file)
        expected = Image.blend(drawn.face(), photo, 0.25)
        assert difference(opened("portrait-recovered.png"), expected).max() == 0

    def test_attributes(self, here: Path, portrait_file: Path, guided: Path) -> None:
        arguments = ["recover", str(portrait_file), "--model", str(guided)]
        assert main([*arguments, "--attributes", "Smiling,-Young"]) == 0
        model = AFRP.from_pretrained(guided)
        asked, plain = (
            model.recover(portrait_file, attributes=wish) for wish in ("Smiling,-Young", None)
        )
        assert difference(opened("portrait-recovered.png"), asked).max() == 0
        assert difference(asked, plain).max() > 0

    @pytest.mark.parametrize(
        ("options", "name"), [([], "fdnn"), (["--attributes", "Smiling,-Young"], "fdnn-afrp")]
    )
    def test_the_network_that_suits(
        self, options: list[str], name: str, here: Path, portrait_file: Path
    ) -> None:
        assert main(["recover", str(portrait_file), *options]) == 0
        model = with_attributes(FaceModel.from_pretrained(name), "".join(options[1:]) or None)
        expected = model.recover(portrait_file)
        assert difference(opened("portrait-recovered.png"), expected).max() == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--attributes", "Smiling"], "takes no attributes"),
            (["--attributes", "Smilng"], "did you mean Smiling"),
            (["--strength", "1.2"], "strength must be from 0 to 1, not 1.2"),
            (["--strength", "nan"], "strength must be from 0 to 1"),
            (["--batch-size", "0"], "--batch-size must be 1 or more"),
            (["--finder", "yunet.onnx"], "--finder is for whole pictures: add --whole"),
            (["--no-match-colour"], "--no-match-colour is for whole pictures"),
            (["--model", "absent.onnx"], "absent.onnx does not exist"),
        ],
    )
    def test_what_does_not_go_is_one_line(
        self,
        options: list[str],
        message: str,
        here: Path,
        portrait_file: Path,
        weights: Path,
        capsys: Text,
    ) -> None:
        assert main(["recover", str(portrait_file), "--model", str(weights), *options]) == 2
        assert message in one_line(capsys.readouterr().err)
        assert list(here.iterdir()) == []


@pytest.fixture(scope="module")
def file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, exported."""
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    assert main(["export", str(weights), "-o", str(path)]) == 0
    assert list(path.parent.iterdir()) == [path]
    return path


class TestOnnx:
    def test_an_exported_file_recovers(
        self, here: Path, portrait_file: Path, weights: Path, file: Path
    ) -> None:
        assert main(["recover", str(portrait_file), "--model", str(file)]) == 0
        photo = opened("portrait-recovered.png")
        expected = FaceModel.from_pretrained(weights).recover(portrait_file)
        assert difference(photo, expected).max() <= 1
        assert photo.text["Weights"] == "small.onnx"

    def test_an_exported_file_is_known_by_its_content(
        self, here: Path, portraits: Path, file: Path
    ) -> None:
        assert main(["recover", str(portraits), "-o", "out", "--model", str(file)]) == 1
        records = [json.loads(line) for line in (here / "out" / RECORDS).open()]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert {record["weights"] for record in records} == {f"small.onnx {digest[:8]}"}
        assert opened("out/a.png").text["Weights"] == "small.onnx"

    def test_a_whole_picture(
        self,
        here: Path,
        tmp_path: Path,
        weights: Path,
        file: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        found = [face_at(place) for place in PLACES]
        monkeypatch.setattr(faces, "default_finder", lambda: lambda picture: found)
        two_faces().save(tmp_path / "whole.png")
        whole = ["recover", str(tmp_path / "whole.png"), "--whole", "--model"]
        assert main([*whole, str(file), "-o", "onnx.png"]) == 0
        assert main([*whole, str(weights), "-o", "torch.png"]) == 0
        assert difference(opened("onnx.png"), opened("torch.png")).max() <= 1
        assert difference(opened("onnx.png"), two_faces()).max() > 5

    def test_an_existing_file_stays(
        self, here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Text
    ) -> None:
        monkeypatch.setattr(
            "face_destyle.onnx_backend.to_onnx", lambda model, path: path.write_bytes(b"new")
        )
        (here / "small.onnx").write_bytes(b"old")
        assert main(["export", str(weights)]) == 2
        assert "small.onnx exists" in one_line(capsys.readouterr().err)
        assert (here / "small.onnx").read_bytes() == b"old"
        assert main(["export", str(weights), "--overwrite"]) == 0
        assert capsys.readouterr().out == "small.onnx\n"
        assert (here / "small.onnx").read_bytes() == b"new"

    def test_the_backend_exports_to_the_cache(
        self,
        here: Path,
        portraits: Path,
        weights: Path,
        file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        content = file.read_bytes()
        cache = tmp_path / "cache"
        cache.mkdir()
        monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda *_, **__: cache)
        monkeypatch.setattr(
            "face_destyle.onnx_backend.to_onnx", lambda model, path: path.write_bytes(content)
        )
        arguments = ["recover", str(portraits), "--model", str(weights), "--backend", "onnx"]
        assert main([*arguments, "-o", "out"]) == 1
        expected = FaceModel.from_pretrained(weights).recover(portraits / "b.jpg")
        photo = opened("out/b.png")
        assert difference(photo, expected).max() <= 1
        assert photo.text["Weights"] == "small"
        assert [path.suffix for path in cache.iterdir()] == [".onnx"]

    def test_without_the_runtime(
        self, here: Path, portrait_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Text
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert main(["recover", str(portrait_file), "--model", "any.onnx"]) == 2
        assert "pip install 'face-destyle[onnx]'" in one_line(capsys.readouterr().err)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["fdnn", "-o", "out.bin"], "must end in .onnx"),
            (["fdn"], "no weights named fdn"),
            (["style-udnie"], "load it with Stylizer"),
        ],
    )
    def test_impossible_exports(
        self, arguments: list[str], message: str, here: Path, capsys: Text
    ) -> None:
        assert main(["export", *arguments]) == 2
        assert message in one_line(capsys.readouterr().err)
        assert list(here.iterdir()) == []
