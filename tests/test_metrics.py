"""The metrics against their definitions and against other implementations."""

import math
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from face_destyle import metrics
from face_destyle.errors import UserError
from tests import drawn


def noisy(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    return (pictures + sigma * noise).clamp(-1, 1)


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return drawn.faces(3)


def test_psnr_is_its_definition(real: torch.Tensor) -> None:
    fake = noisy(real, 0.2)
    squares = ((fake - real).double() * 127.5).square().mean(dim=(1, 2, 3))
    assert torch.allclose(metrics.psnr(fake, real).double(), 10 * torch.log10(255**2 / squares))


def test_psnr_of_one_level() -> None:
    real = torch.zeros(1, 3, 16, 16)
    assert metrics.psnr(real + 1 / 127.5, real).item() == pytest.approx(48.1308, abs=1e-3)


def test_psnr_of_equal_pictures_is_infinite(real: torch.Tensor) -> None:
    assert metrics.psnr(real, real).tolist() == [math.inf] * 3


def test_ssim_equals_scikit_image(real: torch.Tensor) -> None:
    fake = noisy(real, 0.2)
    weights = np.array([0.299, 0.587, 0.114])
    for number, score in enumerate(metrics.ssim(fake, real)):
        first, second = (
            ((batch[number].permute(1, 2, 0).double().numpy() + 1) * 127.5) @ weights
            for batch in (fake, real)
        )
        expected = structural_similarity(
            first,
            second,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert score.item() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", ["psnr", "ssim", "fsim"])
def test_one_number_a_picture(name: str, real: torch.Tensor) -> None:
    score = getattr(metrics, name)
    fake = torch.stack([noisy(real[0], 0.05), noisy(real[1], 0.3), noisy(real[2], 0.6)])
    scores = score(fake, real)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    assert scores[0] > scores[1] > scores[2]
    singles = torch.cat([score(fake[n : n + 1], real[n : n + 1]) for n in range(3)])
    assert torch.allclose(scores, singles, atol=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim", "fsim"])
def test_outside_the_range_is_clipped(name: str, real: torch.Tensor) -> None:
    score = getattr(metrics, name)
    assert torch.equal(score(real * 3, real), score((real * 3).clamp(-1, 1), real))


@pytest.mark.parametrize("name", ["psnr", "ssim", "fsim"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 16), (1, 1, 32, 32), (3, 32, 32), (2, 3, 32, 32)])
def test_other_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    real = torch.zeros(3, 3, 32, 32) if shape != (1, 1, 32, 32) else torch.zeros(shape)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        getattr(metrics, name)(torch.zeros(shape), real)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_the_missing_extra_is_named(
    name: str, real: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional", None)
    with pytest.raises(UserError, match=r"pip install 'face-destyle\[eval\]'"):
        getattr(metrics, name)(real, real)


def test_ssim_takes_no_less_than_its_window() -> None:
    flat = torch.zeros(1, 3, 11, 11)
    # Of flat pictures the variance is rounding alone, and float32 has little of it to spare.
    assert metrics.ssim(flat, flat).tolist() == pytest.approx([1.0], abs=5e-4)
    with pytest.raises(ValueError, match="11 or more"):
        metrics.ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


def test_identity_cosine() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    second = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert metrics.identity_cosine(first, second).tolist() == [1.0, 0.0, -1.0]


def test_rank1_is_the_nearest_by_angle() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 100.0], [-1.0, 0.0]])
    query = torch.tensor([[9.0, 1.0], [0.1, 1.0], [-1.0, 2.0], [-3.0, 1.0]])
    found = metrics.rank1(query, gallery, torch.tensor([7, 8, 9, 9]), torch.tensor([7, 8, 9]))
    assert found.tolist() == [True, True, False, True]


def test_rank1_counts_another_photo_of_the_same_person() -> None:
    gallery = torch.eye(3)
    found = metrics.rank1(gallery[[0, 1]], gallery, torch.tensor([4, 5]), torch.tensor([4, 4, 5]))
    assert found.tolist() == [True, False]


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    values = torch.from_numpy(np.random.default_rng(1).normal(3, 2, 400))
    low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std().item() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean().item() - half, abs=0.012)
    assert high == pytest.approx(values.mean().item() + half, abs=0.012)
    assert metrics.bootstrap_interval(values) == (low, high)
    assert metrics.bootstrap_interval(values, seed=1) != (low, high)


def test_bootstrap_interval_of_a_constant_and_of_nothing() -> None:
    assert metrics.bootstrap_interval([2.0] * 5) == (2.0, 2.0)
    with pytest.raises(ValueError, match="one row of values"):
        metrics.bootstrap_interval([])
