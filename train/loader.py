"""The loader of a run: what it learns from, in batches that processes share."""

from typing import Any

from accelerate import Accelerator
from torch.utils.data import DataLoader

from face_destyle.errors import UserError
from train.data import MEMBERS, Pairs, Positions
from train.recipe import Recipe
from train.triplet import Triplets


def check_data(recipe: Recipe, sides: tuple[int, int]) -> None:
    """Raise a UserError where views are learnt from and should not be, or the reverse."""
    views, size = recipe.data.views.use, recipe.train.batch_size
    if views and size % MEMBERS:
        raise UserError(f"train.batch_size is {size}: views come in triplets, use a multiple of 3")
    if not views and sides[0] != sides[1]:
        raise UserError(f"{recipe.model.type} learns from views: set data.views.use to true")
    if not views and recipe.loss.triplet:
        raise UserError("loss.triplet needs views: set data.views.use to true, or it to 0")


def check_shares(recipe: Recipe, processes: int) -> None:
    """Raise a UserError where a batch cannot be shared out evenly."""
    config = recipe.train
    shares = processes * config.accumulate
    if config.batch_size % (shares * (MEMBERS if recipe.data.views.use else 1)):
        what = "triplets" if recipe.data.views.use else "images"
        raise UserError(
            f"train.batch_size is {config.batch_size}: {processes} processes with "
            f"train.accumulate {config.accumulate} need a multiple of {shares} {what}"
        )


def make_loader(
    recipe: Recipe, accelerator: Accelerator, start: int, sides: tuple[int, int]
) -> tuple[Any, int]:
    """Batches from image `start` to the end of the run, and the images of an epoch.

    Args:
        recipe: of the run.
        accelerator: of the run.
        start: images seen before.
        sides: of the portraits that the network takes, and of the photos that it gives.

    Raises:
        UserError: data that the network or the batch does not fit.
    """
    config = recipe.train
    check_data(recipe, sides)
    check_shares(recipe, accelerator.num_processes)
    end = config.images // config.batch_size * config.batch_size
    pairs: Triplets | Pairs
    if recipe.data.views.use:
        each = MEMBERS  # images of an item
        pairs = Triplets(recipe.data, recipe.augment.mirror, config.seed, sides)
    else:
        each = 1
        pairs = Pairs(recipe.data.pairs, recipe.data, recipe.augment, config.seed, sides[0])
    loader = DataLoader(
        pairs,
        batch_size=config.batch_size // each,
        sampler=Positions(len(pairs), start // each, end // each, config.seed),
        num_workers=recipe.data.workers,
        persistent_workers=False,
        pin_memory=accelerator.device.type == "cuda",
    )
    return accelerator.prepare(loader), each * len(pairs)
