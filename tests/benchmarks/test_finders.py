"""The share of found faces, held against a finder whose errors are known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import finders
from face_destyle.faces import FRAME_EYES, Face
from tests import drawn
from tests.train import made

EYES = np.array([[20.0, 30.0], [60.0, 30.0]])  # 40 pixels apart


def finder_off_by(*pixels: float) -> finders.Finder:
    """Tells one face a picture, whose eyes are so far to the right; no number: no face."""

    def find(picture: Image.Image) -> list[Face]:
        eyes = EYES + (pixels[picture.width - 1], 0)
        return [
            Face((0, 0, 9, 9), 1.0, ((900.0, 900.0), (901.0, 900.0))),
            Face((0, 0, 9, 9), 0.5, (tuple(eyes[0]), tuple(eyes[1]))),
        ]

    return find


def test_found_is_within_a_quarter_of_the_eyes_distance() -> None:
    offsets = (0, 4, 9.9, 10.1, 300)
    cases = ((Image.new("RGB", (width + 1, 1)), EYES) for width in range(len(offsets)))
    found = finders.measure(finder_off_by(*offsets), cases)
    assert found == {"pictures": 5, "found": 3, "error_percent": 10.0}


def test_none_found() -> None:
    cases = iter([(Image.new("RGB", (1, 1)), EYES)])
    assert finders.measure(lambda picture: [], cases) == {
        "pictures": 1,
        "found": 0,
        "error_percent": None,
    }


def test_pairs_and_paintings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finder that knows the frame finds upright faces alone: the first of the paintings."""
    (tmp_path / "paintings").mkdir()
    for name in "ab":
        drawn.face().save(tmp_path / "paintings" / f"{name}.png")
    upright = " ".join(f"{x} {y}" for x, y in FRAME_EYES)
    with (tmp_path / "paintings" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "lm5_xy"), ("a.png", upright), ("b.png", "1 2 30 2")])
    pairs = made.turned_pairs(tmp_path / "turned", count=3, variants=1)
    (pairs / "train").rename(pairs / "test")
    told = lambda picture: [Face((0, 0, 9, 9), 1.0, FRAME_EYES)]  # noqa: E731
    monkeypatch.setattr(finders, "finders", lambda yunet: {"told": told})
    arguments = ["--paintings", str(tmp_path / "paintings"), "--pairs", str(pairs)]
    out = tmp_path / "finders.json"
    assert finders.main([*arguments, "--photos", "2", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["told"]
    assert {name: row["pictures"] for name, row in rows.items()} == {
        "paintings": 2,
        "negative": 2,
        "same": 2,
    }
    assert rows["paintings"]["found"] == 1 and rows["paintings"]["error_percent"] == 0
    assert rows["same"]["found"] == rows["negative"]["found"] < 2
    assert "1 of 2" in capsys.readouterr().out


def test_true_eyes_of_an_aligned_portrait(tmp_path: Path) -> None:
    pairs = made.pairs(tmp_path / "pairs", count=1, splits=("test",))
    opened = finders.open_pairs(str(pairs), "test")
    true = finders.alignments(opened, str(pairs))
    ((picture, eyes),) = finders.portraits(opened, true, "negative", 5)
    assert picture.size == (128, 128)
    assert eyes == pytest.approx(np.array(FRAME_EYES), abs=1e-3)


def test_bad_arguments_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metadata.csv").write_text("file\na.png\n")
    for arguments, named in (
        ([], "--paintings"),
        (["--paintings", str(tmp_path)], "lm5_xy"),
        (["--paintings", str(tmp_path / "none")], "none"),
        (["--pairs", "/nowhere"], "/nowhere"),
    ):
        assert finders.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line
