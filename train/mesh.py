"""A head mesh with shape coefficients, and its fit to the landmarks of a near-frontal photo.

The mesh is that of ICT FaceKit light (Li et al., "Learning Formation of Physically-Based Face
Attributes", CVPR 2020; MIT licence), an npz file with `neutral` (V, 3), `identity` (I, V, 3),
`expression` (E, V, 3), `expression_names`, `triangles` (T, 3) and `lm68_multipie` (68,). Its axes
are x to the right of the picture, y up, z to the viewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from face_destyle.errors import UserError, WeightsError
from train.frozen import find_frozen

Array = NDArray[np.float32]
Groups = Sequence[Sequence[int]]

KEYS = ("neutral", "identity", "expression", "expression_names", "triangles", "lm68_multipie")
IDENTITIES = 20  # modes of identity, by falling variance
EXPRESSIONS = ("jawOpen", "mouthSmile_L", "mouthSmile_R", "mouthUpperUp_L", "mouthUpperUp_R")
EXPRESSION_SIGMA = 0.3  # of the coefficients, which end at 1; those of identity have variance 1

# Points of a photo as numbers of the 68 landmarks of Multi-PIE; of several, the mean.
# The five of face finders: eyes, nose tip, mouth corners.
FIVE: Groups = (range(36, 42), range(42, 48), (30,), (48,), (54,))
# The 30 fiducials of CFP (Sengupta et al., WACV 2016), of the left half of the picture: contour
# from the ear to the chin, brow, eye, ridge of the nose, base of the nose, mouth.
CONTOUR = range(9)
FIDUCIALS: Groups = (
    *((number,) for number in CONTOUR),
    *((number,) for number in (17, 19, 21, *range(36, 42), *range(27, 31), 33, 32, 31)),
    *((number,) for number in (48, 51, 62, 57, 66)),
)

# Standard deviations of the prior: of turns in degrees, of landmarks in distances of the eyes. A
# contour slides over the mesh and is marked by eye, so it weighs a third.
TURN_SIGMA = {"yaw": 15.0, "pitch": 6.0, "roll": 10.0}
LANDMARK_SIGMA = 0.03
CONTOUR_WEIGHT = 1 / 3
STEPS = 6


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """A linear shape model of the head.

    Attributes:
        neutral: `(V, 3)`, the mean head.
        shapes: `(K, V, 3)`, what a coefficient of one standard deviation adds.
        triangles: `(T, 3)`, anticlockwise seen from outside; eyes and mouth closed.
        landmarks: `(68,)`, the vertices of the Multi-PIE landmarks.
    """

    neutral: Array
    shapes: Array
    triangles: NDArray[np.int64]
    landmarks: NDArray[np.int64]

    @classmethod
    def load(cls, source: str | Path) -> "HeadMesh":
        """Read an npz file by path or as `org/name/file.npz` on the Hub.

        Raises:
            WeightsError: not to be found, or no mesh in the layout of ICT FaceKit.
        """
        path = find_frozen(source, "the head mesh of ICT FaceKit", "npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [key for key in KEYS if key not in file.files]
                if missing:
                    raise WeightsError(f"{source} has no {missing[0]}: give the ICT FaceKit mesh")
                content = {key: file[key] for key in KEYS}
        except (OSError, ValueError, BadZipFile, AttributeError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"{source} is no npz file: give the ICT FaceKit mesh") from error
        return cls._of(content)

    @classmethod
    def _of(cls, content: dict[str, NDArray[Any]]) -> "HeadMesh":
        names = list(content["expression_names"])
        wanted = [names.index(name) for name in EXPRESSIONS if name in names]
        expression = content["expression"][wanted].astype(np.float32) * EXPRESSION_SIGMA
        identity = content["identity"][:IDENTITIES].astype(np.float32)
        neutral = content["neutral"].astype(np.float32)
        shapes = np.concatenate([identity, expression])
        triangles = content["triangles"].astype(np.int64)
        for loop in _holes(neutral, triangles):
            middle = len(neutral)
            neutral = np.concatenate([neutral, neutral[loop].mean(0, keepdims=True)])
            shapes = np.concatenate([shapes, shapes[:, loop].mean(1, keepdims=True)], axis=1)
            fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), middle)], axis=1)
            triangles = np.concatenate([triangles, fan])
        return cls(neutral, shapes, triangles, content["lm68_multipie"].astype(np.int64))

    def shape(self, coefficients: Array) -> Array:
        """The head `(V, 3)` of coefficients `(K,)`, in standard deviations."""
        return self.neutral + np.tensordot(coefficients, self.shapes, 1).astype(np.float32)


def _holes(neutral: Array, triangles: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rims of the openings as loops of vertices, but for the lowest, where the neck is cut."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    there = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in there if (b, a) not in there}
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex != start:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    loops.sort(key=lambda loop: float(neutral[loop, 1].mean()))
    return loops[1:]


def rotation(yaw: float, pitch: float, roll: float = 0.0) -> Array:
    """The matrix `(3, 3)` that turns a head; degrees.

    Positive yaw moves the nose to the right of the picture, positive pitch down, positive roll
    turns the picture clockwise; in this order.
    """
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return (turn_z @ turn_x @ turn_y).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Fit:
    """A head in a photo under a scaled orthographic camera.

    Attributes:
        head: `(V, 3)`, the vertices in the mesh's own pose and units.
        yaw: degrees, as `rotation`; so are pitch and roll.
        scale: pixels a unit of the mesh.
        shift: `(2,)`, where the origin of the mesh falls, in pixels.
        residual: root mean square distance of the landmarks that were fitted, in pixels.
    """

    head: Array
    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: Array
    residual: float

    def project(self, points: Array) -> Array:
        """Points `(..., 3)` of the mesh's space -> x, y (down) and height to the viewer, pixels."""
        turned = points @ rotation(self.yaw, self.pitch, self.roll).T * self.scale
        turned = turned * np.array([1, -1, 1], np.float32)
        turned[..., :2] += self.shift
        return turned


def points_of(vertices: Array, mesh: HeadMesh, groups: Groups) -> Array:
    """The named points `(..., P, 3)` of vertices `(..., V, 3)`."""
    means = [vertices[..., mesh.landmarks[list(group)], :].mean(-2) for group in groups]
    return np.stack(means, axis=-2)


class Fitter:
    """Fits one mesh to the same kind of landmarks in photo after photo.

    Gauss-Newton on pose, scale, shift and shape together, with a Gaussian prior on turns and
    coefficients: five landmarks then change the pose and hardly the shape.
    """

    def __init__(self, mesh: HeadMesh, groups: Groups):
        self.mesh = mesh
        self.mean = points_of(mesh.neutral, mesh, groups).astype(np.float64)
        self.modes = points_of(mesh.shapes, mesh, groups).astype(np.float64)
        outline = [all(number in CONTOUR for number in group) for group in groups]
        self.weights = np.where(outline, CONTOUR_WEIGHT, 1.0)
        self.eyes = points_of(mesh.neutral, mesh, FIVE[:2])

    def fit(self, landmarks: NDArray[Any]) -> Fit:
        """Fit to landmarks `(P, 2)`, x and y (down) in pixels.

        Raises:
            UserError: not the landmarks of a face.
        """
        seen = np.asarray(landmarks, np.float64)
        if seen.shape != (len(self.mean), 2) or not np.isfinite(seen).all():
            raise UserError(f"{len(self.mean)} landmarks of x and y are needed")
        values = self._start(seen)
        unit = LANDMARK_SIGMA * values[3] * np.linalg.norm(self.eyes[1] - self.eyes[0])
        if unit <= 0:
            raise UserError("the landmarks are those of no upright face")
        prior = np.zeros(len(values))
        prior[:3] = 1 / np.array(list(TURN_SIGMA.values()))
        prior[6:] = 1
        for _ in range(STEPS):
            predicted, jacobian = self._linearize(values)
            error = np.linalg.norm(seen - predicted, axis=1) / unit
            # Huber's weights: a landmark that is far off draws no more than one at 3 sigma.
            weight = self.weights * np.minimum(1, 3 / np.maximum(error, 1e-9)) ** 0.5 / unit
            rows = np.repeat(weight, 2)
            left = np.concatenate([jacobian * rows[:, None], np.diag(prior)])
            right = np.concatenate([(seen - predicted).ravel() * rows, -prior * values])
            values = values + np.linalg.lstsq(left, right, rcond=None)[0]
        predicted, _ = self._linearize(values)
        residual = float(np.sqrt(((predicted - seen) ** 2).sum(1).mean()))
        if not np.isfinite(values).all() or values[3] <= 0:
            raise UserError("the landmarks are those of no upright face")
        head = self.mesh.shape(values[6:].astype(np.float32))
        yaw, pitch, roll, scale = map(float, values[:4])
        return Fit(head, yaw, pitch, roll, scale, values[4:6].astype(np.float32), residual)

    def _start(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """Upright, unturned, the mean head, at the spread and the middle of the landmarks."""
        flat = self.mean[:, :2] * (1, -1)
        middle, centre = flat.mean(0), seen.mean(0)
        scale = ((seen - centre) * (flat - middle)).sum() / ((flat - middle) ** 2).sum()
        pose = [0, 0, 0, scale, *(centre - scale * middle)]
        return np.concatenate([pose, np.zeros(len(self.modes))])

    def _linearize(
        self, values: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Landmarks `(P, 2)` at `values`, and their derivatives `(2 P, K + 6)`."""
        scale, shift = values[3], values[4:6]
        points = self.mean + np.tensordot(values[6:], self.modes, 1)
        flip = np.array([1, -1])

        def seen_from(turns: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
            return (of @ rotation(*turns).T.astype(np.float64))[..., :2] * flip

        flat = seen_from(values[:3], points)
        step = 0.1  # degrees
        columns = [
            scale * (seen_from(values[:3] + step * axis, points) - flat) / step
            for axis in np.eye(3)
        ]
        columns += [flat, np.ones_like(flat) * (1, 0), np.ones_like(flat) * (0, 1)]
        columns += list(scale * seen_from(values[:3], self.modes))
        return scale * flat + shift, np.stack([column.ravel() for column in columns], axis=1)
