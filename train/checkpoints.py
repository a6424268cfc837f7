"""The folder of a run: of one recipe, with checkpoints that are complete or absent."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from accelerate import Accelerator

from face_destyle.configs import config_from_dict
from face_destyle.errors import UserError
from train.recipe import Recipe

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


def last_checkpoint(run: Path) -> str:
    """The newest complete checkpoint, for a message; "none" where there is none."""
    return str([None, *checkpoints(run)][-1] or "none")


def save(accelerator: Accelerator, run: Path, images: int, keep: int) -> None:
    """Write a checkpoint beside the others, then remove all but the newest `keep`.

    One of as many images is the same, as resuming is exact, and is left as it is.
    """
    final = run / f"{PREFIX}{images:010d}"
    if final.is_dir():
        return
    partial = run / f"{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.rename(partial, final)
        for old in checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def open_run(run: Path, recipe: Recipe, accelerator: Accelerator) -> None:
    """Claim the folder for this recipe, or check that it holds a run of the same.

    Raises:
        UserError: the folder holds something else.
    """
    description = json.dumps(asdict(recipe), indent=2)
    path = run / "recipe.json"
    with accelerator.main_process_first():
        if run.is_file():
            raise UserError(f"{run} is a file: choose another --out")
        if path.is_file():
            if not same_recipe(path, recipe):
                raise UserError(f"{run} holds a run of another recipe: choose another --out")
        elif run.exists() and any(run.iterdir()):
            raise UserError(f"{run} is not empty and holds no run: choose another --out")
        else:
            run.mkdir(parents=True, exist_ok=True)
            path.write_text(description)


def same_recipe(path: Path, recipe: Recipe) -> bool:
    """Whether a run's recipe.json says the same; what it does not mention has its default."""
    try:
        stored = dict(json.loads(path.read_text()))
        found = config_from_dict(Recipe, stored, str(path))
    except (ValueError, TypeError, UserError):  # no JSON, no mapping, other keys
        return False
    if "earlier_sha256" not in stored.get("loss", {}):  # not told when the run began
        recipe = replace(recipe, loss=replace(recipe.loss, earlier_sha256=()))
    return bool(found == recipe)
