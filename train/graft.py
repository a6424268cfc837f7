"""Start a network with what fits of others: the same layers, though the whole is another.

    python -m train.graft --recipe train/recipes/fdnn-tann.yaml --weights COARSE/weights --out START
    python -m train.fit --recipe train/recipes/fdnn-tann.yaml --init START --data VIEWS --out RUN

The network of the recipe is made fresh; then each `--weights` in turn gives it every parameter that
has the same name and shape. So a long training at a coarse size, where an image costs a few
milliseconds, serves the network of the full size, and a new decoder an old encoder. The tail and
head of a network for small photos go where the larger one paints its coarse photo. Averages of a
batch normalization come along. The discriminator is that of the last weights with one of its
config; else it is fresh.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

import torch
from accelerate.utils import set_seed

from face_destyle import HubModel
from face_destyle.errors import UserError
from train.console import one_line_errors
from train.recipe import Recipe, dump_recipe, load_recipe
from train.start import build, discriminator_beside, pin_networks

Tensors = dict[str, torch.Tensor]

COARSE = re.compile(r"^coarse\.\d+\.")  # of the painter of a coarse photo


def graft(recipe: Recipe, weights: list[str]) -> tuple[HubModel, HubModel, dict[str, int]]:
    """The two networks of a recipe, and how many parameters each of the weights gave.

    Args:
        recipe: what the networks are, and the seed of what is fresh in them.
        weights: names, folders or Hub ids; of two that fit, the later one is taken.

    Raises:
        UserError: no such weights, or some of which nothing fits.
    """
    set_seed(recipe.train.seed)
    network, judge = build(recipe.model), build(recipe.discriminator)
    given: dict[str, int] = {}
    for one in weights:
        source = HubModel.from_pretrained(one)
        given[one] = take_over(network, source)
        if not given[one]:
            raise UserError(f"nothing of {one} fits the {recipe.model.type} of the recipe")
        found = discriminator_beside(one)
        if found and (found.model_type, found.config) == (judge.model_type, judge.config):
            judge = found
    return network, judge, given


@torch.no_grad()
def take_over(network: torch.nn.Module, source: torch.nn.Module) -> int:
    """Copy what has the same name and shape; returns how many tensors."""
    own, found = network.state_dict(), source.state_dict()
    places = {name: name for name in found} | coarse_places(own, found)
    fitting = [
        (name, place)
        for name, place in places.items()
        if place in own and own[place].shape == found[name].shape
    ]
    for name, place in fitting:
        own[place].copy_(found[name])
    return len(fitting)


def coarse_places(own: Tensors, found: Tensors) -> dict[str, str]:
    """Where the tail and head of a source go that paints only what the network has as coarse.

    At the network's own end they have no place then: there the head of the same shape waits at
    zero to add what is finer.
    """
    if any(COARSE.match(name) for name in found):
        return {}
    ends = {COARSE.sub("", place): place for place in own if COARSE.match(place)}
    fits = all(name in found and found[name].shape == own[ends[name]].shape for name in ends)
    return ends if fits else {}


def write(out: Path, network: HubModel, judge: HubModel, recipe: Recipe) -> None:
    """Write what `train.fit --init` reads: the whole folder, or nothing.

    Raises:
        UserError: the folder is there already, or cannot be written.
    """
    if out.exists():
        raise UserError(f"{out} is there already: choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        network.save_pretrained(partial)
        judge.save_pretrained(partial / "discriminator")
        (partial / "recipe.yaml").write_text(dump_recipe(recipe))
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help="of the network that is made")
    parser.add_argument(
        "--weights", required=True, action="append", help="name, folder or Hub id; several times"
    )
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    given = parser.parse_args(argv)
    recipe = load_recipe(given.recipe, given.set)
    network, judge, counts = graft(recipe, given.weights)
    write(given.out, network, judge, pin_networks(recipe, *given.weights))
    for name, count in counts.items():
        print(f"{name} gave {count} of {len(network.state_dict())} tensors")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
