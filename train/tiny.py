"""Tiny photos of faces as they are found: turned in the plane, reduced, some with noise and JPEG.

A face of the aligned frame is rotated, shifted and scaled, reduced to 16 x 16 with an antialiased
filter (papers 4.6), and in a part of the cases gets sensor noise and the blocks of a JPEG file of
which it is a small piece. Every number is drawn from the generator that is given, so that a run
that is resumed sees the same pictures.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from face_destyle.models.similarity import invert
from train.misalign import MisalignConfig, draw_misalignment, turn_portraits

SIDE = 16
BLOCK = 8
GRID = 2 * BLOCK  # where a block of chroma at half size begins
# Annex K of the JPEG standard (ITU-T T.81), row by row.
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


@dataclass(frozen=True)
class TinyConfig:
    """How a face becomes a tiny photo; a chance in [0, 1] of 0 turns a change off."""

    turns: MisalignConfig = MisalignConfig(angle=30.0)
    soft: float = 0.3  # chance of a softer filter than bicubic
    noise: float = 0.4  # chance of pixel noise
    sigma: float = 0.06  # its largest standard deviation, on the [-1, 1] scale
    jpeg: float = 0.4  # chance of the blocks of a JPEG file
    quality: tuple[float, ...] = (40.0, 95.0)  # of that file, as libjpeg counts it

    def __post_init__(self) -> None:
        if len(self.quality) != 2 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(
                f"quality is {list(self.quality)}; use the least and the greatest, from 1 to 100"
            )
        if self.sigma < 0:
            raise ValueError("sigma starts at 0")


def draw_tiny(config: TinyConfig, rng: np.random.Generator) -> dict[str, Any]:
    """The numbers of one tiny photo.

    Every draw is made whether or not its change is on, so that turning one change off leaves the
    others as they were.

    Returns:
        `alignment` `(2, 3)`, frame -> tiny photo; `soft`, 0 or 1; `noise`, a standard deviation;
        `seed` of the noise; `quality`, 0 for no JPEG; `corner` `(2,)`, where in the grid of
        blocks the picture begins: y, x.
    """
    alignment = draw_misalignment(config.turns, rng).alignment()
    soft, noisy, compressed = rng.random(3)
    sigma, quality = config.sigma * rng.random(), rng.uniform(config.quality[0], config.quality[1])
    return {
        "alignment": alignment,
        "soft": np.float32(soft < config.soft),
        "noise": np.float32(sigma if noisy < config.noise else 0),
        "seed": np.int64(rng.integers(2**31)),
        "quality": np.float32(quality if compressed < config.jpeg else 0),
        "corner": rng.integers(GRID, size=2),
    }


def named_tiny(config: TinyConfig, seed: int, key: str) -> dict[str, Any]:
    """The numbers of `draw_tiny` from a name alone: every evaluation draws the same."""
    digest = hashlib.sha256(f"{seed}/{key}/tiny".encode()).digest()
    return draw_tiny(config, np.random.default_rng(list(digest)))


def make_tiny(faces: torch.Tensor, draws: dict[str, Any], side: int = SIDE) -> torch.Tensor:
    """Faces -> tiny photos.

    Args:
        faces: `(N, 3, S, S)` in [-1, 1], aligned; S is several times `side`.
        draws: the collated numbers of `draw_tiny`.
        side: of the tiny photos.

    Returns:
        `(N, 3, side, side)` in [-1, 1], on the device of the faces.
    """
    turned = turn_portraits(faces, invert(draws["alignment"]))
    sharp, soft = (
        F.interpolate(turned, size=(side, side), mode=mode, antialias=True)
        for mode in ("bicubic", "bilinear")
    )
    tiny = torch.where(_column(draws["soft"]).bool(), soft, sharp)
    noisy = draws["noise"] > 0
    if noisy.any():
        fields = [
            torch.randn(tiny.shape[1:], generator=torch.Generator().manual_seed(int(seed)))
            for seed in draws["seed"][noisy]
        ]
        noise = torch.stack(fields).to(tiny)
        tiny[noisy] = tiny[noisy] + _column(draws["noise"])[noisy] * noise
    tiny = tiny.clamp(-1, 1)
    chosen = draws["quality"] > 0
    if chosen.any():
        tiny[chosen] = jpeg(tiny[chosen], draws["quality"][chosen], draws["corner"][chosen])
    return tiny


def jpeg(pictures: torch.Tensor, quality: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    """Pictures after a JPEG file with chroma at half size.

    Each is a piece of a larger picture, which goes on mirrored around it.

    Args:
        pictures: `(N, 3, S, S)` in [-1, 1].
        quality: `(N,)`, 1 to 100, as libjpeg counts it.
        corner: `(N, 2)`, integers from 0 to 15: where in the grid the picture begins, y and x.

    Returns:
        `(N, 3, S, S)` in [-1, 1].
    """
    count, _, side, _ = pictures.shape
    whole = -(-(side + GRID - 1) // GRID) * GRID
    ticks = torch.arange(whole, device=pictures.device)
    y, x = ((ticks - begin[:, None]) % (2 * side) for begin in corner.unbind(1))
    y, x = (torch.where(place < side, place, 2 * side - 1 - place) for place in (y, x))
    rows = torch.arange(count, device=pictures.device)[:, None, None]
    wide = pictures.permute(0, 2, 3, 1)[rows, y[:, :, None], x[:, None, :]] * 127.5
    # On a scale of -127.5 to 127.5 all three start around 0: luma needs no shift of its own.
    matrix = pictures.new_tensor(YCBCR)
    colours = (wide @ matrix.T).permute(0, 3, 1, 2)
    luma = _quantized(colours[:, :1], LUMINANCE, quality)
    chroma = _quantized(F.avg_pool2d(colours[:, 1:], 2), CHROMINANCE, quality)
    # As libjpeg reads it ("fancy upsampling").
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    back = torch.cat([luma, chroma], 1).permute(0, 2, 3, 1) @ torch.linalg.inv(matrix).T
    ticks = torch.arange(side, device=pictures.device)
    y, x = (ticks + begin[:, None] for begin in corner.unbind(1))
    cut = back[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    return (cut / 127.5).clamp(-1, 1)


def _quantized(planes: torch.Tensor, table: tuple[int, ...], quality: torch.Tensor) -> torch.Tensor:
    """Planes `(N, C, S, S)` after rounding the cosine transform of their 8 x 8 blocks."""
    count, channels, side, _ = planes.shape
    # libjpeg's scaling of the standard's tables.
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = planes.new_tensor(table).view(BLOCK, BLOCK) * scale[:, None, None]
    steps = ((steps + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    basis = _cosines(planes)
    number = side // BLOCK
    blocks = planes.view(count, channels, number, BLOCK, number, BLOCK).transpose(3, 4)
    waves = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ waves @ basis).transpose(3, 4).reshape(planes.shape)


def _cosines(like: torch.Tensor) -> torch.Tensor:
    """The orthonormal cosine transform of eight numbers, `(8, 8)`."""
    ticks = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    waves = torch.cos(torch.pi / BLOCK * (ticks + 0.5) * ticks[:, None]) * (2 / BLOCK) ** 0.5
    waves[0] *= 0.5**0.5
    return waves


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
