"""kill -9 at random moments of a training: what comes out is what would have come out without."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.train import made
from tests.train.test_fit import assert_equal
from train.checkpoints import checkpoints
from train.fit import fit
from train.recipe import load_recipe

# Windows ends a process with the number itself as its exit code.
KILLED = 9 if sys.platform == "win32" else -9
ROOT = Path(__file__).parents[2]
EVERY = 5  # batches from one checkpoint, and from one sample, to the next
SAVED = 5  # files of a checkpoint that torch.save writes


def lives(folder: Path, **given: Any) -> list[int]:
    """The exit codes of the lives of `tests.train.killing`."""
    path = folder / "lives.json"
    path.write_text(json.dumps(given))
    command = [sys.executable, "-m", "tests.train.killing", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert found.returncode == 0, found.stderr
    return list(json.loads(found.stdout.splitlines()[-1]))


def told(run: Path) -> list[dict[str, float]]:
    """What log.jsonl says, but for the speed."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(tmp_path: Path) -> None:
    drawn = random.Random(7)
    every = 8 * EVERY
    length = {"images": 12 * every, "log_every": every, "sample_every": every, "save_every": every}
    data = made.pairs(tmp_path / "pairs")
    path = made.recipe(tmp_path, data, train=length)
    run = tmp_path / "killed"
    # Each life ends between its first and its third checkpoint, wherever the one before it ended.
    deaths = [
        ["step", drawn.randint(2 * EVERY + 1, 4 * EVERY)],
        ["save", SAVED + drawn.randint(1, SAVED)],
        ["sample", 2],
        ["rename", 2],
        ["removal", drawn.randint(1, 2)],
        ["step", drawn.randint(1, 2 * EVERY)],
        ["time", drawn.uniform(0.2, 1.0)],
        ["time", drawn.uniform(0.2, 1.0)],
        ["export", drawn.randint(1, 4)],
        None,
    ]
    command = ["--recipe", str(path), "--out", str(run), "--cpu"]
    codes = lives(tmp_path, module="train.fit", arguments=command, deaths=deaths)
    assert [codes[place] for place in (0, 1, 2, 3, 4, 5, 8, 9)] == [*[KILLED] * 7, 0]
    assert {*codes[6:8]} <= {KILLED, 0}  # by the clock: a fast machine may have come to the end

    whole = tmp_path / "whole"
    assert_equal(fit(load_recipe(path), whole, cpu=True), run / "weights")
    assert told(run) == told(whole)
    names = [saved.name for saved in checkpoints(whole)]
    assert [saved.name for saved in checkpoints(run)] == names and len(names) == 2
    assert not list(run.rglob("*partial*"))
    samples = sorted(picture.name for picture in (whole / "samples").iterdir())
    assert len(samples) == 12
    for name in samples:
        with Image.open(run / "samples" / name) as one, Image.open(whole / "samples" / name) as two:
            assert one.tobytes() == two.tobytes(), name
