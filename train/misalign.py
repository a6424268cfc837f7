"""Turned, shifted and scaled portraits, and the alignment that undoes it (papers 2.6).

An alignment is a similarity `(2, 3)` that takes normalised coordinates of the aligned frame to
those of the portrait, as in face_destyle/models/similarity.py. Two ways lead to one: a photo is
turned before it is stylized, so that the strokes stay upright, or the portrait is turned as it
is, strokes and all.
"""

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from face_destyle import images
from face_destyle.models.similarity import invert, parameters_of, similarity

HALF = images.FACE_SIDE / 2
# A face made smaller is sampled this much finer first: its detail does not alias.
OVERSAMPLING = 1.5


@dataclass(frozen=True)
class MisalignConfig:
    """Between which bounds a face lies in its portrait."""

    angle: float = 45.0  # degrees, to either side
    scale: tuple[float, ...] = (0.8, 1.0)  # times the size that it has in the frame
    shift: float = 6.4  # pixels of the 128 frame, along x and along y: 5 %
    extra: float = 0.2  # how far a portrait that is turned is turned again, times the bounds

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale is {list(self.scale)}; use the least and the greatest, above 0"
            )
        if min(self.angle, self.shift, self.extra) < 0:
            raise ValueError("angle, shift and extra start at 0")


@dataclass(frozen=True)
class Misalignment:
    """How a face lies in its portrait.

    Attributes:
        angle: degrees, clockwise.
        scale: times the size that it has in the frame.
        x: how far its centre is shifted to the right, in pixels of the 128 frame.
        y: the same downwards.
    """

    angle: float = 0.0
    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0

    @classmethod
    def of(cls, alignment: torch.Tensor) -> "Misalignment":
        """What a `(2, 3)` alignment says."""
        return cls(*parameters_of(alignment[None].double(), images.FACE_SIDE)[0].tolist())

    def alignment(self) -> torch.Tensor:
        """The `(2, 3)` similarity, frame -> portrait, float32."""
        numbers = (math.radians(self.angle), self.scale, self.x / HALF, self.y / HALF)
        matrix = similarity(torch.tensor([numbers], dtype=torch.float64))[0].float()
        return matrix + 0.0  # the sine of no angle is -0 once it is negated


class Draw(Protocol):
    """`random.Random` and `np.random.Generator` alike."""

    def uniform(self, low: float, high: float, /) -> float:
        """A number between the two."""
        ...


def draw_misalignment(
    config: MisalignConfig, draw: Draw, around: Misalignment | None = None
) -> Misalignment:
    """Four numbers, each uniform between its bounds.

    Args:
        config: the bounds, which are kept in any case.
        draw: where the numbers come from; four are taken.
        around: draw no further than `config.extra` from this one.
    """
    bounds = (
        (-config.angle, config.angle),
        (config.scale[0], config.scale[1]),
        (-config.shift, config.shift),
        (-config.shift, config.shift),
    )
    if around is not None:
        centres = (around.angle, around.scale, around.x, around.y)
        bounds = tuple(  # type: ignore[assignment]  # four of them again
            _near(low, high, centre, config.extra)
            for (low, high), centre in zip(bounds, centres, strict=True)
        )
    return Misalignment(*(float(draw.uniform(low, high)) for low, high in bounds))


def _near(low: float, high: float, centre: float, extra: float) -> tuple[float, float]:
    reach = extra * (high - low) / 2
    centre = min(max(centre, low), high)
    return max(low, centre - reach), min(high, centre + reach)


def named_misalignment(
    config: MisalignConfig, seed: int, key: str, variant: int, angle: float | None = None
) -> Misalignment:
    """The misalignment of one variant of a photo, from its name alone: every run draws the same.

    Args:
        config: the bounds.
        seed: of the run.
        key: of the photo.
        variant: of the photo's portraits.
        angle: in degrees, in place of the drawn one, whose sign it takes.
    """
    digest = hashlib.sha256(f"{seed}/{key}/{variant}/misalignment".encode()).digest()
    drawn = draw_misalignment(config, random.Random(digest))
    if angle is None:
        return drawn
    return Misalignment(math.copysign(angle, drawn.angle), drawn.scale, drawn.x, drawn.y)


def turn_photo(context: PILImage.Image, margin: int, misalignment: Misalignment) -> PILImage.Image:
    """A photo as it would be, had the face not been aligned.

    Args:
        context: RGB, the aligned 128 x 128 face with `margin` pixels more on every side.
        margin: how much of the real surroundings there is; beyond it they are reflected.
        misalignment: how the face lies in the result.

    Returns:
        RGB, 128 x 128.
    """
    back = invert(misalignment.alignment()[None].double())[0].numpy()
    side = round(images.FACE_SIDE * OVERSAMPLING)
    # Pixels of the result, from the left upper corner of the picture -> pixels of the frame.
    turn = back[:, :2] * images.FACE_SIDE / side
    start = HALF * (back[:, 2] - back[:, :2].sum(1) + 1)
    # The furthest corner of the result decides how much is reflected; bicubic needs 2 more.
    corners = np.array([[0, 0, side, side], [0, side, 0, side]])
    reached = turn @ corners + start[:, None]
    missing = max(-reached.min(), reached.max() - images.FACE_SIDE) - margin + 2
    padding = max(0, math.ceil(missing))
    edges = ((padding, padding), (padding, padding), (0, 0))
    wide = PILImage.fromarray(np.pad(np.asarray(context), edges, "symmetric"))
    x, y = start + margin + padding
    matrix = (turn[0, 0], turn[0, 1], x, turn[1, 0], turn[1, 1], y)
    fine = wide.transform(
        (side, side), PILImage.Transform.AFFINE, matrix, PILImage.Resampling.BICUBIC
    )
    return fine.resize((images.FACE_SIDE, images.FACE_SIDE), PILImage.Resampling.LANCZOS)


def mirrored(alignment: torch.Tensor) -> torch.Tensor:
    """The alignments `(N, 2, 3)` of portraits and photos that are both mirrored: S A S."""
    return alignment * alignment.new_tensor([[1, -1, -1], [-1, 1, 1]])


def turn_portraits(portraits: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Portraits `(N, 3, S, S)` in [-1, 1], sampled through `(N, 2, 3)`: result -> portrait.

    Bicubic, not bilinear: a portrait that is turned here must not be known by its softer strokes.
    """
    grid = F.affine_grid(back, list(portraits.shape), align_corners=False)
    turned = F.grid_sample(
        portraits, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return turned.clamp(-1, 1)
