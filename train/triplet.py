"""Triplets of heads, and the loss that draws together the codes of the two of one person.

A triplet (papers 4.4, 4.5) is a turned head (anchor), the same person's own frontal face
(positive) and another person's frontal face (negative). All three are made tiny, each by its own
draw, and all three are to become their own frontal photo. It is made of the views of `train.views`.
With `data.views.negative: turned` the other person's head is turned too: most of what is to be
learnt is in turned heads, which are a third of a batch otherwise.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import default_collate
from tqdm import tqdm

from face_destyle import images
from face_destyle.errors import UserError
from train.augment import mirror
from train.data import MEMBERS, Batch, decode, open_pairs
from train.recipe import DataConfig
from train.tiny import draw_tiny, make_tiny

VIEW_COLUMNS = ("view", "photo")
# Views are kept so many times finer than the tiny photos: a reduction leaves nothing of what this
# loses, and at 16 x 16 it is a quarter of the memory and of the work of turning them.
FINER = 4


@dataclass(frozen=True)
class TripletLoss:
    """A hinge on squared distances of latent codes (papers 4.4).

    The distance is a mean over the numbers of a code, so that a weight means the same with codes
    of every width; the codes are not normalised.

    Attributes:
        weight: of the loss.
        margin: how much nearer the own frontal code shall be than the other person's; alpha.
        symmetric: False: only the anchor moves, and only towards its own frontal code, which is
            what the authors' code does. True: all three codes move, by the hinge as it is written.
    """

    weight: float = 1e-4
    margin: float = 0.0
    symmetric: bool = False

    def __call__(self, codes: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """The weighted part, `triplet`.

        Args:
            codes: `(3 N, D)`: those of the anchors, then the positives, then the negatives.

        Raises:
            UserError: the network returned no codes.
        """
        if codes is None:
            raise UserError("the network returns no latent code: set loss.triplet to 0")
        anchors, positives, negatives = codes.float().chunk(MEMBERS)
        if self.symmetric:
            own, other = distances(anchors, positives), distances(anchors, negatives)
        else:
            own = distances(anchors, positives.detach())
            other = distances(anchors, negatives).detach()
        hinge = (own - other + self.margin).clamp_min(0)
        return {"triplet": self.weight * hinge.mean()}


def distances(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Squared distances of codes `(N, D)`, as a mean over their numbers: `(N,)`."""
    return (one - two).square().mean(1)


class Triplets(TorchDataset[dict[str, Any]]):
    """Triplets of views with the numbers that make them tiny.

    An item is asked for by `(epoch, row)`, and everything drawn for it depends on these, the seed
    and nothing else. An epoch has one item for each turned view.

    Args:
        config: the views, the split, how they are made tiny and what is to become of them.
        mirrored: whether a half of the triplets is mirrored.
        seed: of the run.
        sides: of the tiny photos, and of the pictures that the network gives.

    Raises:
        UserError: no views, none that is left of a frontal face, or all of one person.
    """

    def __init__(self, config: DataConfig, mirrored: bool, seed: int, sides: tuple[int, int]):
        source = f"{config.pairs}, split {config.split}"
        self.views = open_views(config.pairs, config.split)
        yaws, self.keys, people = (
            list(self.views[name]) for name in ("yaw", "photo_key", "identity")
        )
        self.people = dict(zip(self.keys, people, strict=True))
        self.frontal = {key: row for row, key in enumerate(self.keys) if yaws[row] == 0}
        widest = config.views.widest
        self.rows = [
            row
            for row, (yaw, key) in enumerate(zip(yaws, self.keys, strict=True))
            if key in self.frontal and (yaw == 0 if widest == 0 else 0 < abs(yaw) <= widest)
        ][: config.limit or None]
        if not self.rows:
            raise UserError(f"{source}: no views of frontal faces within {widest:g} degrees")
        self.faces = list(dict.fromkeys(self.keys[row] for row in self.rows))
        if len({self.people[key] for key in self.faces}) < 2:
            raise UserError(f"{source}: one person alone; triplets need two")
        self.config, self.mirrored, self.seed = config.views, mirrored, seed
        self.view_side, self.photo_side = min(FINER * sides[0], images.FACE_SIDE), sides[1]
        self.cache: dict[Any, torch.Tensor] = {}
        if config.cache:
            self._fill_cache()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
        epoch, index = position
        rng = np.random.default_rng((self.seed, epoch, index))
        row = self.rows[index]
        key = self.keys[row]
        shown = (row, self.frontal[key], self._another_person(self.people[key], rng))
        draws = [draw_tiny(self.config.tiny, rng) for _ in shown]
        return {
            "views": torch.stack([self._picture("view", self.view_side, one) for one in shown]),
            "photos": torch.stack([self._picture(*self._target(one)) for one in shown]),
            "draws": default_collate(draws),
            "mirror": np.float32(self.mirrored and rng.random() < 0.5),
        }

    def _target(self, row: int) -> tuple[str, int, int]:
        """Column, side and row of what shall become of a view; of a photo the row kept once."""
        if self.config.target == "view":
            return "view", self.photo_side, row
        return "photo", self.photo_side, self.frontal[self.keys[row]]

    def _another_person(self, person: str, rng: np.random.Generator) -> int:
        """The row of a view of somebody else, frontal or turned."""
        while True:
            if self.config.negative == "turned":
                row = self.rows[rng.integers(len(self.rows))]
            else:
                row = self.frontal[self.faces[rng.integers(len(self.faces))]]
            if self.people[self.keys[row]] != person:
                return row

    def _fill_cache(self) -> None:
        """Decode everything once, in the order of the file: random reads are far slower."""
        shown = {*self.rows, *(self.frontal[key] for key in self.faces)}
        wanted = {("view", self.view_side, row) for row in shown}
        wanted |= {self._target(row) for row in shown}
        ordered = sorted(wanted)
        columns = {name: self.views.select_columns([name]) for name in VIEW_COLUMNS}
        with ThreadPoolExecutor() as pool:
            pictures = pool.map(lambda one: self._read(columns[one[0]], *one), ordered)
            bar = tqdm(pictures, total=len(ordered), unit="picture", desc="decoding views")
            self.cache |= zip(ordered, bar, strict=True)

    def _picture(self, name: str, side: int, row: int) -> torch.Tensor:
        cached = self.cache.get((name, side, row))
        return self._read(self.views, name, side, row) if cached is None else cached

    @staticmethod
    def _read(stored: Dataset, name: str, side: int, row: int) -> torch.Tensor:
        return decode(stored[row][name], side)


def open_views(source: str, split: str) -> Dataset:
    """One split of what `train.views` made, its pictures left as bytes.

    Raises:
        UserError: no such split, or columns are missing; named.
    """
    views = open_pairs(source, split, VIEW_COLUMNS, "make views by train.views")
    missing = [name for name in ("yaw", "photo_key", "identity") if name not in views.column_names]
    if missing:
        raise UserError(f"{source} has no column {missing[0]}: make views by train.views")
    return views


def to_triplets(item: dict[str, Any], device: torch.device, side: int) -> Batch:
    """Collated items -> the anchors, then the positives, then the negatives, of this side."""
    views, photos = (
        images.from_uint8(_by_member(item[name]).to(device)) for name in ("views", "photos")
    )
    flips = {"mirror": item["mirror"].repeat(MEMBERS).to(device)}
    draws = {name: _by_member(values).to(device) for name, values in item["draws"].items()}
    portraits = make_tiny(mirror(views, flips), draws, side)
    return Batch(portraits, mirror(photos, flips), draws["alignment"], triplets=True)


def _by_member(values: torch.Tensor) -> torch.Tensor:
    """`(N, 3, ...)` -> `(3 N, ...)`, the first members first."""
    return values.transpose(0, 1).flatten(0, 1)
