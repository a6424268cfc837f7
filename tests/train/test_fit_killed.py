"""kill -9 at random moments of a training: what comes out is what would have come out without."""

import json
import random
from pathlib import Path

from PIL import Image

from tests.train import made
from tests.train.runs import KILLED, assert_equal, lives
from train.checkpoints import checkpoints
from train.fit import fit
from train.recipe import load_recipe

EVERY = 5  # batches from one checkpoint, and from one sample, to the next
SAVED = 5  # files of a checkpoint that torch.save writes


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
