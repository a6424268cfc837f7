"""Tiny photos: where the face lies in them, what they lose, and the same from the same numbers."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import default_collate

from face_destyle import images
from face_destyle.models.similarity import parameters_of, warp
from tests import drawn
from tests.train import made
from train.misalign import MisalignConfig
from train.tiny import TinyConfig, draw_tiny, jpeg, make_tiny, named_tiny

STILL = MisalignConfig(angle=0.0, scale=(1.0, 1.0), shift=0.0)
PLAIN = TinyConfig(turns=STILL, soft=0.0, noise=0.0, jpeg=0.0)


def draws(config: TinyConfig, count: int, seed: int = 0) -> dict[str, Any]:
    items = [draw_tiny(config, np.random.default_rng((seed, row))) for row in range(count)]
    collated: dict[str, Any] = default_collate(items)
    return collated


def levels(one: torch.Tensor, two: torch.Tensor) -> float:
    """Mean distance in 8-bit levels."""
    return float((one - two).abs().mean() * 127.5)


class TestDraw:
    def test_bounds_and_chances(self) -> None:
        found = draws(TinyConfig(), 2000)
        angle, scale, x, y = parameters_of(found["alignment"]).unbind(1)
        assert angle.abs().max() <= 30.001 and angle.min() < -28 and angle.max() > 28
        assert scale.min() + 1e-6 >= 0.8 and scale.max() <= 1.00001 and scale.std() > 0.05
        assert max(x.abs().max(), y.abs().max()) <= 6.41
        for name, chance in (("soft", 0.3), ("noise", 0.4), ("quality", 0.4)):
            assert (found[name] > 0).float().mean() == pytest.approx(chance, abs=0.04)
        used = found["quality"][found["quality"] > 0]
        assert used.min() >= 40 and used.max() <= 95
        assert found["noise"].max() <= 0.06
        assert found["corner"].min() == 0 and found["corner"].max() == 15

    def test_turning_one_change_off_leaves_the_others(self) -> None:
        one, two = draws(TinyConfig(), 20), draws(replace(TinyConfig(), noise=0.0), 20)
        assert not two["noise"].any()
        assert all(torch.equal(one[name], two[name]) for name in one if name != "noise")

    def test_by_name(self) -> None:
        first, again, other = (named_tiny(TinyConfig(), 0, key) for key in ("a", "a", "b"))
        assert torch.equal(first["alignment"], again["alignment"])
        assert not torch.equal(first["alignment"], other["alignment"])

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"quality": (90.0, 30.0)}, "from 1 to 100"),
            ({"quality": (50.0,)}, "quality is"),
            ({"sigma": -1.0}, "sigma starts at 0"),
        ],
    )
    def test_bounds_that_are_none(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TinyConfig(**fields)


class TestReduction:
    def test_it_is_that_of_recover(self) -> None:
        """The filter that a user's picture goes through is another, but nearly the same."""
        tiny = make_tiny(drawn.faces(3), draws(PLAIN, 3))
        assert tiny.shape == (3, 3, 16, 16)
        assert levels(tiny, drawn.faces(3, 16)) < 4
        strided = F.interpolate(drawn.faces(3), size=(16, 16), mode="nearest")
        assert levels(strided, drawn.faces(3, 16)) > 8

    def test_from_a_coarser_copy_it_is_the_same(self) -> None:
        config = TinyConfig(noise=0.0, jpeg=0.0)
        numbers = draws(config, 4)
        fine = make_tiny(drawn.faces(4), numbers)
        coarse = make_tiny(drawn.faces(4, 64), numbers)
        assert levels(fine, coarse) < 3

    def test_the_alignment_brings_the_face_back(self) -> None:
        numbers = draws(replace(PLAIN, turns=TinyConfig().turns), 8)
        faces = drawn.faces(8)
        large = make_tiny(faces, numbers, side=128)
        for row in range(8):
            pair = [slice(row, row + 1)] * 2
            back = warp(large[pair[0]], numbers["alignment"][pair[1]])
            assert made.circle_psnr(back, faces[pair[0]]) > 24
            assert made.circle_psnr(large[pair[0]], faces[pair[0]]) < 22

    def test_the_softer_filter_is_softer(self) -> None:
        numbers = draws(PLAIN, 2)
        soft = make_tiny(drawn.faces(2), numbers | {"soft": torch.ones(2)})
        sharp = make_tiny(drawn.faces(2), numbers)
        assert soft.std() < sharp.std()

    def test_a_batch_is_its_singles(self) -> None:
        numbers, faces = draws(replace(TinyConfig(), noise=0.8, jpeg=0.8), 6), drawn.faces(6)
        together = make_tiny(faces, numbers)
        for row in range(6):
            one = {name: value[row : row + 1] for name, value in numbers.items()}
            # A rounded wave may fall to the other side where sums round differently.
            assert levels(make_tiny(faces[row : row + 1], one), together[row : row + 1]) < 0.5

    def test_noise(self) -> None:
        clean = torch.zeros(4, 3, 64, 64)
        numbers = draws(PLAIN, 4) | {"noise": torch.tensor([0.0, 0.05, 0.1, 0.1])}
        found = make_tiny(clean, numbers).flatten(1).std(1)
        assert found[0] == 0
        assert torch.allclose(found[1:], torch.tensor([0.05, 0.1, 0.1]), rtol=0.15)
        assert not torch.equal(*make_tiny(clean, numbers)[2:])
        assert torch.equal(make_tiny(clean, numbers), make_tiny(clean, numbers))


class TestJPEG:
    @pytest.mark.parametrize("quality", [30, 60, 90])
    def test_it_is_near_to_a_file(self, quality: int) -> None:
        for seed in range(4):
            picture = drawn.face(seed, 16)
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality, subsampling=2)
            true = images.to_tensor([Image.open(file).convert("RGB")], 16)
            given = images.to_tensor([picture], 16)
            found = jpeg(given, torch.tensor([float(quality)]), torch.zeros(1, 2, dtype=torch.long))
            # Decoders smooth chroma in ways of their own.
            assert levels(found, true) < 0.5 * levels(given, true) + 1

    def test_less_quality_loses_more(self) -> None:
        faces = drawn.faces(4, 16)
        corner = torch.tensor([[0, 0], [3, 5], [8, 15], [11, 2]])
        lost = [levels(jpeg(faces, torch.full((4,), q), corner), faces) for q in (10.0, 40.0, 95.0)]
        assert lost[0] > 1.5 * lost[1] > 1.5 * lost[2] > 0

    def test_the_grid_begins_where_the_corner_says(self) -> None:
        """One block of the grid, level within: it is left alone; laid across it is not."""
        face = torch.zeros(1, 3, 16, 16)
        face[..., 8:] = 0.8
        harsh = torch.tensor([10.0])
        whole, across = (levels(jpeg(face, harsh, torch.tensor([[0, x]])), face) for x in (0, 4))
        assert across > 2 * whole

    def test_another_size(self) -> None:
        face = drawn.faces(1, 24)
        found = jpeg(face, torch.tensor([90.0]), torch.tensor([[15, 15]]))
        assert found.shape == face.shape and levels(found, face) < 12
