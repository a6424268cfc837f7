"""Pictures from triangles and from pictures: rasterizing, sampling, filling; numpy only.

Points are x, y (down) in pixels, the middle of the first pixel at 0.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from train.mesh import Array

LEVELS = 16  # of each colour in a histogram


def rasterize(
    corners: Array, triangles: NDArray[np.int64], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Which triangle each pixel of a `side` x `side` picture shows.

    The painter's algorithm, by the depth of the triangles' middles: they are about as small as
    the pixels.

    Args:
        corners: `(V, 3)`: x, y (down) in pixels, the middle of the first pixel at 0, and height
            to the viewer.
        triangles: `(T, 3)`, those that face the viewer clockwise in x and y down; others are
            left out.

    Returns:
        Of the N covered pixels: position in the flat picture `(N,)`, triangle `(N,)`, and
        barycentric coordinates `(N, 3)`.
    """
    a, b, c = (corners[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.ceil(np.minimum(np.minimum(a, b), c)[:, :2]).clip(0).astype(np.int64)
    high = np.floor(np.maximum(np.maximum(a, b), c)[:, :2]).clip(max=side - 1).astype(np.int64)
    size = high - low + 1
    kept = np.flatnonzero((area < 0) & (size > 0).all(1))
    kept = kept[np.argsort((a[kept, 2] + b[kept, 2] + c[kept, 2]), kind="stable")]
    width = size[kept, 0]
    count = width * size[kept, 1]
    triangle = np.repeat(kept, count)
    first = np.repeat(np.cumsum(count) - count, count)
    within = np.arange(len(triangle)) - first
    width = np.repeat(width, count)
    x = low[triangle, 0] + within % width
    y = low[triangle, 1] + within // width
    a, b, c = a[triangle, :2], b[triangle, :2], c[triangle, :2]
    u = ((b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)) / area[triangle]
    v = ((c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)) / area[triangle]
    inside = np.flatnonzero((u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6))
    shown = np.full(side * side, -1)
    shown[(y * side + x)[inside]] = inside  # of several the last, which is the nearest
    pixels = np.flatnonzero(shown >= 0)
    chosen = shown[pixels]
    u, v = u[chosen], v[chosen]
    return pixels, triangle[chosen], np.stack([u, v, 1 - u - v], axis=1).astype(np.float32)


def sample(texture: Array, points: Array) -> Array:
    """Read `(H, W, C)` at x, y `(N, 2)` between its pixels, linearly; outside it, its edge."""
    height, width = texture.shape[:2]
    x = points[:, 0].clip(0, width - 1.001)
    y = points[:, 1].clip(0, height - 1.001)
    left, top = x.astype(np.int64), y.astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    flat = texture.reshape(height * width, -1)
    at = top * width + left
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + width] * (1 - fx) + flat[at + width + 1] * fx
    return upper * (1 - fy) + lower * fy


def fold(values: Array, low: float, high: float) -> Array:
    """Values mirrored back and forth into [low, high]."""
    span = np.float32(high - low)
    start = np.float32(low)
    folded: Array = start + span - np.abs((values - start) % (2 * span) - span)
    return folded


def without(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill the masked part of `(H, W, 3)` from around it: coarse to fine (push-pull)."""
    picture = pixels.astype(np.float32)
    weight = (~mask).astype(np.float32)[..., None]
    levels: list[tuple[Array, Array]] = [(picture * weight, weight)]
    while min(levels[-1][0].shape[:2]) > 2:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    colour, weight = levels[-1]
    filled: Array = (colour / np.maximum(weight, 1e-6)).astype(np.float32)
    for colour, weight in reversed(levels[:-1]):
        coarse = _resized(filled, colour.shape[:2])
        known = np.minimum(weight, 1)
        seen = colour / np.maximum(weight, np.float32(1e-6))
        filled = np.where(weight > 0, seen, np.float32(0)) * known
        filled = filled + coarse * (1 - known)
    return (filled + 0.5).clip(0, 255).astype(np.uint8)


def _halved(values: Array) -> Array:
    odd = [(0, side % 2) for side in values.shape[:2]]
    even = np.pad(values, [*odd, (0, 0)], mode="edge")
    total: Array = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return total / np.float32(4)


def _resized(values: Array, shape: tuple[int, ...]) -> Array:
    size = (shape[1], shape[0])
    bands = [
        Image.fromarray(values[..., band]).resize(size, Image.Resampling.BILINEAR)
        for band in range(values.shape[2])
    ]
    return np.stack([np.asarray(band) for band in bands], axis=2)


def likeness(pixels: NDArray[np.uint8], head: NDArray[np.bool_], other: NDArray[np.bool_]) -> Array:
    """How much more a pixel looks like the head than like what surrounds it.

    The logarithm of the ratio of two colour histograms, averaged over 5 x 5 pixels.

    Args:
        pixels: `(H, W, 3)`.
        head: `(H, W)`, pixels that are head for sure.
        other: `(H, W)`, pixels that are not.
    """
    shape = (LEVELS,) * 3
    level = pixels.astype(np.int64) * LEVELS // 256
    bins = np.ravel_multi_index(tuple(np.moveaxis(level, -1, 0)), shape)
    odds = []
    for known in (head, other):
        counts = np.bincount(bins[known], minlength=LEVELS**3).reshape(shape).astype(np.float32)
        for axis in range(3):
            for _ in range(2):
                wide = np.concatenate(
                    [counts.take([0], axis), counts, counts.take([-1], axis)], axis
                )
                below, above = (np.arange(LEVELS) + step for step in (0, 2))
                counts = (wide.take(below, axis) + 2 * counts + wide.take(above, axis)) / 4
        odds.append((counts + 1e-3).ravel() / (counts.sum() + 1))
    ratio = np.log(odds[0] / odds[1])[bins]
    if not other.any():
        ratio = np.ones_like(ratio)
    padded = np.pad(ratio, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    return windows.mean((2, 3)).astype(np.float32)


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask `(H, W)` and all within so many pixels of it, in a square."""
    wide = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(wide) > 0
