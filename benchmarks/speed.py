"""Speed and memory beside pix2pix, as ratios measured in one run.

    python -m benchmarks.speed --out speed.json

What is compared takes turns, repetition by repetition, so that a machine that slows down slows
down both. Run it on an otherwise idle machine.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from benchmarks.pix2pix import UNet128
from face_destyle import FaceModel, Stylizer
from face_destyle.errors import UserError
from face_destyle.export import INPUT, to_onnx
from train.console import one_line_errors
from train.data import ALIGNED, Batch
from train.figures import write_figures
from train.fit import Trainer
from train.precision import mixed
from train.recipe import Recipe, load_recipe
from train.stylize import StylizeArguments, stylize

ROOT = Path(__file__).parents[1]
RECIPES = {
    "fdnn": ROOT / "train" / "recipes" / "fdnn.yaml",
    "pix2pix": ROOT / "benchmarks" / "pix2pix.yaml",
}
IFRP_RECIPE = ROOT / "train" / "recipes" / "ifrp-refine.yaml"
WITHOUT_TRANSFORMERS = ["model.config.transformers=[]", "loss.alignment=0"]
STYLES = ("style-the-scream", "style-starry-night", "style-composition-vii", "style-udnie")
# Of one face: ours, the rival, and at most what share of the rival's time.
LIMITS = {
    ("fdnn", "unet_128"): 0.5,
    ("fdnn-ifrp", "unet_128"): 0.7,
    ("fdnn-afrp", "fdnn-ifrp"): 1.2,
    ("fdnn-tann", "unet_128"): 1.0,
}
MEGABYTE = 1_000_000
# Its own small process: a child starts with the memory of the process that forks it, and this
# one holds torch.
MEASURE_CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Figure:
    """One result.

    Attributes:
        name: what was measured.
        value: the ratio, share or size that the limit is for.
        limit: what it is held against.
        at_most: whether the limit is an upper one.
        unit: of value and limit.
        parts: the times, rates or sizes behind it.
    """

    name: str
    value: float
    limit: float
    at_most: bool
    unit: str
    parts: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def sentence(self) -> str:
        """The result in one line."""
        bound = "at most" if self.at_most else "at least"
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        return (
            f"{self.name}: {self.value:.3g}{self.unit} ({bound} {self.limit:g}{self.unit}: "
            f"{'holds' if self.holds else 'MISSED'}); {parts}"
        )


def medians(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task; they take turns, after one unmeasured turn of each."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def recover_one(rounds: int, threads: int, models: dict[str, FaceModel], limit: float) -> Figure:
    """One face through ours and through the rival, in this order, each in its faster runtime."""
    torch_tasks: dict[str, Callable[[], object]] = {}
    onnx_tasks: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            portrait = torch.rand(1, 3, model.input_size, model.input_size) * 2 - 1
            path = to_onnx(model, Path(folder) / f"{name}.onnx")
            torch_tasks[f"{name} torch"] = _torch_task(model, portrait)
            onnx_tasks[f"{name} onnxruntime"] = _onnx_task(path, portrait, threads)
        # One runtime after the other: torch's threads spin on for a while after each picture, and
        # would take more of a short turn of the other's than of a long one.
        found = medians(torch_tasks, rounds) | medians(onnx_tasks, rounds)
    ours, rival = (
        min(seconds for task, seconds in found.items() if task.startswith(f"{name} "))
        for name in models
    )
    parts = {f"{name} ms": 1000 * seconds for name, seconds in found.items()}
    first, second = models
    name = f"recover one face by {first}, share of {second}'s time"
    return Figure(name, ours / rival, limit, True, "", parts)


def recover_pair(rounds: int, threads: int, pair: tuple[str, str], limit: float) -> Figure:
    """The same of published networks, or the rival's."""
    models = {
        name: UNet128().eval() if name == "unet_128" else FaceModel.from_pretrained(name)
        for name in pair
    }
    return recover_one(rounds, threads, models, limit)


def _torch_task(model: FaceModel, portrait: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def task() -> object:
        return model(portrait).photo

    return task


def _onnx_task(path: Path, portrait: torch.Tensor, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Nor shall its own threads spin on into the other network's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {INPUT: portrait.numpy()}
    for given in session.get_inputs():
        if given.name != INPUT:  # attributes, all left to the portrait
            feed[given.name] = np.full((1, *given.shape[1:]), np.nan, dtype=np.float32)
    return lambda: session.run(None, feed)


def train_step(rounds: int, batch_size: int, recipes: dict[str, Recipe] | None = None) -> Figure:
    """A step of both networks, by the recipes they are trained with, on random pictures."""
    recipes = recipes or {name: load_recipe(path) for name, path in RECIPES.items()}
    tasks = {name: _step_task(recipe, batch_size) for name, recipe in recipes.items()}
    seconds = medians(tasks, rounds)
    rates = {f"{name} images/s": batch_size / value for name, value in seconds.items()}
    ours, rival = rates.values()
    name = f"training step with discriminator, batch {batch_size}, times pix2pix's rate"
    return Figure(name, ours / rival, 3.0, False, "", rates)


def transformers_step(
    rounds: int, batch_size: int, embedding: Path | None, more: tuple[str, ...] = ()
) -> Figure:
    """A step of IFRP and its discriminator, with and without spatial transformers.

    Args:
        rounds: steps of each.
        batch_size: of a step.
        embedding: of the identity loss, which is left out where None.
        more: further changes of the recipe, as `load_recipe` takes them.
    """
    identity = f"loss.identity_network={embedding}" if embedding else "loss.identity=0"
    recipes = {
        name: load_recipe(IFRP_RECIPE, [identity, *changes, *more])
        for name, changes in {"with": [], "without": WITHOUT_TRANSFORMERS}.items()
    }
    tasks = {name: _step_task(recipe, batch_size) for name, recipe in recipes.items()}
    seconds = medians(tasks, rounds)
    share = 100 * (1 - seconds["without"] / seconds["with"])
    parts = {f"{name} transformers ms": 1000 * value for name, value in seconds.items()}
    name = "spatial transformers, share of IFRP's step with discriminator"
    name += " and identity loss" if embedding else ""
    return Figure(name, share, 15, True, " %", parts)


def _step_task(recipe: Recipe, batch_size: int) -> Callable[[], object]:
    precision = mixed(recipe.train.precision, "cpu")
    recipe = replace(recipe, train=replace(recipe.train, batch_size=batch_size))
    trainer = Trainer(recipe, Accelerator(mixed_precision=precision, cpu=True))
    trainer.counter.images = recipe.loss.adversarial_after  # where the discriminator takes part
    shape = (batch_size, 3, trainer.input_size, trainer.input_size)
    portraits, photos = torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
    batch = Batch(portraits, photos, ALIGNED.expand(batch_size, 2, 3))
    return lambda: trainer.step(batch, 0)


def stylize_all(
    rounds: int, photos: int, batch_size: int, styles: tuple[str, ...] = STYLES
) -> Figure:
    """`train.stylize` from picture files to parquet, beside its networks on ready tensors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos" / "train").mkdir(parents=True)
        for seed in range(photos):
            picture(seed, 128).save(folder / "photos" / "train" / f"{seed:05d}.png")
        # So many chunks that start and end weigh no more than in a run of thousands of photos.
        chunk = max(batch_size, photos // 16)
        arguments = StylizeArguments(
            str(folder / "photos"),
            {style: style for style in styles},
            chunk=chunk,
            batch_size=batch_size,
        )
        outs = iter(folder / f"pairs-{turn}" for turn in range(rounds + 1))
        networks = [Stylizer.from_pretrained(style) for style in styles]
        batches = torch.rand(photos, 3, 128, 128).mul(2).sub(1).split(batch_size)

        @torch.inference_mode()
        def bare() -> None:
            for network in networks:
                for batch in batches:
                    network(batch)

        tasks: dict[str, Callable[[], object]] = {
            "end to end": lambda: stylize(arguments, next(outs)),
            "bare": bare,
        }
        seconds = medians(tasks, rounds)
    rates = {f"{name} photos/s": photos * len(styles) / value for name, value in seconds.items()}
    share = 100 * seconds["bare"] / seconds["end to end"]
    return Figure("stylizing, share of the bare networks' rate", share, 90, False, " %", rates)


def command_memory(side: int = 1024) -> Figure:
    """The most memory that `face-destyle recover` is resident in."""
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        picture(0, side).save(portrait)
        command = [sys.executable, "-m", "face_destyle", "recover", str(portrait)]
        command += ["-o", str(Path(folder) / "photo.png")]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE_CHILD, *command],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    size = int(done.stdout) * unit / MEGABYTE
    return Figure("face-destyle recover, peak memory", size, 500, True, " MB", {"input side": side})


def picture(seed: int, side: int) -> Image.Image:
    """Smooth colours and a little noise, which compress about as a photo does."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = smooth + random.normal(0, 4, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def measure(
    parts: list[str], rounds: int, threads: int, photos: int, embedding: Path | None = None
) -> list[Figure]:
    """Measure the given parts of `PARTS`, and print each as soon as it is there."""
    torch.set_num_threads(threads)
    makers: dict[str, list[Callable[[], Figure]]] = {
        "recover": [
            partial(recover_pair, rounds * 5, threads, pair, limit)
            for pair, limit in LIMITS.items()
        ],
        # The batch of our recipe, and the rival's own.
        "train": [lambda: train_step(rounds, 16), lambda: train_step(rounds, 4)],
        "transformers": [lambda: transformers_step(rounds, 16, embedding)],
        "stylize": [lambda: stylize_all(max(1, rounds // 7), photos, 32)],
        "memory": [command_memory],
    }
    figures = []
    for part in parts:
        for make in makers[part]:
            figures.append(make())
            print(figures[-1].sentence(), flush=True)
    return figures


PARTS = ("recover", "train", "transformers", "stylize", "memory")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 1 where a figure is on the wrong side of its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--part", action="append", choices=PARTS, help="all where none is given")
    parser.add_argument("--rounds", type=int, default=15, help="training steps of each network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", type=int, default=1024, help="to stylize")
    parser.add_argument(
        "--identity-network", type=Path, help="face embedding: IFRP's step with its identity loss"
    )
    given = parser.parse_args(argv)
    if given.out and not given.out.parent.is_dir():
        raise UserError(f"{given.out} cannot be written: {given.out.parent} is no folder")
    parts = given.part or list(PARTS)
    figures = measure(parts, given.rounds, given.threads, given.photos, given.identity_network)
    if given.out:
        content: dict[str, Any] = {
            "machine": platform.machine(),
            "torch": torch.__version__,
            "threads": given.threads,
            "figures": [asdict(figure) | {"holds": figure.holds} for figure in figures],
        }
        write_figures(content, given.out)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
