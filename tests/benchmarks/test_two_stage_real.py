"""Real turned heads: found in the table, laid upright, judged against the same person's front."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.two_stage_real import POINTS, Heads, main, upright
from face_destyle import TANN, TANNConfig
from face_destyle.configs import config_from_dict
from face_destyle.faces import FRAME_LANDMARKS
from tests import drawn
from tests.train import made
from tests.train.test_triplet import TINY_TANN

STRETCH = 4 / 3
HALF = 0.5  # the pictures are half as large as the frame


def write(folder: Path, seen: list[tuple[int, str]], **changes: str) -> Path:
    """Drawn faces squeezed sideways, with the landmarks of the frame."""
    folder.mkdir(parents=True)
    rows = []
    for person, pose in seen:
        name = f"{person}-{pose}.png"
        size = (round(128 * HALF / STRETCH), round(128 * HALF))
        drawn.face(person).resize(size, Image.Resampling.LANCZOS).save(folder / name)
        row = {"file": name, "identity": f"p{person}", "pose": pose}
        for point, (x, y) in zip(POINTS, FRAME_LANDMARKS, strict=True):
            row |= {f"lmx_{point}": f"{x * HALF / STRETCH}", f"lmy_{point}": f"{y * HALF}"}
        rows.append(row | changes)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


SEEN = [(0, "front"), (0, "left"), (0, "right"), (1, "left"), (1, "front"), (2, "front")]


def test_who_takes_part_and_how_they_lie(tmp_path: Path) -> None:
    seen = [*SEEN, (3, "right"), (0, "up")]
    heads = Heads.read(write(tmp_path / "heads", seen), STRETCH)
    assert heads.poses == ["left", "right", "left"]
    assert heads.people.tolist() == [0, 0, 1]
    assert heads.turned.shape == (3, 3, 128, 128) and heads.frontal.shape == (2, 3, 128, 128)
    faces = drawn.faces(2)
    assert made.circle_psnr(heads.frontal, faces) > 22
    assert made.circle_psnr(heads.turned, faces[heads.people]) > 22
    squeezed = Heads.read(tmp_path / "heads", 1.0)
    assert made.circle_psnr(squeezed.frontal, faces) < 18


def test_landmarks_that_do_not_fit_are_brought_nearest_to_the_frame(tmp_path: Path) -> None:
    """As those of a head turned aside: nearer to each other across, and the head is tilted."""
    frame = np.array(FRAME_LANDMARKS)
    tilt = np.array([[0.94, -0.34], [0.34, 0.94]])
    points = ((frame - frame.mean(0)) * (0.5, 1.0)) @ tilt.T + 64
    picture = Image.new("RGB", (128, 128))
    ImageDraw.Draw(picture).ellipse((46, 40, 78, 72), fill="white")
    picture.save(tmp_path / "a.png")
    row = {"file": "a.png"}
    for name, (x, y) in zip(POINTS, points, strict=True):
        row |= {f"lmx_{name}": str(x), f"lmy_{name}": str(y)}
    # u = a x - b y + c and v = b x + a y + d: least squares over the five points.
    (x, y), one, none = points.T, np.ones(5), np.zeros(5)
    known = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    a, b, c, d = np.linalg.lstsq(known, frame.T.ravel(), rcond=None)[0]
    disc = np.asarray(upright(tmp_path, row, 1.0))[..., 0] > 127
    before = np.asarray(picture)[..., 0] > 127
    assert np.sqrt(disc.sum() / before.sum()) == pytest.approx(np.hypot(a, b), rel=0.02)
    v, u = (float(place.mean()) for place in np.nonzero(disc))
    assert (u, v) == pytest.approx((a * 62 - b * 56 + c, b * 62 + a * 56 + d), abs=0.7)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "heads", SEEN)
    embedding = made.face_embedding(tmp_path / "embedding.safetensors")
    torch.manual_seed(0)
    TANN(config_from_dict(TANNConfig, TINY_TANN, "")).save_pretrained(tmp_path / "tann")
    options = ["--data", str(folder), "--stretch", str(STRETCH), "--embedding", str(embedding)]
    options += ["--pipeline", f"tann={tmp_path / 'tann'}", "--columns", "2"]
    options += ["--out", str(tmp_path / "out.json"), "--grid", str(tmp_path / "grid.png")]
    assert main(options) == 0
    figures: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert list(figures) == ["tann", "bicubic", "as it is"]
    assert {pose: row["photos"] for pose, row in figures["tann"].items()} == {"left": 2, "right": 1}
    # The drawn sides are the fronts themselves.
    assert figures["as it is"]["left"]["identity"] > 0.999
    assert figures["as it is"]["left"]["rank1"] == 1
    assert figures["bicubic"]["left"]["identity"] < figures["as it is"]["left"]["identity"]
    assert Image.open(tmp_path / "grid.png").size == (2 * 128, 5 * 128)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fronts = write(tmp_path / "fronts", [(0, "front"), (1, "front")])
    same = {f"lm{axis}_{point}": "5" for point in POINTS for axis in "xy"}
    pointless = write(tmp_path / "pointless", SEEN, **same)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metadata.csv").write_text("file,identity\na.png,p0\n")
    tann = tmp_path / "tann"
    TANN(config_from_dict(TANNConfig, TINY_TANN, "")).save_pretrained(tann)
    embedding = made.face_embedding(tmp_path / "embedding.safetensors")
    cases = [
        (fronts, [], "nobody is seen from the front and from a side"),
        (bare, [], "has no column pose"),
        (tmp_path / "none", [], "No such file"),
        (pointless, [], "landmarks that are none"),
        (fronts, ["--stretch", "0"], "--stretch is above 0"),
        (fronts, ["--grid", "/no/where.png"], "is no folder"),
    ]
    for folder, more, message in cases:
        options = ["--data", str(folder), "--embedding", str(embedding), *more]
        assert main([*options, "--pipeline", f"tann={tann}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
