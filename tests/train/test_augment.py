"""Changes of the portrait: each does what its name says, and none touches the photo's frame."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tests import drawn
from train.augment import PLAIN, AugmentConfig, augment, draw, mirror

EVERYTHING = AugmentConfig(
    blend=0.5, mix=0.5, permute=0.5, invert=0.5, grey=0.5, contrast=0.5, offset=0.5,
    sharpness=0.5, noise=0.3, patches=0.5, strokes=0.5,
)  # fmt: skip


def draws(count: int = 3, config: AugmentConfig = EVERYTHING, **fixed: Any) -> dict[str, Any]:
    """Collated numbers; with `fixed` ones in place of what was drawn."""
    items = [draw(config, np.random.default_rng(seed)) | fixed for seed in range(count)]
    return default_collate(items)


def plain(count: int = 3, **fixed: Any) -> dict[str, Any]:
    return draws(count, **(PLAIN | fixed))


def changed(**fixed: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Portraits before and after."""
    portraits, seconds, others = drawn.faces(9).split(3)
    return portraits, augment(portraits, seconds, others, plain(**fixed))


def test_a_plain_draw_changes_nothing() -> None:
    before, after = changed()
    assert torch.equal(before, after)


def test_the_chance_of_plain() -> None:
    found = [
        draw(AugmentConfig(plain=0.3, noise=0.1), np.random.default_rng(seed))["noise"] == 0
        for seed in range(1000)
    ]
    assert np.mean(found) == pytest.approx(0.3, abs=0.05)


def test_the_defaults_only_mirror() -> None:
    portraits, seconds, others = drawn.faces(9).split(3)
    assert torch.equal(
        augment(portraits, seconds, others, draws(config=AugmentConfig())), portraits
    )
    mirrored = [
        bool(draw(AugmentConfig(), np.random.default_rng(seed))["mirror"]) for seed in range(1000)
    ]
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.05)
    off = AugmentConfig(mirror=False)
    assert not any(draw(off, np.random.default_rng(seed))["mirror"] for seed in range(100))


def test_mirror_is_for_those_that_were_drawn() -> None:
    pictures = drawn.faces(3)
    numbers = {"mirror": torch.tensor([1.0, 0.0, 1.0])}
    found = mirror(pictures, numbers)
    assert torch.equal(found[0], pictures[0].flip(2))
    assert torch.equal(found[1], pictures[1])
    assert torch.equal(found[2], pictures[2].flip(2))


def test_the_same_numbers_for_the_same_seed() -> None:
    first, second = draws(), draws()
    assert all(torch.equal(first[name], second[name]) for name in first)
    portraits, seconds, others = drawn.faces(9).split(3)
    once = augment(portraits, seconds, others, first)
    assert torch.equal(once, augment(portraits, seconds, others, second))
    assert once.shape == portraits.shape
    assert once.abs().max() <= 1
    assert not torch.equal(once, portraits)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    portraits, seconds, others = drawn.faces(9).split(3)
    numbers = draws()
    whole = augment(portraits, seconds, others, numbers)
    for i in range(3):
        one = slice(i, i + 1)
        single = {name: value[one] for name, value in numbers.items()}
        alone = augment(portraits[one], seconds[one], others[one], single)
        assert (alone - whole[one]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["blend", "noise", "patches", "strokes", "sharpness"])
def test_turning_one_change_off_leaves_the_others(name: str) -> None:
    values = {field: getattr(EVERYTHING, field) for field in vars(EVERYTHING)}
    less = AugmentConfig(**(values | {name: 0.0}))
    first, second = draws(20), draws(20, less)
    assert first[name].any() and not second[name].any()
    rest = first.keys() - {name}
    assert all(torch.equal(first[key], second[key]) for key in rest)


def test_colour_changes() -> None:
    def matrices(**chances: float) -> torch.Tensor:
        return draws(50, AugmentConfig(**chances))["matrix"]

    negative = matrices(invert=1.0)
    assert torch.equal(negative, -torch.eye(3).expand(50, 3, 3))
    permuted = matrices(permute=1.0)
    assert ((permuted == 0) | (permuted == 1)).all()
    assert (permuted.sum(1) == 1).all() and (permuted.sum(2) == 1).all()
    assert len(permuted.unique(dim=0)) == 6
    grey = matrices(grey=1.0)
    assert (grey - torch.tensor([0.299, 0.587, 0.114])).abs().max() < 1e-6
    factors = matrices(contrast=0.4)[:, 0, 0].log()
    assert factors.abs().max() <= 0.4 and factors.std() > 0.1
    offsets = draws(50, AugmentConfig(offset=0.3))["offset"]
    assert 0 < offsets.abs().max() <= 0.3
    before, after = changed(matrix=-np.eye(3, dtype=np.float32))
    assert torch.equal(after, -before)


def test_a_blend_lies_between_two_portraits() -> None:
    portraits, seconds, others = drawn.faces(9).split(3)
    after = augment(portraits, seconds, others, plain(blend=np.float32(0.25)))
    assert (after - (0.75 * portraits + 0.25 * seconds)).abs().max() < 1e-6


def test_sharpness_blurs_or_exaggerates() -> None:
    def edges(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.diff(dim=3).abs().mean()

    for wide in (0, 1):
        before, blurred = changed(sharpness=np.float32(-1), wide=np.int64(wide))
        _, sharp = changed(sharpness=np.float32(0.5), wide=np.int64(wide))
        assert edges(blurred) < edges(before) < edges(sharp)


def test_noise_has_its_strength_and_its_seed() -> None:
    grey = torch.zeros(2, 3, 128, 128)
    numbers = plain(2, noise=np.float32(0.1), seed=np.int64(3))
    numbers["seed"] = torch.tensor([3, 4])
    first, second = augment(grey, grey, grey, numbers)
    assert first.std().item() == pytest.approx(0.1, rel=0.02)
    assert not torch.equal(first, second)
    again = augment(grey, grey, grey, numbers)
    assert torch.equal(again[0], first)


def test_patches_are_planes_of_colour() -> None:
    grey = torch.zeros(1, 3, 128, 128)
    after = augment(grey, grey, grey, plain(1, patches=np.float32(0.2), grid=np.int64(0)))
    assert len(after.unique()) < 30  # few levels
    assert (after.diff(dim=3) == 0).float().mean() > 0.9  # hard edges, flat between
    assert after.std() > 0.05


def test_strokes_are_the_fine_part_of_another_portrait() -> None:
    portraits = drawn.faces(3)
    flat = torch.full_like(portraits, 0.3)
    numbers = plain(strokes=np.float32(0.8), turn=np.int64(1))
    assert (augment(portraits, portraits, flat, numbers) - portraits).abs().max() < 1e-6
    after = augment(torch.zeros_like(portraits), portraits, portraits.flip(0), numbers)
    assert after.abs().max() > 0.1
    assert after.mean((1, 2, 3)).abs().max() < 0.02
