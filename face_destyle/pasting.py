"""Cut an aligned face out of a picture, and paste a recovered one back.

Positions and matrices are those of `faces`: pixels counted from the middle of the upper left one,
and a similarity `(2, 3)`, frame -> picture.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_destyle.faces import Matrix
from face_destyle.images import FACE_SIDE

Floats = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

# Half the width and height of the mask and of the frame, in pixels of the frame, and the power
# of its outline: 2 is an ellipse, more is nearer to a rectangle.
MASK_HALF, MASK_POWER = 63.0, 3.0
MIDDLE = (FACE_SIDE - 1) / 2
# How far the mask fades, in pixels of the frame; and, in a picture where the face is small, in
# pixels of the picture. Fewer would let the outermost one change by more than 2 of 255.
FEATHER, FEATHER_IN_PICTURE = 20.0, 11.0
REACH = 3  # of the Lanczos window, in pixels of the result
STRIP = 256  # rows of a picture at a time: a face may fill one of 50 million pixels
# A portrait's surroundings may have hardly any contrast, or far more than a photo's.
GAIN_LIMITS = (0.8, 1.25)


@dataclass(frozen=True)
class Patch:
    """A 128 x 128 picture and where its frame lies in the picture it goes into."""

    photo: Image.Image
    matrix: Matrix


def crop(picture: Image.Image, matrix: Matrix, side: int = FACE_SIDE) -> Image.Image:
    """Cut the frame out of a picture: RGB, `side` x `side`.

    Beyond the edges of the picture its outermost pixels go on.
    """
    scale = side / FACE_SIDE
    shrink = np.array([[1 / scale, 0, 0.5 / scale - 0.5], [0, 1 / scale, 0.5 / scale - 0.5]])
    return _to_picture(sample(picture, compose(matrix, shrink), (side, side)))


def sample(picture: Image.Image, matrix: Matrix, size: tuple[int, int]) -> Floats:
    """Pixels `(H, W, 3)` of `size`: at `p` what lies at `matrix(p)` of the picture, 0 to 255.

    Bicubic, not rounded; where the result is smaller, what it uses is averaged first (Lanczos),
    so that no pixel of the picture is left out. Beyond the edges the outermost pixels go on.

    Args:
        picture: RGB.
        matrix: a similarity `(2, 3)`.
        size: width and height of the result.
    """
    matrix = _from_edges(matrix)
    corners = np.array([[0, 0], size, [size[0], 0], [0, size[1]]])
    used = corners @ matrix[:, :2].T + matrix[:, 2]
    factor = max(1.0, math.hypot(matrix[0, 0], matrix[1, 0]))
    low, high = used.min(0) - REACH * factor, used.max(0) + REACH * factor
    left, right = _inside(low[0], high[0], picture.width)
    top, bottom = _inside(low[1], high[1], picture.height)
    part = picture.crop((left, top, right, bottom))
    if factor > 1:
        small = (math.ceil(part.width / factor), math.ceil(part.height / factor))
        part = part.resize(small, Image.Resampling.LANCZOS)
    scale = np.array([part.width / (right - left), part.height / (bottom - top)])
    matrix = (matrix - [[0, 0, left], [0, 0, top]]) * scale[:, None]
    used = (used - (left, top)) * scale
    before = np.maximum(np.ceil(REACH - used.min(0)), 0).astype(int)
    after = np.maximum(np.ceil(used.max(0) + REACH - part.size), 0).astype(int)
    padding = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    pixels = np.pad(np.asarray(part, np.float32), padding, mode="edge")
    matrix[:, 2] += before
    # In float: a crop that is pasted back would be rounded at every step.
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel])).transform(
            size, Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BICUBIC
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _to_picture(pixels: Floats) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _inside(low: float, high: float, length: int) -> tuple[int, int]:
    """The whole pixels from `low` to `high` that a picture has: at least one."""
    first = min(max(math.floor(low), 0), length - 1)
    return first, max(min(math.ceil(high), length), first + 1)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The matrix of `x -> outer(inner(x))`."""
    composed: Matrix = outer @ np.vstack([inner, (0, 0, 1)])
    return composed


def similarity(source: Floats, target: Floats) -> Floats:
    """The `(2, 3)` similarity that brings points `(P, 2)` nearest to others (Umeyama 1991)."""
    centre, middle = source.mean(0), target.mean(0)
    x, y = (source - centre).T
    u, v = (target - middle).T
    spread = float((x * x + y * y).sum())
    cos, sin = float((x * u + y * v).sum()) / spread, float((x * v - y * u).sum()) / spread
    linear = np.array([[cos, -sin], [sin, cos]], np.float32)
    return np.concatenate([linear, (middle - linear @ centre)[:, None]], axis=1)


def invert(matrix: Matrix | Floats) -> Matrix:
    """The matrix that undoes this one."""
    return np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]


def _from_edges(matrix: Matrix) -> Matrix:
    """The same similarity for positions counted from the outer edge, as PIL counts them."""
    half = np.array([0.5, 0.5])
    shift = matrix[:, 2] + half - matrix[:, :2] @ half
    return np.column_stack([matrix[:, :2], shift])


def mask(x: Floats, y: Floats, scale: float) -> Floats:
    """How much of a photo is seen at positions of its frame: 0 to 1, flat at both ends.

    Args:
        x, y: positions in the frame, of any shape.
        scale: pixels of the picture to one of the frame.
    """
    across, down = np.abs(x - MIDDLE) / MASK_HALF, np.abs(y - MIDDLE) / MASK_HALF
    distance = (across**MASK_POWER + down**MASK_POWER) ** (1 / MASK_POWER)
    feather = min(max(FEATHER, FEATHER_IN_PICTURE / scale), MASK_HALF)
    rise = ((1 - distance) * (MASK_HALF / feather)).clip(0, 1)
    weight: Floats = rise**3 * (rise * (rise * 6 - 15) + 10)
    return weight


def paste(picture: Image.Image, patches: Sequence[Patch], strength: float = 1.0) -> Image.Image:
    """Paste photos into a picture, through a mask that fades towards the edge of each.

    Where masks overlap, each photo counts by its mask.

    Args:
        picture: upright RGB.
        patches: the photos, in any order.
        strength: 0 leaves the picture as it is, 1 shows the photos in full.

    Returns:
        RGB of the same size; pixels outside every mask are those of the picture.
    """
    pasted = picture.copy()
    for number, patch in enumerate(patches):
        to_frame = invert(patch.matrix)
        for left, top, right, bottom in _strips(patch.matrix, picture.size):
            shift = np.array([[1, 0, left], [0, 1, top]])
            photo = sample(patch.photo, compose(to_frame, shift), (right - left, bottom - top))
            before = picture.crop((left, top, right, bottom))
            change = photo - np.asarray(before, np.float32)
            share = _share(number, patches, (left, top, right, bottom)) * np.float32(strength)
            part = np.asarray(pasted.crop((left, top, right, bottom)))
            pasted.paste(_to_picture(part + share[..., None] * change), (left, top))
    return pasted


def _strips(matrix: Matrix, size: tuple[int, int]) -> Iterator[Box]:
    """The part of a picture in which a frame lies, so many rows at a time."""
    edges = np.array([[x, y] for x in (-0.5, FACE_SIDE - 0.5) for y in (-0.5, FACE_SIDE - 0.5)])
    corners = edges @ matrix[:, :2].T + matrix[:, 2]
    left, top = np.floor(corners.min(0)).clip(0, size).astype(int).tolist()
    right, bottom = np.ceil(corners.max(0) + 1).clip(0, size).astype(int).tolist()
    if left < right:
        for row in range(top, bottom, STRIP):
            yield left, row, right, min(row + STRIP, bottom)


def _share(number: int, patches: Sequence[Patch], box: Box) -> Floats:
    """What one of several photos counts for at the pixels of a box: 0 to 1, `(H, W)`."""
    left, top, right, bottom = box
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    own, total, rest = np.zeros_like(x), np.zeros_like(x), np.ones_like(x)
    for index, patch in enumerate(patches):
        turn = invert(patch.matrix).astype(np.float32)
        frame_x = turn[0, 0] * x + turn[0, 1] * y + turn[0, 2]
        frame_y = turn[1, 0] * x + turn[1, 1] * y + turn[1, 2]
        weight = mask(frame_x, frame_y, math.hypot(*patch.matrix[:, 0]))
        own = weight if index == number else own
        total, rest = total + weight, rest * (1 - weight)
    # Together they hide as much of the picture as one mask laid on the other.
    share: Floats = own * ((1 - rest) / np.maximum(total, np.float32(1e-9)))
    return share


def match_colours(photo: Image.Image, under: Image.Image) -> Image.Image:
    """Give a photo the light and tint that the picture has round it.

    Mean and spread of YCbCr are compared where the mask fades: there both show the surroundings
    of the face.

    Args:
        photo, under: the photo, and what lies under it in the picture, both 128 x 128 RGB.
    """
    y, x = np.mgrid[0:FACE_SIDE, 0:FACE_SIDE].astype(np.float32)
    weight = mask(x, y, 1.0)
    ring = (weight > 0) & (weight < 1)
    values = np.asarray(photo.convert("YCbCr"), np.float32)
    have, want = values[ring], np.asarray(under.convert("YCbCr"), np.float32)[ring]
    gain = (want.std(0) / np.maximum(have.std(0), 1)).clip(*GAIN_LIMITS)
    matched = (values - have.mean(0)) * gain + want.mean(0)
    pixels = matched.round().clip(0, 255).astype(np.uint8)
    return Image.frombytes("YCbCr", photo.size, pixels.tobytes()).convert("RGB")
