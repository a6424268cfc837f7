"""Attributes in training: what is asked for, what is wrong, what is wished otherwise.

A row of a pair dataset has labels. Of these a part is kept from the networks, so that they learn
to do without (`keep_some`); another face's are wrong for it (`wrong_labels`); and one attribute is
flipped for a second photo of the same face (`flip_one`), for which there is no true photo: a
frozen classifier says whether the wish was obeyed (`ObedienceLoss`).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F

from face_destyle.attributes import COUNT, GROUPS, NAMES, UNKNOWN, Vector, with_attribute
from face_destyle.errors import UserError
from face_destyle.models.classifier import AttributeClassifier
from train.losses import IdentityLoss, attributes_loss
from train.recipe import AttributesConfig

# CelebA's own files have -1 where others have 0 or False.
VALUES = {None: math.nan, 1: 1.0, 0: 0.0, -1: 0.0}
HAIR_COLOURS = GROUPS["hair colour"]


def labels(pairs: Dataset, source: str) -> torch.Tensor:
    """The attributes of every row, `(rows, 18)`: 1 with, 0 without, nan where nothing is said.

    They are columns with CelebA's names, or fields of one column `attributes`.

    Raises:
        UserError: a value that is none of True, False, 1, 0, -1 and null.
    """
    prefix = ""
    if "attributes" in pairs.column_names:
        # Flat columns are read without a dictionary for each row.
        pairs, prefix = pairs.select_columns(["attributes"]).flatten(), "attributes."
    found = torch.full((len(pairs), COUNT), math.nan)
    for place, name in enumerate(NAMES):
        if prefix + name in pairs.column_names:
            # A slice is read at once, an iteration row by row.
            values = [None if value != value else value for value in pairs[prefix + name][:]]
            wrong = next((row for row, value in enumerate(values) if value not in VALUES), None)
            if wrong is not None:
                raise UserError(
                    f"{source}: {name} of row {wrong} is {values[wrong]!r}; "
                    "use True, False or null (or 1, 0, -1)"
                )
            found[:, place] = torch.tensor([VALUES[value] for value in values])
    return found


def keep_some(vector: Vector, config: AttributesConfig, rng: np.random.Generator) -> Vector:
    """A vector with a part of it unknown."""
    everything, chance, each = rng.random(), rng.random() * config.drop_each, rng.random(COUNT)
    if everything < config.drop_all:
        return UNKNOWN
    return tuple(
        math.nan if draw < chance else value for value, draw in zip(vector, each, strict=True)
    )


def wrong_labels(asked: Vector, other: Vector) -> Vector:
    """What is asked for, with the values of another face; all unknown where it asks the same.

    As much is known of the one as of the other, which would tell them apart otherwise.
    """
    wrong = tuple(
        value if math.isnan(value) or math.isnan(another) else another
        for value, another in zip(asked, other, strict=True)
    )
    same = all(one == two or math.isnan(one) for one, two in zip(asked, wrong, strict=True))
    return UNKNOWN if same else wrong


def flip(asked: Vector, labelled: Vector, name: str, other: str = "") -> Vector:
    """What is asked for, with the attribute `name` as the face has it not.

    Args:
        asked: what is wished besides.
        labelled: how the face is.
        name: of the attribute; unknown of the face, it is asked for.
        other: the colour that hair of the colour `name` shall have instead.
    """
    present = labelled[NAMES.index(name)] == 1
    if present and name in HAIR_COLOURS:
        # Hair that is not black has another colour: to say so is the whole wish.
        return with_attribute(asked, other, True)
    return with_attribute(asked, name, not present)


def flip_one(
    asked: Vector, labelled: Vector, config: AttributesConfig, rng: np.random.Generator
) -> Vector:
    """What is asked for, with one attribute flipped, each alike likely; or all unknown.

    The latter for as many as the recipe leaves as they are, and where nothing is known.
    """
    chance, name = rng.random(), NAMES[rng.integers(COUNT)]
    others = [colour for colour in HAIR_COLOURS if colour != name]
    other = others[rng.integers(len(others))]
    if chance >= config.flip or math.isnan(labelled[NAMES.index(name)]):
        return UNKNOWN
    return flip(asked, labelled, name, other)


def changed_attribute(asked: torch.Tensor, wished: torch.Tensor) -> tuple[int, bool]:
    """Which attribute `flip` has changed between two `(18,)`, and whether it is there now.

    One that is wished for takes those away that it excludes, such as another colour of hair.
    """
    present = (wished == 1) & (asked != 1)
    found = present if present.any() else (wished == 0) & (asked != 0)
    return int(found.nonzero()[0]), bool(present.any())


def draw_wishes(
    labelled: torch.Tensor, other: torch.Tensor, config: AttributesConfig, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """What is asked of an item: `attributes`, `wrong` and `flipped`, each `(18,)`.

    Args:
        labelled: the item's own labels `(18,)`.
        other: those of another face.
        config: how much is kept back and flipped.
        rng: the item's own.
    """
    own = tuple(labelled.tolist())
    asked = keep_some(own, config, rng)
    wishes = {
        "attributes": asked,
        "wrong": wrong_labels(asked, tuple(other.tolist())),
        "flipped": flip_one(asked, own, config, rng),
    }
    return {name: torch.tensor(vector) for name, vector in wishes.items()}


def stated(vectors: torch.Tensor | None) -> torch.Tensor:
    """The numbers of those of `(N, 18)` that say anything: `(K,)`."""
    if vectors is None:
        return torch.empty(0, dtype=torch.long)
    return (~vectors.isnan()).any(1).nonzero().squeeze(1)


@dataclass(frozen=True)
class Edited:
    """Second photos of a part of a batch.

    Attributes:
        rows: which of the batch, `(K,)`.
        asked: what was asked of the first ones, `(K, 18)`.
        wished: what is asked of these.
        photos: with them, `(K, 3, H, W)`, not clamped.
    """

    rows: torch.Tensor
    asked: torch.Tensor
    wished: torch.Tensor
    photos: torch.Tensor

    def detached(self) -> "Edited":
        """The same, cut off from the generator."""
        return replace(self, photos=self.photos.detach())


@dataclass(frozen=True)
class ReadingLoss:
    """Cross entropy of the attributes that a network reads in the portraits, where they are known.

    Attributes:
        weight: of the mean over all that is known in the batch.
    """

    weight: float = 1.0

    def __call__(self, read: torch.Tensor | None, true: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weighted part for logits `(N, 18)` and the attributes, nan for unknown: `reading`.

        Raises:
            UserError: the network reads none.
        """
        if read is None:
            raise UserError("the network reads no attributes: set loss.reading to 0")
        return {"reading": self.weight * attributes_loss(read.float(), true)}


@dataclass(frozen=True)
class EditedLoss:
    """Squared error of what a flipped attribute changes, relative to how much it changes.

    Of the change alone: what a portrait leaves open of the photo itself is twenty times larger, and
    would drown it. Relative: gray hair changes twelve times as much as a smile, which would be
    learnt last.

    Attributes:
        weight: of the mean over the batch.
    """

    weight: float = 1.0

    FLOOR: ClassVar[float] = 0.01  # of a mean square change in [-1, 1]: smaller ones are half noise

    def __call__(
        self, edited: Edited, fake: torch.Tensor, change: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The weighted part: `edited`.

        Args:
            edited: the edited photos of a part of the batch.
            fake: the unedited ones of the whole, `(N, 3, H, W)`.
            change: what there is between the two, `(K, 3, H, W)`.
        """
        away = edited.photos - fake[edited.rows].detach() - change
        sizes = change.square().mean((1, 2, 3)) + self.FLOOR
        errors = away.square().mean((1, 2, 3)) / sizes
        return {"edited": self.weight * errors.sum() / len(fake)}


class ObedienceLoss:
    """Cross entropy of what a frozen classifier reads in edited photos against the wish.

    What was changed and what else was asked for weigh the same, however many they are: otherwise
    the many attributes to be kept would drown the one to be changed.

    Args:
        judge: reads aligned faces. Its decisions are those at its thresholds.
        weight: of each of the two parts.
        identity: how like the unedited photo the edited one shall be; None for not at all.
        pixel: weight of the squared difference to the unedited photo: what is local is cheap.
    """

    def __init__(
        self,
        judge: AttributeClassifier,
        weight: float,
        identity: IdentityLoss | None = None,
        pixel: float = 0.0,
    ):
        self.judge = judge.requires_grad_(False).eval()
        self.weight, self.identity, self.pixel = weight, identity, pixel
        parameter = next(judge.parameters())
        self.borders = torch.tensor(judge.config.thresholds).logit().to(parameter)

    def __call__(self, edited: Edited, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted parts, each a mean over the batch.

        Args:
            edited: the edited photos of a part of the batch.
            fake: the unedited ones of the whole, `(N, 3, 128, 128)` in [-1, 1].
        """
        before = fake[edited.rows].detach()
        read = in_colours_of(edited.photos, before).clamp(-1, 1)
        margins = self.judge(read).float() - self.borders
        known = ~edited.wished.isnan()
        # An attribute that was unknown and is asked for now is a change too: nan equals nothing.
        changed = known & (edited.wished != edited.asked)
        targets = edited.wished.nan_to_num()
        entropy = F.binary_cross_entropy_with_logits(margins, targets, reduction="none")
        parts = {
            "obedience": self.weight * _row_means(entropy, changed).sum() / len(fake),
            "obedience_kept": self.weight * _row_means(entropy, known & ~changed).sum() / len(fake),
        }
        if self.identity:
            like = self.identity(edited.photos, before)["identity"]
            parts["obedience_identity"] = like * len(edited.rows) / len(fake)
        if self.pixel:
            squared = (edited.photos - before).square().mean((1, 2, 3)).sum() / len(fake)
            parts["obedience_pixel"] = self.pixel * squared
        return parts


def in_colours_of(photos: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Photos `(N, 3, H, W)` with the mean and deviation that the channels of others have.

    A cast over the whole photo is the first thing that a generator finds to please a classifier:
    blue faces read as grey hair, or as a moustache. Taken away again, it earns nothing.
    """
    places = (2, 3)
    # Bounded before the root, which has no slope at 0.
    variances = [x.var(places, keepdim=True).clamp(min=1e-4) for x in (photos, others)]
    centred = photos - photos.mean(places, keepdim=True)
    return centred * (variances[1] / variances[0]).sqrt() + others.mean(places, keepdim=True)


def _row_means(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Means over the chosen columns of each row; 0 where none is."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp(min=1)
