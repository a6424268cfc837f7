"""Drawings and their photos: both in the frame, turned alike, nothing lost without a word."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image

from face_destyle.faces import FRAME_EYES
from tests import drawn
from tests.train import made
from train.chunks import encode_png
from train.drawings import EYES, main
from train.misalign import Misalignment, turn_portraits
from train.photos import attribute_names, open_photos

SCALE, CORNER = 2, (70, 40)


def write_folder(folder: Path, count: int = 3) -> Path:
    """Faces twice as large as in the frame and off the middle; the drawing is their negative."""
    folder.mkdir()
    rows = []
    for number in range(count):
        face = drawn.face(number, 128 * SCALE)
        sheet = Image.new("RGB", (400, 380), "grey")
        sheet.paste(face, CORNER)
        sheet.save(folder / f"{number}-photo.png")
        sheet.point(lambda level: 255 - level).save(folder / f"{number}-sketch.png")
        row = {"photo": f"{number}-photo.png", "sketch": f"{number}-sketch.png"}
        row |= {"identity": f"p{number}", "repo_split": "testing" if number else "training"}
        places = [
            (value + 0.5) * SCALE - 0.5 + corner
            for eye in FRAME_EYES
            for value, corner in zip(eye, CORNER, strict=True)
        ]
        for kind in ("photo", "sketch"):
            row |= {f"{kind}_{name}": str(x) for name, x in zip(EYES, places, strict=True)}
        rows.append(row)
    write_metadata(folder, rows)
    return folder


def write_metadata(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(out: Path, split: str) -> Dataset:
    return load_dataset("parquet", data_files=[str(p) for p in out.glob(f"{split}-*.parquet")])[
        "train"
    ]


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.float32)


def test_both_pictures_lie_in_the_frame(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sheets")
    assert main(["--drawings", str(folder), "--out", str(tmp_path / "pairs")]) == 0
    tests = read(tmp_path / "pairs", "test")
    assert tests["identity"] == ["p1", "p2"]
    assert set(tests["style"]) == {"sketch"}
    assert read(tmp_path / "pairs", "train")["identity"] == ["p0"]
    for number, pair in enumerate(tests, 1):
        wanted = drawn.face(number, 128 * SCALE).resize((128, 128), Image.Resampling.LANCZOS)
        inner = np.s_[4:-4, 4:-4]
        assert np.abs(pixels(pair["photo"]) - pixels(wanted))[inner].mean() < 2
        assert np.abs(255 - pixels(pair["portrait"]) - pixels(wanted))[inner].mean() < 2


def test_variants_are_turned_as_they_say(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sheets")
    command = ["--drawings", str(folder), "--out", str(tmp_path / "pairs")]
    assert main([*command, "--turns", "--variants", "3", "--split", "train"]) == 0
    pairs = read(tmp_path / "pairs", "train")
    assert pairs["variant"] == [0, 1, 2]
    assert not (tmp_path / "pairs" / "test-drawings.parquet").exists()
    upright = 255 - pixels(pairs[0]["photo"])
    for pair in pairs:
        alignment = torch.tensor(pair["alignment"]).reshape(1, 2, 3)
        assert Misalignment.of(alignment[0]) != Misalignment()
        turned = torch.tensor(pixels(pair["portrait"])).permute(2, 0, 1)[None] / 127.5 - 1
        back = (turn_portraits(turned, alignment)[0].permute(1, 2, 0).numpy() + 1) * 127.5
        middle = np.s_[40:90, 40:90]
        assert np.abs(back - upright)[middle].mean() < 8


def test_pairs_load_beside_those_of_photos(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sheets")
    photos = made.photos(tmp_path / "photos")
    command = ["--drawings", str(folder), "--out", str(tmp_path / "pairs")]
    assert main([*command, "--like", str(photos), "--split", "train"]) == 0
    attributes = read(tmp_path / "pairs", "train").features["attributes"]
    names = attribute_names(open_photos(str(photos))["train"])
    assert list(attributes) == (names or ["unknown"])


def test_a_broken_picture_is_named_and_the_rest_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "sheets")
    content = (folder / "1-sketch.png").read_bytes()
    (folder / "1-sketch.png").write_bytes(content[: len(content) // 2])
    assert main(["--drawings", str(folder), "--out", str(tmp_path / "pairs")]) == 1
    assert "1-sketch.png" in capsys.readouterr().err
    assert read(tmp_path / "pairs", "test")["identity"] == ["p2"]


def test_bad_arguments_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "sheets")
    without = write_folder(tmp_path / "without")
    write_metadata(without, [{"photo": "0-photo.png", "sketch": "0-sketch.png"}])
    cases = [
        (["--drawings", str(tmp_path)], "metadata.csv"),
        (["--drawings", str(without)], "identity"),
        (["--drawings", str(folder), "--split", "valid"], "no split valid"),
        (["--drawings", str(folder), "--variants", "0"], "--variants"),
    ]
    for arguments, named in cases:
        assert main([*arguments, "--out", str(tmp_path / "pairs")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line
        assert not (tmp_path / "pairs").exists()


def test_a_png_is_what_was_drawn() -> None:
    face = drawn.face(0, 128)
    assert np.array_equal(pixels(Image.open(io.BytesIO(encode_png(face)))), pixels(face))
