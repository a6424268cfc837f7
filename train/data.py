"""Pairs -> batches: which rows, in which order, with which changes."""

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler
from tqdm import tqdm

from face_destyle import images
from face_destyle.errors import UserError
from face_destyle.models.similarity import compose, invert
from train.augment import AugmentConfig, augment, draw, mirror
from train.editing import changed_attribute, draw_wishes, labels, stated
from train.misalign import Misalignment, draw_misalignment, mirrored, turn_portraits
from train.neighbours import Neighbours
from train.photos import load_table
from train.recipe import DataConfig

PAIR_COLUMNS = ("portrait", "photo")
PAIR_ADVICE = "a folder of pairs needs metadata.jsonl with portrait_file_name, photo_file_name"
ALIGNED = Misalignment().alignment()
MEMBERS = 3  # of a triplet


def open_pairs(
    source: str, split: str, pictures: Sequence[str] = PAIR_COLUMNS, advice: str = PAIR_ADVICE
) -> Dataset:
    """One split of a pair dataset, its pictures left as bytes.

    Args:
        source: folder, parquet folder or Hub id.
        split: of it.
        pictures: the columns that must hold pictures.
        advice: what to do where they do not.

    Raises:
        UserError: no such split, or a column without pictures.
    """
    if not source:
        raise UserError("no pairs: give --data, or data.pairs in the recipe")
    table = load_table(source)
    if split not in table:
        raise UserError(f"{source} has no split {split}; it has {', '.join(table)}")
    pairs = table[split]
    for name in pictures:
        if not isinstance(pairs.features.get(name), Image):
            raise UserError(
                f"{source} has no picture column {name}; "
                f"it has {', '.join(pairs.column_names)}: {advice}"
            )
        pairs = pairs.cast_column(name, Image(decode=False))
    return pairs


def column(pairs: Dataset, name: str, default: Any) -> list[Any]:
    """A column as a list, or `default` for every row where the dataset has none."""
    if name in pairs.column_names:
        return list(pairs[name])
    return [default] * len(pairs)


def alignments(pairs: Dataset, source: str) -> torch.Tensor:
    """How each portrait lies, `(rows, 2, 3)`, frame -> portrait; the identity where none is said.

    Raises:
        UserError: an alignment that is not six numbers.
    """
    aligned = ALIGNED.flatten().tolist()
    stored = [given or aligned for given in column(pairs, "alignment", None)]
    wrong = next((row for row, given in enumerate(stored) if len(given) != 6), None)
    if wrong is not None:
        raise UserError(f"{source}: the alignment of row {wrong} is not six numbers, row by row")
    return torch.tensor(stored, dtype=torch.float32).reshape(-1, 2, 3)


def decode(content: dict[str, Any], side: int) -> torch.Tensor:
    """The stored picture as `(3, side, side)` uint8."""
    picture = images.centre_square(images.load_picture(content["bytes"] or content["path"]))
    return images.to_pixels([picture], side)[0]


class Pairs(TorchDataset[dict[str, Any]]):
    """Training pairs with the numbers of their augmentation.

    An item is asked for by `(epoch, row)`, and everything drawn for it depends on these, the
    seed and nothing else.
    """

    def __init__(
        self, source: str, config: DataConfig, changes: AugmentConfig, seed: int, side: int
    ):
        pairs = open_pairs(source, config.split)
        styles = column(pairs, "style", "")
        variants = column(pairs, "variant", 0)
        unknown = sorted(set(config.styles) - set(styles))
        if unknown:
            raise UserError(f"{source} has no style {unknown[0]}; it has {', '.join(set(styles))}")
        self.rows = [
            row
            for row, (style, variant) in enumerate(zip(styles, variants, strict=True))
            if (not config.styles or style in config.styles)
            and (not config.variants or variant < config.variants)
        ][: config.limit or None]
        if not self.rows:
            raise UserError(f"{source}: no pairs of split {config.split} are left to train on")
        self.pairs, self.changes, self.seed, self.side = pairs, changes, seed, side
        self.config, self.alignments = config, alignments(pairs, source)
        self.labels = labels(pairs, source)
        labelled = set(stated(self.labels).tolist())
        self.labelled = [row for row in self.rows if row in labelled]
        keys = column(pairs, "photo_key", None)
        self.photo_of = {row: row if keys[row] is None else keys[row] for row in self.rows}
        # A mixture of portraits that lie differently would show two faces.
        self.siblings: dict[Any, list[int]] = {}
        for row in self.rows:
            self.siblings.setdefault(self._pose(row), []).append(row)
        self.cache: dict[Any, torch.Tensor] = {}
        if config.cache:
            self._fill_cache()
        self.neighbours = self._find_neighbours()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
        epoch, index = position
        row = self.rows[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        siblings = self.siblings[self._pose(row)]
        second = siblings[rng.integers(len(siblings))]
        other = self.rows[rng.integers(len(self.rows))]
        return {
            "portrait": self._picture(row, "portrait"),
            "second": self._picture(second if self.changes.blend else row, "portrait"),
            "other": self._picture(other if self.changes.strokes else row, "portrait"),
            "photo": self._picture(row, "photo"),
            "draws": draw(self.changes, rng),
            "alignment": self.alignments[row],
            "turned": self._turned(row, rng),
            **self._with_edited(row, self._wishes(row, rng)),
        }

    def _pose(self, row: int) -> tuple[Any, ...]:
        return self.photo_of[row], *self.alignments[row].flatten().tolist()

    def _turned(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        """The alignment that the portrait shall have in the batch, `(2, 3)`.

        Of an aligned portrait it is drawn anew. A portrait that is turned already has its strokes
        upright, and is turned a little further: never out of the bounds.
        """
        alignment = self.alignments[row]
        if not self.config.turned:
            return alignment
        chance = rng.random()
        around = None if torch.equal(alignment, ALIGNED) else Misalignment.of(alignment)
        drawn = draw_misalignment(self.config.turns, rng, around)
        return drawn.alignment() if chance < self.config.turned else alignment

    def _wishes(self, row: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        others = self.labelled or [row]
        other = others[rng.integers(len(others))]
        return draw_wishes(self.labels[row], self.labels[other], self.config.attributes, rng)

    def _find_neighbours(self) -> Neighbours | None:
        """Every labelled photo once; None where the recipe wants no edited ones."""
        count = self.config.attributes.neighbours
        if not count or not self.labelled:
            return None
        rows = list({self.photo_of[row]: row for row in self.labelled}.values())
        photos = torch.stack([self._picture(row, "photo") for row in rows])
        return Neighbours(photos, self.labels[rows], count)

    def _with_edited(self, row: int, wishes: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The wishes, and the photo as it would be with the flipped attribute.

        Where no photo shows what that looks like, nothing is flipped.
        """
        if not self.neighbours:
            return wishes
        photo, flipped = self._picture(row, "photo"), wishes["flipped"]
        if not len(stated(flipped[None])):
            return wishes | {"edited": photo}
        attribute, present = changed_attribute(wishes["attributes"], flipped)
        strength = self.config.attributes.strength
        edited = self.neighbours.changed(photo, attribute, present, strength)
        if edited is None:
            return wishes | {"flipped": torch.full_like(flipped, math.nan), "edited": photo}
        return wishes | {"edited": edited}

    def _fill_cache(self) -> None:
        """Decode everything once, in the order of the file: random reads are far slower."""
        with ThreadPoolExecutor() as pool:
            for name in PAIR_COLUMNS:
                wanted = {self._key(row, name): row for row in self.rows}
                stored = self.pairs.select_columns([name])
                read = functools.partial(self._read, stored, name)
                pictures = pool.map(read, wanted.values())
                bar = tqdm(pictures, total=len(wanted), unit="picture", desc=f"decoding {name}s")
                self.cache |= zip(wanted, bar, strict=True)

    def _key(self, row: int, name: str) -> tuple[str, Any]:
        return (name, self.photo_of[row]) if name == "photo" else (name, row)

    def _read(self, stored: Dataset, name: str, row: int) -> torch.Tensor:
        return decode(stored[row][name], self.side)

    def _picture(self, row: int, name: str) -> torch.Tensor:
        cached = self.cache.get(self._key(row, name))
        return self._read(self.pairs, name, row) if cached is None else cached


class Positions(Sampler[tuple[int, int]]):
    """`(epoch, row)` for every image of a run from `start` on, shuffled anew each epoch."""

    def __init__(self, rows: int, start: int, end: int, seed: int):
        self.rows, self.start, self.end, self.seed = rows, start, end, seed

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for image in range(self.start, self.end):
            if image // self.rows != epoch:
                epoch = image // self.rows
                order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
            yield epoch, int(order[image % self.rows])


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        portraits: `(N, 3, S, S)` in [-1, 1].
        photos: the same faces, aligned, `(N, 3, S, S)` in [-1, 1].
        alignment: how they lie in the portraits: `(N, 2, 3)`, frame -> portrait.
        attributes: what is asked for, as the faces are: `(N, 18)` from 0 to 1, nan for unknown.
        wrong: of other faces, as much known; nan where that is no difference.
        flipped: as asked but for one attribute; nan where no second photo is made.
        edited: the photos as they would be then, as far as alike ones show.
        triplets: whether the rows are anchors, then as many positives, then as many negatives.
    """

    portraits: torch.Tensor
    photos: torch.Tensor
    alignment: torch.Tensor
    attributes: torch.Tensor | None = None
    wrong: torch.Tensor | None = None
    flipped: torch.Tensor | None = None
    edited: torch.Tensor | None = None
    triplets: bool = False

    def parts(self, count: int) -> list["Batch"]:
        """The batch as `count` batches of as many rows each; triplets stay whole."""
        if count == 1:
            return [self]
        groups = MEMBERS if self.triplets else 1
        tensors = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        cut = {
            name: value.unflatten(0, (groups, count, -1)).transpose(0, 1).flatten(1, 2)
            for name, value in tensors.items()
            if isinstance(value, torch.Tensor)
        }
        return [
            replace(self, **{name: value[number] for name, value in cut.items()})
            for number in range(count)
        ]


def to_batch(item: dict[str, Any], device: torch.device) -> Batch:
    """Collated items -> changed portraits, and what is to be learnt of them."""
    draws = {name: value.to(device) for name, value in item["draws"].items()}
    portraits, seconds, others, photos = (
        mirror(images.from_uint8(item[name].to(device)), draws)
        for name in ("portrait", "second", "other", "photo")
    )
    portraits = augment(portraits, seconds, others, draws)
    flipped = draws["mirror"].bool()[:, None, None]
    premade, alignment = (
        torch.where(flipped, mirrored(matrix), matrix)
        for matrix in (item["alignment"].to(device), item["turned"].to(device))
    )
    moved = (premade != alignment).flatten(1).any(1)
    if moved.any():
        # result -> frame -> portrait as it is stored
        back = compose(premade[moved], invert(alignment[moved]))
        portraits[moved] = turn_portraits(portraits[moved], back)
    asked, wrong, wished = (item[name].to(device) for name in ("attributes", "wrong", "flipped"))
    edited = item.get("edited")
    if edited is not None:
        edited = mirror(images.from_uint8(edited.to(device)), draws)
    return Batch(portraits, photos, alignment, asked, wrong, wished, edited)
