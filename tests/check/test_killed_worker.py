"""One of two processes of a training is lost: a clear end, and the same result when it goes on."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.train import made
from tests.train.runs import CALM, assert_equal, curve, torchrun, world
from train.checkpoints import checkpoints
from train.fit import fit
from train.recipe import load_recipe


def test_a_killed_worker_ends_the_run_which_then_goes_on(tmp_path: Path) -> None:
    data = made.pairs(tmp_path / "pairs")
    # Parts too: where the processes exchange nothing, nothing may get lost either.
    length = {"images": 640, "save_every": 80, "accumulate": 2}
    recipe = made.recipe(tmp_path, data, optimizer=CALM, train=length)

    run = tmp_path / "killed"
    process = torchrun(tmp_path, recipe, run)
    while not checkpoints(run):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (_, (_, worker)) = world(tmp_path)
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "SIGKILL" in said and str(worker) in said
    saved = checkpoints(run)
    assert saved and saved[-1].name < "images-0000000640", "the kill came after the end"
    assert not (run / "weights").exists()

    for out in (run, tmp_path / "two"):
        process = torchrun(tmp_path, recipe, out)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert [count for count, _ in world(tmp_path)] == [2, 2]
    assert_equal(run / "weights", tmp_path / "two" / "weights")
    assert [line["images"] for line in curve(run)] == list(range(16, 641, 16))

    # Rounding grows from step to step: the first ones tell.
    alone = load_recipe(recipe, ["train.accumulate=1"])
    fit(alone, tmp_path / "one", stop_at=80, cpu=True)
    for many, one in zip(curve(run)[:5], curve(tmp_path / "one"), strict=True):
        for name in one.keys() - {"images_per_second"}:
            assert many[name] == pytest.approx(one[name], rel=1e-3), name
