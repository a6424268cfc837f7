"""What a picture looks like from afar: do two show the same face, is one a copy of the other?"""

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from face_destyle.models.similarity import warp

SIDE = 64  # of the luma that the structure is taken from
CELLS = 16  # along a side
HASH_SIDE = 16
# Bits of 256 by which copies may differ: of 1.7 million pairs of aligned photos that are none, no
# two differ by less than 22; at half the size, or as JPEG of quality 60, a copy differs by 18.
NEAR = 16
# Between the least of pairs that belong together (2.3) and the most of nearly all others (97 % of
# them), measured on portraits in eight styles, aligned and turned.
OUTLIER = 2.0
# The share of portraits that are most like their own photo: of pairs that belong together nearly
# all, of turned portraits that are not straightened one in ten.
TELLING = 0.7
UNRELATED = 0.5  # median of a style in standard deviations: of shuffled pairs it is 0
FEWEST = 8  # photos: of fewer nothing can be said


def luma(picture: PILImage.Image) -> torch.Tensor:
    """`(SIDE, SIDE)` uint8: 4 kB, so that those of a whole dataset fit in memory."""
    grey = picture.convert("L").resize((SIDE, SIDE), PILImage.Resampling.BOX)
    return torch.from_numpy(np.array(grey))


def structure(pictures: torch.Tensor) -> torch.Tensor:
    """Strength and direction of the edges in each cell: luma in [0, 1], `(N, S, S)` -> `(N, F)`.

    A structure tensor: a light line on dark ground and a dark one on light ground are the same, so
    it outlives a change of style.
    """
    tap = torch.tensor([1.0, 2.0, 1.0]) / 4
    smooth = F.conv2d(
        F.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate"), tap.outer(tap)[None, None]
    )
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    energy = across.square() + down.square()
    tensor = torch.cat([across.square() - down.square(), 2 * across * down, energy], 1)
    cells = F.adaptive_avg_pool2d(tensor, CELLS)
    # By the root of the energy: a few strong edges would outweigh all others.
    return (cells / (cells[:, 2:].sqrt() + 1e-3)).flatten(1)


def straightened(pictures: torch.Tensor, alignment: torch.Tensor) -> torch.Tensor:
    """Luma `(N, S, S)` of turned portraits, brought to the frame by `(N, 2, 3)` alignments."""
    return warp(pictures[:, None], alignment)[:, 0]


def belonging(
    portraits: torch.Tensor, photos: torch.Tensor, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much more a portrait of one style is like its own photo than like the others.

    Args:
        portraits: structures `(N, F)` of one style.
        photos: structures `(M, F)`, each photo once, `FEWEST` or more.
        own: which photo is that of each portrait, `(N,)`.

    Returns:
        `(N,)`, in standard deviations of the likeness to the others; and `(N,)`, whether none of
        these is more like it.
    """
    # What all portraits of a style have in common says nothing of the face.
    likeness = _centred(portraits) @ _centred(photos).T
    rows = torch.arange(len(own))
    found = likeness[rows, own]
    others = len(photos) - 1
    mean = (likeness.sum(1) - found) / others
    variance = (likeness.square().sum(1) - found.square()) / others - mean.square()
    best = found >= likeness.max(1).values - 1e-4  # a copy of the photo is as like it
    return (found - mean) / variance.clamp_min(1e-9).sqrt(), best


def _centred(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features - features.mean(0), dim=1)


def difference_hash(picture: PILImage.Image) -> torch.Tensor:
    """Whether each cell is lighter than its left neighbour: `(256,)` of 1 and -1."""
    size = (HASH_SIDE + 1, HASH_SIDE)
    cells = np.asarray(picture.convert("L").resize(size, PILImage.Resampling.BOX), dtype=np.int16)
    return torch.from_numpy(np.where(cells[:, 1:] > cells[:, :-1], 1.0, -1.0).ravel()).float()


def copies(hashes: torch.Tensor, chunk: int = 1024) -> list[tuple[int, int]]:
    """Which of `(N, 256)` hashes differ by `NEAR` bits or less: pairs (earlier, later)."""
    found = []
    least = hashes.shape[1] - 2 * NEAR
    for start in range(0, len(hashes), chunk):
        agreement = hashes[start : start + chunk] @ hashes.T
        for later, earlier in (agreement >= least).nonzero().tolist():
            if earlier < start + later:
                found.append((earlier, start + later))
    return found
