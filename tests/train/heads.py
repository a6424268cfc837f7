"""A small head mesh of the tests' own, with the keys of ICT FaceKit: an ellipsoid with a nose."""

from pathlib import Path

import numpy as np

COLUMNS, ROWS = 72, 48
AXES = np.array([8.0, 11.5, 10.0])
MIDDLE = np.array([0.0, 2.5, 0.0])
# Where the 68 landmarks lie in the frontal plane: contour, brows, nose, eyes, mouth.
EYE = ((-1.2, 0.0), (-0.5, 0.4), (0.5, 0.4), (1.2, 0.0), (0.5, -0.4), (-0.5, -0.4))
NOSE_TIP = (0.0, 0.0)


def _landmarks() -> list[tuple[float, float]]:
    angles = np.linspace(0, np.pi, 17)
    contour = [(-6.5 * np.cos(angle), 2.5 - 9.0 * np.sin(angle)) for angle in angles]
    brows = [(x, 6.0) for x in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)]
    ridge = [(0.0, y) for y in (3.5, 2.5, 1.2)] + [NOSE_TIP]
    base = [(x, -1.2) for x in (-1.2, -0.6, 0, 0.6, 1.2)]
    eyes = [(middle + x, 3.5 + y) for middle in (-3.2, 3.2) for x, y in EYE]
    lips = [(2.8 * np.cos(a), -3.5 + 0.9 * np.sin(a)) for a in np.linspace(np.pi, -np.pi, 13)[:12]]
    inner = [(2.2 * np.cos(a), -3.5 + 0.2 * np.sin(a)) for a in np.linspace(np.pi, -np.pi, 9)[:8]]
    return [*contour, *brows, *ridge, *base, *eyes, *lips, *inner]


def _surface(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    nose = 3.0 * np.exp(-((x - NOSE_TIP[0]) ** 2 + (y - NOSE_TIP[1]) ** 2) / 2) * (z > 0)
    return np.stack([x, y, z + nose], axis=-1)


def mesh(path: Path) -> Path:
    """Write the mesh; its two identities are a wider and a longer head."""
    across = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)
    down = np.linspace(0.02, np.pi - 0.02, ROWS)
    theta, phi = np.meshgrid(down, across, indexing="ij")
    unit = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1)
    neutral = _surface(*np.moveaxis(unit * AXES + MIDDLE, -1, 0)).reshape(-1, 3)
    number = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    right = np.roll(number, -1, axis=1)
    a, b, c, d = (part.ravel() for part in (number[:-1], right[:-1], number[1:], right[1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    front = np.where(neutral[:, 2] > 0)[0]
    wanted = np.array(_landmarks())
    near = ((neutral[front, None, :2] - wanted) ** 2).sum(-1).argmin(0)
    identity = np.stack([neutral * (0.05, 0, 0), neutral * (0, 0.05, 0)])
    np.savez(
        path,
        neutral=neutral.astype(np.float32),
        identity=identity.astype(np.float16),
        expression=np.zeros((1, len(neutral), 3), np.float16),
        expression_names=np.array(["jawOpen"]),
        triangles=triangles.astype(np.int32),
        lm68_multipie=front[near].astype(np.int32),
    )
    return path
