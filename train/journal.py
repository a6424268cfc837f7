"""What a run leaves to read: log.jsonl, TensorBoard, sample grids, the progress bar."""

import json
import math
import os
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from face_destyle import images
from train.recipe import Recipe

# Below this the discriminator tells every picture: its gradient says nothing any more.
SATURATED = 0.05
REFUSED = ("d_fake", "d_wrong", "d_edited")


class Journal:
    """Collects the losses of a run and writes them down, an interval at a time.

    Written are the means over all processes. What a killed run wrote after the checkpoint that it
    goes on from, at `start` images, is taken away: it comes again.
    """

    def __init__(self, run: Path, recipe: Recipe, accelerator: Accelerator, start: int):
        self.run, self.recipe, self.accelerator = run, recipe, accelerator
        self.bar = tqdm(
            total=recipe.train.images,
            initial=start,
            unit="image",
            smoothing=0.05,
            disable=not accelerator.is_main_process,
        )
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.since = time.monotonic()
        self.images = start
        self.log = run / "log.jsonl"
        if accelerator.is_main_process and self.log.is_file():
            self._keep_until(start)

    def _keep_until(self, start: int) -> None:
        lines = self.log.read_text().splitlines()
        kept = [line for line in lines if _images_of(line) <= start]
        partial = self.log.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        os.replace(partial, self.log)

    def record(self, losses: dict[str, torch.Tensor], images_seen: int, rate: float) -> None:
        """Add one step; write a line where the interval is full."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().item()
        self.steps += 1
        self.bar.update(images_seen - self.bar.n)
        if images_seen // self.recipe.train.log_every > self.images // self.recipe.train.log_every:
            self._write(images_seen, rate)

    def _write(self, images_seen: int, rate: float) -> None:
        everywhere: list[dict[str, float]] = gather_object([self.sums])
        names = dict.fromkeys(name for sums in everywhere for name in sums)
        steps = self.steps * len(everywhere)
        line = {name: sum(sums.get(name, 0.0) for sums in everywhere) / steps for name in names}
        line["images_per_second"] = (images_seen - self.images) / (time.monotonic() - self.since)
        line["learning_rate"] = rate
        if self.recipe.loss.pixel:
            line["psnr"] = -10 * math.log10(line["pixel"] / self.recipe.loss.pixel / 4)
        self.accelerator.log(line, step=images_seen)
        if self.accelerator.is_main_process:
            with self.log.open("a") as file:
                file.write(json.dumps({"images": images_seen, **line}) + "\n")
            shown = {name: f"{line[name]:.3g}" for name in names}
            if "psnr" in line:
                shown["psnr"] = f"{line['psnr']:.2f}"
            self.bar.set_postfix(shown)
            refused = [value for name, value in line.items() if name in REFUSED]
            if refused and max(line["d_real"], sum(refused)) < SATURATED:
                tqdm.write(
                    f"warning: at {images_seen} images the discriminator is never wrong; "
                    "lower optimizer.discriminator_rate"
                )
        self.sums, self.steps, self.since, self.images = {}, 0, time.monotonic(), images_seen

    def sample(
        self, portraits: torch.Tensor, fake: torch.Tensor, real: torch.Tensor, n: int
    ) -> None:
        """Write a grid: portraits, recovered faces, photos; at most 8 columns."""
        if not self.accelerator.is_main_process:
            return
        rows = [torch.cat(list(row[:8].float()), 2) for row in (portraits, fake, real)]
        (self.run / "samples").mkdir(exist_ok=True)
        images.to_picture(torch.cat(rows, 1)).save(self.run / "samples" / f"{n:010d}.png")


def _images_of(line: str) -> float:
    """How many images a line of log.jsonl tells of; of a torn one infinitely many."""
    try:
        return int(json.loads(line)["images"])
    except (ValueError, TypeError, KeyError):
        return math.inf
