"""Photos with one attribute changed, for which there is no true photo: made by their neighbours.

Among aligned faces that look alike, the mean of those with an attribute less the mean of those
without it is what the attribute looks like on such a face: deep feature interpolation (Upchurch et
al., CVPR 2017) in pixels, which will do where the eyes are always in the same places. A generator
that learns from photos changed so has nothing to gain by pleasing a classifier in its own ways.
"""

import torch
from torch.nn import functional as F

FINE = 64  # side of the pictures whose means are compared: what changes is smooth
COARSE = 32  # of those by which faces are alike
COMPONENTS = 48  # principal ones; the strong ones count more, but not by as much as they vary


class Neighbours:
    """Labelled photos among which the neighbours of a photo are looked for.

    Args:
        photos: `(M, 3, S, S)` uint8, aligned.
        labels: `(M, A)`: 1 with, 0 without, nan where nothing is said.
        count: how many neighbours with the attribute, and how many without, are averaged.
    """

    def __init__(self, photos: torch.Tensor, labels: torch.Tensor, count: int):
        self.labels, self.count = labels, count
        self.fine = torch.cat([_reduced(part, FINE).byte() for part in photos.split(256)])
        points = torch.cat([_reduced(part, COARSE).flatten(1) for part in photos.split(256)])
        self.mean = points.mean(0)
        centred = points - self.mean
        # Weaker ones are noise, or of few photos nothing but rounding.
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / len(points))
        used = values > 1e-3 * values[-1]
        axes = vectors[:, used] / values[used].pow(0.25)
        self.axes = axes[:, -COMPONENTS:].float()
        self.places = centred @ self.axes

    def changed(
        self, photo: torch.Tensor, attribute: int, present: bool, strength: float
    ) -> torch.Tensor | None:
        """The photo with the attribute, or without it: `(3, S, S)` uint8.

        Args:
            photo: `(3, S, S)` uint8; it may be one of the neighbours.
            attribute: its column among the labels.
            present: whether it shall be there.
            strength: times the difference of the means.

        Returns:
            None where no photo has, or where none lacks, the attribute.
        """
        place = (_reduced(photo[None], COARSE).flatten(1) - self.mean) @ self.axes
        distances = torch.cdist(place, self.places)[0]
        column = self.labels[:, attribute]
        means = []
        for value in (1, 0):
            rows = (column == value).nonzero().squeeze(1)
            if not len(rows):
                return None
            nearest = distances[rows].topk(min(self.count, len(rows)), largest=False).indices
            means.append(self.fine[rows[nearest]].float().mean(0))
        change = means[0] - means[1] if present else means[1] - means[0]
        size = (photo.shape[1], photo.shape[2])
        wide = F.interpolate(change[None], size, mode="bilinear", align_corners=False)[0]
        return (photo + strength * wide).round().clamp(0, 255).byte()


def _reduced(photos: torch.Tensor, side: int) -> torch.Tensor:
    """Photos at no more than this side, 0 to 255."""
    factor = max(1, photos.shape[-1] // side)
    return F.avg_pool2d(photos.float(), factor)
