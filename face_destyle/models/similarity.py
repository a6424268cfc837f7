"""Similarity transforms of square feature maps: rotation, one scale for both axes, shift.

A similarity is a matrix `(N, 2, 3)` that takes normalised coordinates `(x, y)` of the output (the
frame) to those of the input. -1 and 1 are the outer edges of the map, not the centres of its
outer pixels (`align_corners=False`), so one matrix holds at every size of a square map. y points
down: at a positive angle the face in the input is turned clockwise.

All of it is plain tensor work, differentiable, in float32 or better: in bfloat16 a position near
the edge is known to a quarter of a pixel of a 64 x 64 map.
"""

import contextlib
import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from face_destyle.models.layers import ConvBlock, Norm

Padding = Literal["border", "reflection", "zeros"]

# Angle in radians, scale, shift in half sides. The authors start at (1, 1, 0, 0); in the package
# that they use the first number is an angle too, so this is a turn of 57 degrees (papers 2.3).
NEUTRAL = (0.0, 1.0, 0.0, 0.0)
LAST_SIDE = 4  # of the map that the localisation network ends in


def similarity(parameters: torch.Tensor) -> torch.Tensor:
    """Matrices `(N, 2, 3)` of angle in radians, scale and shift (x, y) in half sides, `(N, 4)`."""
    angle, scale, x, y = parameters.unbind(1)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    return torch.stack([cosine, -sine, x, sine, cosine, y], 1).reshape(-1, 2, 3)


def parameters_of(matrix: torch.Tensor, side: int = 128) -> torch.Tensor:
    """What matrices `(N, 2, 3)` mean, for people: `(N, 4)`.

    Returns:
        The angle in degrees in (-180, 180], the scale (the face in the input is so many times as
        large as in the frame) and the shift of the centre (x, y) in pixels of a map of `side`.
    """
    cosine, sine = matrix[:, 0, 0], matrix[:, 1, 0]
    angle = torch.atan2(sine, cosine) * (180 / math.pi)
    shift = matrix[:, :, 2] * (side / 2)
    return torch.cat([torch.stack([angle, torch.hypot(cosine, sine)], 1), shift], 1)


def identity(count: int, like: torch.Tensor) -> torch.Tensor:
    """The similarity that changes nothing, `(count, 2, 3)`, on the device of `like`."""
    neutral = like.new_tensor(NEUTRAL, dtype=_exact(like))
    return similarity(neutral.expand(count, 4))


def compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Matrices of `x -> outer(inner(x))`; all `(N, 2, 3)`.

    A map that was warped by `outer`, and what came of it by `inner`, is the first map warped by
    this one.
    """
    # Not by a matrix product, which autocast would round to bfloat16.
    product = (outer[:, :, :2, None] * inner[:, None, :, :]).sum(2)
    return torch.cat([product[:, :, :2], product[:, :, 2:] + outer[:, :, 2:]], 2)


def invert(matrix: torch.Tensor) -> torch.Tensor:
    """The similarities `(N, 2, 3)` that undo these: input -> frame."""
    # A similarity's linear part is a rotation times a scale: its inverse needs no solver.
    turn, shift = matrix[:, :, :2], matrix[:, :, 2]
    back = turn.transpose(1, 2) / turn[:, :, 0].square().sum(1)[:, None, None]
    return torch.cat([back, -(back * shift[:, None, :]).sum(2, keepdim=True)], 2)


def transform(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Where points `(P, 2)` of the frame lie in each input: `(N, P, 2)`, all normalised."""
    return (matrix[:, None, :, :2] * points[:, None, :]).sum(3) + matrix[:, None, :, 2]


def warp(features: torch.Tensor, matrix: torch.Tensor, padding: Padding = "border") -> torch.Tensor:
    """Sample maps `(N, C, S, S)` bilinearly through `(N, 2, 3)`; the shape and dtype stay.

    Args:
        features: feature maps, or pictures.
        matrix: from coordinates of the result to coordinates of `features`.
        padding: what lies outside. The outermost values go on by default: zeros would draw an
            edge round the face that no portrait has, reflection a second piece of the face.
    """
    with full_precision(features):
        grid = F.affine_grid(matrix, list(features.shape), align_corners=False)
        sampled = F.grid_sample(
            features.to(grid.dtype), grid, padding_mode=padding, align_corners=False
        )
    return sampled.to(features.dtype)


def full_precision(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """A block in which autocast, where it is on, does not round to half precision."""
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def _exact(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class SimilarityTransformer(nn.Module):
    """A spatial transformer (Jaderberg et al., 2015) of four numbers (papers 2.3).

    A localisation network looks at the whole map and says how it is turned, scaled and shifted;
    the map is sampled accordingly. It starts as the identity.

    Args:
        channels: of the maps.
        side: of the maps: 4 times a power of two.
        widths: channels of the layers of the localisation network, each of which halves the map,
            the last to 4 x 4. A smaller map takes as many of the last ones as it needs.
        full_width: of the full layer.
        pool: the authors' way: every layer works at full size and is pooled, and a valid 3x3
            convolution comes before the full layer.
        norm: of the layers.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        widths: tuple[int, ...],
        full_width: int,
        pool: bool = False,
        norm: Norm = "instance",
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths[len(widths) - halvings(side, widths) :]:
            layers.append(ConvBlock(channels, width, 3, 1 if pool else 2, norm, 0.0))
            if pool:
                layers.append(nn.MaxPool2d(2))
            channels = width
        last = LAST_SIDE
        if pool:
            layers.append(nn.Conv2d(channels, channels, 3))
            last -= 2
        self.layers = nn.Sequential(*layers)
        self.full = nn.Linear(channels * last * last, full_width)
        self.activation = nn.ReLU()
        self.last = nn.Linear(full_width, len(NEUTRAL))
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor(NEUTRAL))

    def localise(self, features: torch.Tensor) -> torch.Tensor:
        """How maps `(N, C, S, S)` lie: matrices `(N, 2, 3)`, frame -> features."""
        hidden = self.activation(self.full(self.layers(features).flatten(1)))
        with full_precision(features):
            # The four numbers too: half precision knows a scale near 1 to 0.004 only.
            dtype = _exact(features)
            weight, bias = self.last.weight.to(dtype), self.last.bias.to(dtype)
            return similarity(F.linear(hidden.to(dtype), weight, bias))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps `(N, C, S, S)` -> the same maps aligned, and the matrices `(N, 2, 3)`."""
        matrix = self.localise(features)
        return warp(features, matrix), matrix


def halvings(side: int, widths: tuple[int, ...]) -> int:
    """How many layers bring a map of `side` to 4 x 4.

    Raises:
        ValueError: no number of halvings does, or there are fewer widths than it takes.
    """
    count = max(side // LAST_SIDE, 1).bit_length() - 1
    if LAST_SIDE * 2**count != side or not 0 < count <= len(widths):
        sizes = ", ".join(str(LAST_SIDE * 2 ** (n + 1)) for n in range(len(widths)))
        raise ValueError(
            f"{len(widths)} localisation widths make transformers at {sizes or 'no size'}, "
            f"not at {side}"
        )
    return count
