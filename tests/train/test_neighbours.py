"""Photos with an attribute changed as their neighbours show it."""

import math
from typing import Any

import pytest
import torch

from train.neighbours import Neighbours

SIDE = 32


def faces(count: int, seed: int = 0) -> torch.Tensor:
    """Grey faces of two kinds, dark and light, with a little of their own each."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(0, 20, (count, 3, SIDE, SIDE), generator=generator)
    kinds = torch.arange(count) % 2 * 100
    return (own + kinds[:, None, None, None] + 40).byte()


def with_mouths(photos: torch.Tensor) -> torch.Tensor:
    """The dark faces' mouths are redder, the light ones' less red."""
    changed = photos.clone()
    changed[::2, 0, 20:26, 8:24] += 60
    changed[1::2, 0, 20:26, 8:24] -= 40
    return changed


@pytest.fixture(scope="module")
def neighbours() -> Neighbours:
    without = faces(40)
    labels = torch.zeros(80, 2)
    labels[40:, 0] = 1
    labels[:, 1] = math.nan
    return Neighbours(torch.cat([without, with_mouths(faces(40, seed=1))]), labels, count=12)


def change(neighbours: Neighbours, photo: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    found = neighbours.changed(photo, 0, **({"present": True, "strength": 1.0} | kwargs))
    assert found is not None and found.dtype == torch.uint8 and found.shape == photo.shape
    return found.float() - photo.float()


class TestNeighbours:
    @pytest.mark.parametrize(("kind", "height"), [(0, 60), (1, -40)])
    def test_the_change_is_that_of_alike_faces(
        self, neighbours: Neighbours, kind: int, height: int
    ) -> None:
        photo = faces(2, seed=2)[kind]
        moved = change(neighbours, photo)
        mouth = moved[:, 20:26, 8:24].mean((1, 2))
        expected = torch.tensor([height, 0.0, 0.0])
        torch.testing.assert_close(mouth, expected, atol=3, rtol=0)
        assert moved[:, :16].abs().mean() < 5

    def test_it_is_taken_away_too(self, neighbours: Neighbours) -> None:
        photo = with_mouths(faces(2, seed=2))[0]
        moved = change(neighbours, photo, present=False)
        assert moved[0, 20:26, 8:24].mean() == pytest.approx(-60, abs=3)

    def test_strength_and_bounds(self, neighbours: Neighbours) -> None:
        photo = faces(2, seed=2)[0]
        half = change(neighbours, photo, strength=0.5)
        assert half[0, 20:26, 8:24].mean() == pytest.approx(30, abs=2)
        assert (photo + change(neighbours, photo, strength=9)).max() == 255

    def test_of_larger_photos_too(self, neighbours: Neighbours) -> None:
        large = faces(40).repeat_interleave(4, 2).repeat_interleave(4, 3)
        labels = torch.zeros(80, 1)
        labels[40:] = 1
        mouths = with_mouths(faces(40, seed=1)).repeat_interleave(4, 2).repeat_interleave(4, 3)
        found = Neighbours(torch.cat([large, mouths]), labels, count=12)
        assert found.fine.shape[-1] == 64
        moved = change(found, large[0])
        assert moved.shape == (3, 128, 128)
        assert moved[0, 84:100, 40:88].mean() == pytest.approx(60, abs=3)

    def test_where_no_photo_shows_it_nothing_is_made(self, neighbours: Neighbours) -> None:
        assert neighbours.changed(faces(1)[0], 1, True, 1.0) is None
