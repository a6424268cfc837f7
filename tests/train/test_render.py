"""Turned heads: at angle 0 the photo, at others a head without holes, left as right."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.pasting import similarity
from tests import drawn
from tests.train import heads
from train.mesh import FIVE, Fitter, HeadMesh
from train.raster import fold, likeness, rasterize, sample, without
from train.render import TurnedHead, View, turned_head

FRAME = np.eye(2, 3, dtype=np.float32)
LANDMARKS = np.array(FRAME_LANDMARKS, np.float32)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> HeadMesh:
    return HeadMesh.load(heads.mesh(tmp_path_factory.mktemp("mesh") / "head.npz"))


def head(mesh: HeadMesh, picture: Image.Image, landmarks: np.ndarray = LANDMARKS) -> TurnedHead:
    return TurnedHead(mesh, Fitter(mesh, FIVE).fit(landmarks), picture, FRAME)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def smooth_face() -> Image.Image:
    """A drawn face without noise, which no resampling keeps."""
    return drawn.face().resize((32, 32), Image.Resampling.BOX).resize((128, 128))


def test_angle_0_is_the_photo(mesh: HeadMesh) -> None:
    photo = smooth_face()
    view = head(mesh, photo).render(View(0))
    assert view.shape == (128, 128, 3) and view.dtype == np.uint8
    assert psnr(view, np.asarray(photo)) > 35
    # The drawn lines lose no more than one resampling takes.
    assert psnr(head(mesh, drawn.face()).render(View(0)), np.asarray(drawn.face())) > 30


def red_nose(turned: TurnedHead, view: View) -> tuple[float, float]:
    """Where the red dot at the tip of the nose falls."""
    pixels = turned.render(view).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1:].max(-1) < 110)
    y, x = np.nonzero(red)
    return float(x.mean()), float(y.mean())


def test_the_nose_moves_where_the_head_turns(mesh: HeadMesh) -> None:
    pixels = np.full((128, 128, 3), 200, np.uint8)
    nose = LANDMARKS[2].round().astype(int)
    pixels[nose[1] - 3 : nose[1] + 4, nose[0] - 3 : nose[0] + 4] = (255, 0, 0)
    turned = head(mesh, Image.fromarray(pixels))
    x, y = red_nose(turned, View(0))
    assert red_nose(turned, View(30))[0] > x + 3
    assert red_nose(turned, View(-30))[0] < x - 3
    assert red_nose(turned, View(0, 15))[1] > y + 1
    assert red_nose(turned, View(0, -15))[1] < y - 1


def test_the_mirrored_photo_turns_the_other_way(mesh: HeadMesh) -> None:
    photo = smooth_face()
    flipped = (127 - LANDMARKS[[1, 0, 2, 4, 3]][:, :1], LANDMARKS[[1, 0, 2, 4, 3]][:, 1:])
    mirrored = head(mesh, ImageOps.mirror(photo), np.concatenate(flipped, axis=1))
    left, right = head(mesh, photo).render(View(40)), mirrored.render(View(-40))
    assert psnr(left, right[:, ::-1]) > 24
    assert psnr(left, right) < 22


@pytest.mark.parametrize("yaw", [-90, -45, -15, 15, 45, 90])
def test_no_holes_in_the_head(mesh: HeadMesh, yaw: float) -> None:
    """On one colour before another the head is one piece, and there is no third colour."""
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[..., 2] = 255
    turned = head(mesh, Image.fromarray(pixels))
    turned.texture[:] = turned.filled[:] = (255, 255, 0)
    view = turned.render(View(yaw)).astype(int)
    inside = view[..., 0] > 128
    assert (view[..., 0] + view[..., 2] > 250).all()
    assert 0.2 < inside.mean() < 0.95
    for row in inside[20:100]:
        assert np.abs(np.diff(row.astype(int))).sum() <= 2


def test_the_same_twice(mesh: HeadMesh) -> None:
    one, two = (head(mesh, drawn.face()) for _ in range(2))
    assert np.array_equal(one.render(View(50, 5)), two.render(View(50, 5)))
    assert np.array_equal(one.render(View(50, 5)), one.render(View(50, 5)))


def test_the_body_does_not_turn() -> None:
    line = np.stack([np.full(5, 1.0), [-14, -11, -9, -3, 5], np.zeros(5)], axis=1)
    turned = turned_head(line.astype(np.float32), View(90))
    assert np.allclose(turned[:2], line[:2], atol=1e-5)
    assert np.allclose(turned[3:, [0, 2]], (0, -1), atol=1e-5)
    assert 0 < turned[2, 0] < 1


def test_the_nearer_triangle_is_seen() -> None:
    square = np.array([[1, 1], [1, 6], [6, 1], [6, 6]], np.float32)
    corners = np.concatenate([np.insert(square, 2, height, 1) for height in (0, 5)])
    faces = np.array([[4, 5, 6], [6, 5, 7], [0, 1, 2], [2, 1, 3]])
    pixels, triangle, weights = rasterize(corners.astype(np.float32), faces, 8)
    assert len(pixels) == 36 and set(triangle) == {0, 1}
    points = (corners[faces[triangle]] * weights[..., None]).sum(1)
    assert np.allclose(points[:, 0], pixels % 8, atol=1e-4)
    assert np.allclose(points[:, 1], pixels // 8, atol=1e-4)
    assert not len(rasterize(corners.astype(np.float32), faces[:, ::-1], 8)[0])


def test_sampling_and_folding() -> None:
    texture = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    points = np.array([[0, 0], [1.5, 1], [2, 0.5], [-5, -5]], np.float32)
    assert np.allclose(sample(texture, points)[:, 0], [0, 5.5, 4, 0], atol=0.02)
    folded = fold(np.array([-1, 0, 2, 4, 5, 9], np.float32), 0, 4)
    assert np.allclose(folded, [1, 0, 2, 4, 3, 1])


def test_similarity_brings_points_onto_others() -> None:
    turn = np.array([[0, -2, 5], [2, 0, 7]], np.float32)
    target = LANDMARKS @ turn[:, :2].T + turn[:, 2]
    assert np.allclose(similarity(LANDMARKS, target), turn, atol=1e-3)


def test_a_masked_part_is_filled_from_around_it() -> None:
    pixels = np.asarray(Image.linear_gradient("L").resize((60, 60)).convert("RGB")).copy()
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    broken = pixels.copy()
    broken[mask] = 255
    filled = without(broken, mask)
    assert np.array_equal(filled[~mask], pixels[~mask])
    assert np.abs(filled.astype(int) - pixels)[mask].max() < 40


def test_likeness_tells_colours_apart() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:] = (200, 150, 120), (40, 60, 200)
    head_part, other = np.zeros((2, 40, 40), bool)
    head_part[:, :8], other[:, 32:] = True, True
    like = likeness(pixels, head_part, other)
    assert (like[:, :17] > 0).all() and (like[:, 23:] < 0).all()
    assert (likeness(pixels, head_part, np.zeros_like(other)) > 0).all()
