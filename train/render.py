"""A near-frontal photo, seen with the head turned.

The head is the mesh fitted to the photo (train.mesh) with the photo as its texture. What the photo
does not show is taken from what it does: the back of the head from the hair above the forehead,
the back of the neck from the throat, both mirrored back and forth so that no streak tells the
angle. Where the mesh is wider than the head, the colours of the head are carried on. Behind it the
background, the body and the hair beside the head stay as they are; where the head was they are
filled from around.

The neck twists between head and body. All angles, 0 too, go through the same resampling, so that
sharpness does not tell the angle either. The idea is that of face profiling (Zhu et al., "Face
Alignment Across Large Poses", CVPR 2016), with a mesh of the whole head in place of a depth map.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face_destyle import images
from face_destyle.pasting import similarity
from train.mesh import FIVE, Array, Fit, HeadMesh, points_of
from train.raster import fold, grown, likeness, rasterize, sample, without

SIDE = images.FACE_SIDE
FINER = 2  # views are rendered this many times finer, and reduced
TEXTURE_FINER = 3  # so is the photo that is read between its pixels

# In units of the ICT mesh (about 0.9 cm), whose head turns about the axis x = z = 0.
PIVOT = np.array([0, -7, 0], np.float32)
NECK_CUT = -11.0  # below it the body begins
NECK_LENGTH = 4.0  # over which the neck twists
NAPE = -3.0  # hair above, neck below
EAR = -1.5, 5.0, 7.6  # lower and upper end, and the distance from the middle where it begins
EAR_BACK = 1.0  # depth z behind which nothing is read from the photo directly
TEMPLE = 4.5  # the same above the ears, where the side of the head is flat
HAIR = (-4.0, 4.0), (10.4, 12.6), 6.0  # x, y and depth z of the hair that is read for the back
THROAT = -3.5, 3.5  # x of what is read for the back of the neck
SURE = 1.2  # how far inside the outline every pixel is head
OPEN_ANGLE = 25.0  # degrees from which nothing of the photo's own outline is left


@dataclass(frozen=True)
class View:
    """How a head is turned, in degrees, as `train.mesh.rotation`, from where it is in the photo."""

    yaw: float
    pitch: float = 0.0

    @property
    def opened(self) -> float:
        """From 0, where the photo itself is seen, to 1, where what it hides is seen."""
        return min(1.0, float(np.hypot(self.yaw, self.pitch)) / OPEN_ANGLE)


def turned_head(head: Array, view: View) -> Array:
    """Turn vertices `(V, 3)` in the mesh's space on the neck.

    Above the jaw they turn wholly, at `NECK_CUT` not at all, between them in part.
    """
    height = head[:, 1] - NECK_CUT + np.maximum(head[:, 2] - 5, 0)
    part = np.clip(height / NECK_LENGTH, 0, 1)[:, None]
    part = part * part * (3 - 2 * part)
    radians = np.radians(part * (view.yaw, view.pitch)).astype(np.float32)
    (cy, cp), (sy, sp) = np.cos(radians).T, np.sin(radians).T
    x, y, z = (head - PIVOT).T
    x, z = x * cy + z * sy, z * cy - x * sy
    y, z = y * cp - z * sp, z * cp + y * sp
    return np.stack([x, y, z], axis=1) + PIVOT


class TurnedHead:
    """One photo, ready to be seen from several angles.

    Args:
        mesh: the mesh that was fitted.
        fit: to the landmarks of `picture`, in its pixels.
        picture: RGB, with whatever the photo shows around the face.
        frame: the `(2, 3)` similarity from its pixels to the aligned 128 x 128 photo.
    """

    def __init__(self, mesh: HeadMesh, fit: Fit, picture: Image.Image, frame: Array):
        self.mesh, self.fit, self.frame = mesh, fit, frame
        pixels = np.asarray(picture)
        self.triangles = mesh.triangles[(fit.head[:, 1] > NECK_CUT)[mesh.triangles].all(1)]
        self.attributes = self._attributes()
        outline = self._outline(picture.size)
        sure = ~grown(~outline, round(SURE * fit.scale))
        known = sure | ((likeness(pixels, sure, ~grown(outline, 4)) > 0) & outline)
        self.texture = _finer(pixels)
        # A mesh that is wider than the head would show background on cheek and ear.
        self.filled = _finer(without(pixels, ~known))
        self.background = pixels.astype(np.float32)
        self.cleared = without(pixels, grown(outline, 2)).astype(np.float32)
        self.landmarks = self._landmarks(fit.head)

    def _landmarks(self, vertices: Array) -> Array:
        """The five landmarks `(5, 2)` of a head, in the frame."""
        points = points_of(vertices, self.mesh, FIVE)
        return self.fit.project(points)[:, :2] @ self.frame[:, :2].T + self.frame[:, 2]

    def _attributes(self) -> Array:
        """What each vertex shows `(V, 5)`.

        Where it reads the photo directly (x, y) and where in place of that if it is hidden
        (x, y), both in pixels; and how hidden it is, 0 to 1.
        """
        x, y, z = self.fit.head.T
        depth = EAR_BACK - z
        (left, right), band, front = HAIR
        side = fold(0.8 * depth + x, left, right)
        hair = np.stack([side, fold(0.35 * y, *band), np.full_like(x, front)], axis=1)
        throat = np.stack([fold(0.6 * depth + 0.6 * x, *THROAT), y, np.abs(z)], axis=1)
        upper = np.clip((y - NAPE) / 2, 0, 1)[:, None]
        other = self.fit.project(hair) * upper + self.fit.project(throat) * (1 - upper)
        low, high, beside = EAR
        start = np.where(y > high, np.minimum(EAR_BACK + (y - high), TEMPLE), EAR_BACK)
        ear = (y > low) & (y < high) & (np.abs(x) > beside) & (z > EAR_BACK - 4)
        hidden = np.where(ear, 0, np.clip(start + 0.5 - z, 0, 1))
        parts = [self.fit.project(self.fit.head)[:, :2], other[:, :2], hidden[:, None]]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _outline(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """What the mesh covers in the photo `(H, W)`."""
        side = max(size)
        pixels, _, _ = rasterize(self.fit.project(self.fit.head), self.triangles, side)
        covered = np.zeros(side * side, bool)
        covered[pixels] = True
        return covered.reshape(side, side)[: size[1], : size[0]]

    def render(self, view: View) -> NDArray[np.uint8]:
        """The view `(128, 128, 3)`.

        It is aligned as a finder of faces would do: by the similarity that brings the five
        landmarks of the turned head nearest to those of the photo in the frame; at angle 0
        that is the frame itself.
        """
        turned = turned_head(self.fit.head, view)
        align = similarity(self._landmarks(turned), self.landmarks)
        linear = align[:, :2] @ self.frame[:, :2]
        shift = align[:, :2] @ self.frame[:, 2] + align[:, 2]
        seen = self.fit.project(turned)
        seen[:, :2] = (seen[:, :2] @ linear.T + shift + 0.5) * FINER - 0.5
        side = SIDE * FINER
        covered, triangle, weights = rasterize(seen, self.triangles, side)
        picture = np.empty((side * side, 3), np.float32)
        picture[covered] = self._colour(self.triangles[triangle], weights, view)
        bare = np.delete(np.arange(side * side), covered)
        points: Array = np.stack([bare % side, bare // side], axis=1).astype(np.float32)
        points = (points + np.float32(0.5)) / np.float32(FINER) - np.float32(0.5)
        back = np.linalg.inv(linear).astype(np.float32)
        points = (points - shift) @ back.T
        height, width = self.cleared.shape[:2]
        points = np.stack([fold(points[:, 0], 0, width - 1), fold(points[:, 1], 0, height - 1)], 1)
        picture[bare] = _mixed(self.background, self.cleared, view.opened, points)
        picture = picture.reshape(SIDE, FINER, SIDE, FINER, 3).mean((1, 3))
        return (picture + 0.5).clip(0, 255).astype(np.uint8)

    def _colour(self, corner: NDArray[np.int64], weights: Array, view: View) -> Array:
        """Colours `(N, 3)` of points in triangles `(N, 3)`, at barycentric `weights` `(N, 3)`."""
        values = np.einsum("nka,nk->na", self.attributes[corner], weights)
        hidden = values[:, 4:] * view.opened
        own = (values[:, :2] + 0.5) * TEXTURE_FINER - 0.5
        colour = _mixed(self.texture, self.filled, view.opened, own)
        part = np.flatnonzero(hidden[:, 0] > 0)
        other = (values[part, 2:4] + 0.5) * TEXTURE_FINER - 0.5
        colour[part] += (sample(self.filled, other) - colour[part]) * hidden[part]
        return colour


def _mixed(first: Array, second: Array, part: float, points: Array) -> Array:
    """Read both pictures at points; `part` of the second."""
    if part in (0, 1):
        return sample(second if part else first, points)
    return sample(first, points) * (1 - part) + sample(second, points) * part


def _finer(pixels: NDArray[np.uint8]) -> Array:
    size = (pixels.shape[1] * TEXTURE_FINER, pixels.shape[0] * TEXTURE_FINER)
    finer = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(finer, np.float32)
