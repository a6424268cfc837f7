"""The fit finds the head that the landmarks were taken from."""

from pathlib import Path

import numpy as np
import pytest

from face_destyle.errors import UserError, WeightsError
from tests.train import heads
from train.mesh import FIDUCIALS, FIVE, Fit, Fitter, HeadMesh, points_of, rotation


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> HeadMesh:
    return HeadMesh.load(heads.mesh(tmp_path_factory.mktemp("mesh") / "head.npz"))


def seen(mesh: HeadMesh, groups: object = FIVE, **values: float) -> np.ndarray:
    """Landmarks in a picture, of a head in a known pose."""
    pose = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "scale": 6.0, **values}
    shift = np.array([64, 76], np.float32)
    fit = Fit(mesh.neutral, **pose, shift=shift, residual=0)
    return fit.project(points_of(mesh.neutral, mesh, groups))[:, :2]  # type: ignore[arg-type]


@pytest.mark.parametrize("yaw", [-10, 0, 10])
def test_five_landmarks_tell_the_pose(mesh: HeadMesh, yaw: float) -> None:
    fit = Fitter(mesh, FIVE).fit(seen(mesh, yaw=yaw, roll=4, scale=5))
    assert fit.yaw == pytest.approx(yaw, abs=1.5)
    assert fit.roll == pytest.approx(4, abs=1)
    assert fit.scale == pytest.approx(5, rel=0.02)
    assert np.allclose(fit.shift, (64, 76), atol=1)
    assert fit.residual < 0.3


def test_all_landmarks_tell_pitch_too(mesh: HeadMesh) -> None:
    groups = (*FIDUCIALS, *FIVE)
    fit = Fitter(mesh, groups).fit(seen(mesh, groups, yaw=5, pitch=8))
    assert fit.yaw == pytest.approx(5, abs=1)
    assert fit.pitch == pytest.approx(8, abs=2)
    assert fit.residual < 0.5


def test_a_wider_head_is_found_wider(mesh: HeadMesh) -> None:
    groups = (*FIDUCIALS, *FIVE)
    wide = HeadMesh(mesh.shape(np.array([2, 0, 0], np.float32)), *_rest(mesh))
    fit = Fitter(mesh, groups).fit(seen(wide, groups))

    def ratio(head: np.ndarray) -> float:
        return float(np.ptp(head[:, 0]) / np.ptp(head[:, 1]))

    assert ratio(fit.head) == pytest.approx(ratio(wide.neutral), rel=0.02)
    assert ratio(fit.head) > ratio(mesh.neutral) * 1.05


def _rest(mesh: HeadMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return mesh.shapes, mesh.triangles, mesh.landmarks


def test_one_wrong_landmark_does_not_turn_the_head(mesh: HeadMesh) -> None:
    groups = (*FIDUCIALS, *FIVE)
    landmarks = seen(mesh, groups)
    landmarks[0] += 30
    fit = Fitter(mesh, groups).fit(landmarks)
    assert abs(fit.yaw) < 3 and abs(fit.roll) < 3


def test_directions() -> None:
    nose = np.array([0, 0, 1], np.float32)
    assert (rotation(30, 0) @ nose)[0] == pytest.approx(0.5)  # to the right of the picture
    assert (rotation(0, 30) @ nose)[1] == pytest.approx(-0.5)  # down: y points up
    up = np.array([0, 1, 0], np.float32)
    assert (rotation(0, 0, 30) @ up)[0] == pytest.approx(0.5)  # clockwise
    assert np.allclose(rotation(20, 10, 5) @ rotation(20, 10, 5).T, np.eye(3), atol=1e-6)


def test_openings_are_closed_but_the_neck(tmp_path: Path) -> None:
    path = heads.mesh(tmp_path / "head.npz")
    whole = HeadMesh.load(path)
    content = dict(np.load(path))
    eye = content["lm68_multipie"][36]
    content["triangles"] = content["triangles"][(content["triangles"] != eye).all(1)]
    np.savez(path, **content)
    cut = HeadMesh.load(path)
    # The pole at the top is closed in both; the eye that was cut out gets a middle of its own.
    assert len(cut.neutral) == len(whole.neutral) + 1
    assert (
        np.linalg.norm(cut.neutral[-1] - cut.neutral[eye]) < 1
        or np.linalg.norm(cut.neutral[-2] - cut.neutral[eye]) < 1
    )
    a, b, c = (cut.neutral[cut.triangles[:, k]] for k in range(3))
    outwards = (np.cross(b - a, c - a) * (a - heads.MIDDLE)).sum(1)
    assert (outwards > -1e-6).mean() > 0.98


def test_errors_say_what_is_needed(mesh: HeadMesh, tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, mean=np.zeros(3))
    text = tmp_path / "text.npz"
    text.write_text("no mesh")
    for path, said in ((tmp_path / "none.npz", "npz"), (other, "neutral"), (text, "no npz file")):
        with pytest.raises(WeightsError, match=said) as caught:
            HeadMesh.load(path)
        assert "\n" not in str(caught.value)
    fitter = Fitter(mesh, FIVE)
    with pytest.raises(UserError, match="5 landmarks"):
        fitter.fit(np.zeros((4, 2)))
    with pytest.raises(UserError, match="no upright face"):
        fitter.fit(-seen(mesh))
    with pytest.raises(UserError):
        fitter.fit(np.full((5, 2), np.nan))
