"""Checkpoints of a run: complete or absent, found again by the images seen."""

import os
import shutil
from pathlib import Path

from accelerate import Accelerator

PREFIX = "images-"


class Counter:
    """How many images the run has seen; saved with the checkpoint."""

    def __init__(self) -> None:
        self.images = 0

    def state_dict(self) -> dict[str, int]:
        """For `register_for_checkpointing`."""
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """For `register_for_checkpointing`."""
        self.images = state["images"]


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(run.glob(f"{PREFIX}*[0-9]"))


def save(accelerator: Accelerator, run: Path, images: int, keep: int) -> None:
    """Write a checkpoint beside the others, then remove all but the newest `keep`."""
    final = run / f"{PREFIX}{images:010d}"
    partial = run / f"{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        os.rename(partial, final)
        for old in checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
