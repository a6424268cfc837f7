"""What makes three styles teach more than three: the portrait is changed, the photo is not.

Every number is drawn from the seed and the position in the run alone, so a resumed run, and one
on more processes, sees the same pictures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

IDENTITY = np.eye(3, dtype=np.float32)
GREY = np.full((3, 3), (0.299, 0.587, 0.114), dtype=np.float32)
PATCH_GRIDS = (4, 8, 16)
ZERO = np.float32(0)
PLAIN = dict.fromkeys(("blend", "sharpness", "noise", "patches", "strokes"), ZERO) | {
    "matrix": IDENTITY,
    "offset": np.zeros((3, 1, 1), dtype=np.float32),
}


@dataclass(frozen=True)
class AugmentConfig:
    """Chances in [0, 1] and strengths on the [-1, 1] scale; 0 turns a change off."""

    mirror: bool = True  # of portrait and photo together
    plain: float = 0.0  # chance that nothing else is changed
    blend: float = 0.0  # chance of a mixture with another portrait of the same photo
    mix: float = 0.0  # chance that the colour channels go through a random 3 x 3 matrix
    permute: float = 0.0  # chance that the colour channels change places
    invert: float = 0.0  # chance of the negative
    grey: float = 0.0  # chance of no colour
    contrast: float = 0.0  # log of the largest factor
    offset: float = 0.0  # largest brightness shift
    sharpness: float = 0.0  # chance of a blur or an exaggeration of edges
    noise: float = 0.0  # largest standard deviation of pixel noise
    patches: float = 0.0  # largest strength of coloured planes
    strokes: float = 0.0  # largest strength of the strokes of another portrait, turned


def draw(config: AugmentConfig, rng: np.random.Generator) -> dict[str, Any]:
    """The numbers of one sample.

    Every draw is made whether or not its change is on, so that turning one change off leaves
    the others as they were.
    """
    chances = ("mirror", "plain", "blend", "mix", "permute", "invert", "grey")
    chance = {name: rng.random() for name in chances}
    blend = rng.uniform(0.2, 0.8)
    # Rows that add up to about one keep light and dark apart.
    mixture = rng.dirichlet((1, 1, 1), 3) + rng.normal(0, 0.3, (3, 3))
    amount = rng.random()
    order = rng.permutation(3)
    contrast = rng.uniform(-config.contrast, config.contrast)
    offset = rng.uniform(-config.offset, config.offset, (3, 1, 1)) * 0.4
    offset = offset + rng.uniform(-config.offset, config.offset) * 0.6
    sharp, sharpness = rng.random(), rng.uniform(-1.0, 1.5)
    matrix: npt.NDArray[Any] = IDENTITY
    if chance["permute"] < config.permute:
        matrix = matrix[order]
    if chance["mix"] < config.mix:
        matrix = ((1 - amount) * IDENTITY + amount * mixture) @ matrix
    if chance["grey"] < config.grey:
        matrix = GREY @ matrix
    sign = -1.0 if chance["invert"] < config.invert else 1.0
    drawn = {
        "mirror": np.float32(config.mirror and chance["mirror"] < 0.5),
        "blend": np.float32(blend if chance["blend"] < config.blend else 0.0),
        "matrix": (sign * np.exp(contrast) * matrix).astype(np.float32),
        "offset": offset.astype(np.float32),
        "sharpness": np.float32(sharpness if sharp < config.sharpness else 0.0),
        "wide": np.int64(rng.integers(2)),
        "noise": np.float32(config.noise * rng.random() ** 2),
        "patches": np.float32(config.patches * rng.random() ** 2),
        "grid": np.int64(rng.integers(len(PATCH_GRIDS))),
        "strokes": np.float32(config.strokes * rng.random() ** 2),
        "turn": np.int64(rng.integers(1, 4)),
        "seed": np.int64(rng.integers(2**31)),
    }
    return drawn | PLAIN if chance["plain"] < config.plain else drawn


def augment(
    portraits: torch.Tensor, seconds: torch.Tensor, others: torch.Tensor, draws: dict[str, Any]
) -> torch.Tensor:
    """Change portraits `(N, 3, H, W)` in [-1, 1]; same shape and range back.

    Args:
        portraits: what is changed.
        seconds: another portrait of the same photo.
        others: a portrait of another photo, whose strokes are laid over.
        draws: the collated numbers of `draw`.
    """
    blend = _column(draws["blend"])
    portraits = portraits + blend * (seconds - portraits)
    if draws["strokes"].any():
        turned = torch.stack(
            [torch.rot90(o, int(k), (1, 2)) for o, k in zip(others, draws["turn"], strict=True)]
        )
        portraits = portraits + _column(draws["strokes"]) * (turned - _blurred(turned, 4))
    portraits = torch.einsum("nij,njhw->nihw", draws["matrix"], portraits) + draws["offset"]
    if draws["patches"].any():
        planes = torch.stack([_planes(d, g, portraits) for d, g in _seeds(draws)])
        portraits = portraits + _column(draws["patches"]) * planes
    if draws["sharpness"].any():
        wide = _column(draws["wide"]).bool()
        blurred = torch.where(wide, _blurred(portraits, 4), _blurred(portraits, 2))
        portraits = portraits + _column(draws["sharpness"]) * (portraits - blurred)
    if draws["noise"].any():
        portraits = portraits + _column(draws["noise"]) * _noise(draws, portraits)
    return portraits.clamp(-1, 1)


def mirror(pictures: torch.Tensor, draws: dict[str, Any]) -> torch.Tensor:
    """Mirror those of `(N, 3, H, W)` that the draw says."""
    return torch.where(_column(draws["mirror"]).bool(), pictures.flip(3), pictures)


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def _blurred(pictures: torch.Tensor, factor: int) -> torch.Tensor:
    pooled = F.avg_pool2d(pictures, factor)
    return F.interpolate(pooled, scale_factor=factor, mode="bilinear", align_corners=False)


def _seeds(draws: dict[str, Any]) -> list[tuple[int, int]]:
    return [
        (int(s), PATCH_GRIDS[int(g)]) for s, g in zip(draws["seed"], draws["grid"], strict=True)
    ]


def _planes(seed: int, grid: int, like: torch.Tensor) -> torch.Tensor:
    """Coloured planes with hard edges: `(3, H, W)`."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(1, 3, grid, grid, generator=generator)
    warped = F.interpolate(cells, size=like.shape[-2:], mode="bicubic", align_corners=False)
    # Rounding the smooth field gives planes whose borders run along curves, as in cubist styles.
    return ((warped * 2).round() / 2)[0].to(like.device)


def _noise(draws: dict[str, Any], like: torch.Tensor) -> torch.Tensor:
    fields = [
        torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(int(seed) + 1))
        for seed in draws["seed"]
    ]
    return torch.stack(fields).to(like.device)
