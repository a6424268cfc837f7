"""Trainings in processes of their own, and what two of them are compared by."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from face_destyle import HubModel

ROOT = Path(__file__).parents[2]
# Windows ends a process with the number itself as its exit code.
KILLED = 9 if sys.platform == "win32" else -9
# Adam divides by the size of a gradient, that of rounding too, unless this is larger.
CALM = {"eps": 1e-3}
# train.fit, which tells how many processes there are, and its own number.
TELLING = """
import os, sys
from pathlib import Path
from train import fit
folder, claim = Path(sys.argv[1]), fit.open_run
def telling(run, recipe, accelerator):
    index = accelerator.process_index
    (folder / str(index)).write_text(f"{accelerator.num_processes} {os.getpid()}")
    return claim(run, recipe, accelerator)
fit.open_run = telling
sys.exit(fit.main(sys.argv[2:]))
"""


def states(weights: Path) -> dict[str, torch.Tensor]:
    """All tensors of the two networks that a run exported."""
    generator = HubModel.from_pretrained(weights).state_dict()
    discriminator = HubModel.from_pretrained(weights, subfolder="discriminator").state_dict()
    return generator | {f"discriminator.{k}": v for k, v in discriminator.items()}


def assert_equal(first: Path, second: Path) -> None:
    """Bit for bit."""
    one, two = states(first), states(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def lives(folder: Path, **given: Any) -> list[int]:
    """The exit codes of the lives of `tests.train.killing`."""
    path = folder / "lives.json"
    path.write_text(json.dumps(given))
    command = [sys.executable, "-m", "tests.train.killing", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert found.returncode == 0, found.stderr
    return list(json.loads(found.stdout.splitlines()[-1]))


def torchrun(folder: Path, recipe: Path, run: Path, *options: str) -> subprocess.Popen[str]:
    """train.fit on two processes; in `folder`/world they tell of themselves."""
    (folder / "world").mkdir(exist_ok=True)
    script = folder / "telling.py"
    script.write_text(TELLING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, str(script), str(folder / "world"), "--recipe", str(recipe)]
    return subprocess.Popen(
        [*command, "--out", str(run), "--cpu", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def world(folder: Path) -> list[tuple[int, int]]:
    """How many processes each one counted, and its number in the system."""
    files = sorted((folder / "world").iterdir())
    assert [path.name for path in files] == [str(rank) for rank in range(len(files))]
    found = [tuple(map(int, path.read_text().split())) for path in files]
    return [(count, process) for count, process in found]


def curve(run: Path) -> list[dict[str, float]]:
    """The lines of log.jsonl."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
