"""The commands of the README start a training: accelerate's own launcher."""

import os
import subprocess
import sys
from pathlib import Path

from face_destyle import FDNN
from tests.train import made
from tests.train.runs import ROOT, curve


def test_accelerate_launches_a_training(tmp_path: Path) -> None:
    recipe = made.recipe(tmp_path, made.pairs(tmp_path / "pairs"))
    program = str(Path(sys.executable).with_name("accelerate"))
    done = subprocess.run(
        [program, "launch", "--cpu", "--num_processes", "1", "-m", "train.fit"]
        + ["--recipe", str(recipe), "--data", str(tmp_path / "pairs"), "--out", "run", "--cpu"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert FDNN.from_pretrained(tmp_path / "run" / "weights").config.image_size == 32
    assert [line["images"] for line in curve(tmp_path / "run")] == [16, 32, 48, 64, 80]
