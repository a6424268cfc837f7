"""FSIM against its published properties, figures of another implementation, and a direct one.

The direct implementation follows the paper place by place, with numpy alone and none of the
rearrangements of the tested one.
"""

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as F

from face_destyle.fsim import fsim, phase_congruency

Array = np.ndarray


def astronaut(top: int = 0, left: int = 160, height: int = 128, width: int = 128) -> torch.Tensor:
    """A crop of a photo in the public domain: `(1, 3, height, width)` in 0..255."""
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].double()
    return photo[..., top : top + height, left : left + width]


def blurred(photo: torch.Tensor, window: int = 5) -> torch.Tensor:
    return F.avg_pool2d(photo, window, 1, window // 2)


def noisy(photo: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, sigma, tuple(photo.shape)))
    return (photo + noise).clamp(0, 255)


# What the package piq 0.8.0 says in float64 of the crop and its change: FSIM, FSIMc. Its FSIMc
# drops the sign where colours are opposite, so it is compared on blurred pictures only.
FIGURES = [
    ((0, 160, 128, 128), "blurred", 0.832412, 0.832014),
    ((0, 160, 128, 128), "negative", 0.988973, None),
    ((0, 160, 128, 128), "mirrored", 0.698330, None),
    ((10, 150, 129, 131), "blurred", 0.824238, 0.823839),
    ((10, 150, 129, 131), "negative", 0.985223, None),
    ((10, 150, 129, 131), "mirrored", 0.641275, None),
    ((0, 100, 180, 200), "blurred", 0.838130, 0.837750),
    ((0, 0, 512, 512), "blurred", 0.941266, 0.940945),
    ((0, 0, 512, 512), "mirrored", 0.496936, None),
]
CHANGES = {
    "blurred": blurred,
    "negative": lambda photo: 255 - photo,
    "mirrored": lambda photo: photo.flip(-1),
}


@pytest.mark.parametrize(("crop", "change", "luma", "colour"), FIGURES)
def test_figures_of_another_implementation(
    crop: tuple[int, int, int, int], change: str, luma: float, colour: float | None
) -> None:
    photo = astronaut(*crop)
    other = CHANGES[change](photo)
    assert fsim(photo, other).item() == pytest.approx(luma, abs=2e-5)
    if colour is not None:
        assert fsim(photo, other, chromatic=True).item() == pytest.approx(colour, abs=2e-5)


def direct_filters(rows: int, columns: int) -> list[list[Array]]:
    """The log-Gabor filters [orientation][scale], each number computed alone."""
    filters = [[np.zeros((rows, columns)) for _ in range(4)] for _ in range(4)]

    def frequency(index: int, length: int) -> float:
        steps = index if index < (length + 1) // 2 else index - length
        return steps / (length - 1 if length % 2 else length)

    for row in range(rows):
        for column in range(columns):
            y, x = frequency(row, rows), frequency(column, columns)
            radius = np.hypot(x, y)
            if radius == 0:
                continue
            low_pass = 1 / (1 + (radius / 0.45) ** 30)
            theta = np.arctan2(-y, x)
            for orientation in range(4):
                angle = orientation * np.pi / 4
                sine = np.sin(theta) * np.cos(angle) - np.cos(theta) * np.sin(angle)
                cosine = np.cos(theta) * np.cos(angle) + np.sin(theta) * np.sin(angle)
                distance = abs(np.arctan2(sine, cosine))
                spread = np.exp(-(distance**2) / (2 * (np.pi / 4 / 1.2) ** 2))
                for scale in range(4):
                    centre = 1 / (6 * 2**scale)
                    gain = np.exp(-(np.log(radius / centre) ** 2) / (2 * np.log(0.55) ** 2))
                    filters[orientation][scale][row, column] = gain * low_pass * spread
    return filters


def direct_congruency(luma: Array) -> Array:
    rows, columns = luma.shape
    spectrum = np.fft.fft2(luma)
    energy_all, amplitude_all = np.zeros_like(luma), np.zeros_like(luma)
    for bank in direct_filters(rows, columns):
        responses = [np.fft.ifft2(spectrum * gain) for gain in bank]
        kernels = [np.fft.ifft2(gain).real * np.sqrt(rows * columns) for gain in bank]
        even, odd = sum(r.real for r in responses), sum(r.imag for r in responses)
        length = np.sqrt(even**2 + odd**2) + 1e-4
        mean_even, mean_odd = even / length, odd / length
        energy = np.zeros_like(luma)
        for response in responses:
            energy += response.real * mean_even + response.imag * mean_odd
            energy -= abs(response.real * mean_odd - response.imag * mean_even)
        noise = -np.median(abs(responses[0]) ** 2) / np.log(0.5) / (bank[0] ** 2).sum()
        squares = sum((kernel**2).sum() for kernel in kernels)
        products = sum((kernels[i] * kernels[j]).sum() for i in range(4) for j in range(i + 1, 4))
        tau = np.sqrt((2 * noise * squares + 4 * noise * products) / 2)
        mean, sigma = tau * np.sqrt(np.pi / 2), np.sqrt((2 - np.pi / 2) * tau**2)
        energy_all += np.maximum(energy - (mean + 2 * sigma) / 1.7, 0)
        amplitude_all += sum(abs(response) for response in responses)
    return energy_all / amplitude_all


def direct_gradient(luma: Array) -> Array:
    rows, columns = luma.shape
    padded = np.pad(luma, 1)
    result = np.zeros_like(luma)
    for row in range(rows):
        for column in range(columns):
            window = padded[row : row + 3, column : column + 3]
            across = (window[:, 0] - window[:, 2]) @ np.array([3, 10, 3]) / 16
            down = (window[0] - window[2]) @ np.array([3, 10, 3]) / 16
            result[row, column] = np.hypot(across, down)
    return result


def test_one_picture_for_all() -> None:
    photos = torch.cat([astronaut(), astronaut(0, 0), astronaut(0, 128)])
    others = noisy(photos, 20)
    together = fsim(others, photos[:1])
    singles = torch.cat([fsim(others[n : n + 1], photos[:1]) for n in range(3)])
    assert torch.allclose(together, singles, atol=1e-6)
    assert together[0] > together[1:].max()


def direct_fsim(first: Array, second: Array) -> tuple[float, float]:
    """FSIM and FSIMc of two `(H, W, 3)` pictures in 0..255, sides below 384."""
    matrix = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    (y1, i1, q1), (y2, i2, q2) = (
        np.moveaxis(picture @ matrix.T, 2, 0) for picture in (first, second)
    )

    def alike(a: Array, b: Array, constant: float) -> Array:
        return (2 * a * b + constant) / (a**2 + b**2 + constant)

    pc1, pc2 = direct_congruency(y1), direct_congruency(y2)
    likeness = alike(pc1, pc2, 0.85) * alike(direct_gradient(y1), direct_gradient(y2), 160)
    colour = alike(i1, i2, 200) * alike(q1, q2, 200)
    weight = np.maximum(pc1, pc2)
    chromatic = likeness * np.real(colour.astype(complex) ** 0.03)
    total = weight.sum()
    return (likeness * weight).sum() / total, (chromatic * weight).sum() / total


@pytest.mark.parametrize("side", [(48, 40), (37, 43)])
@pytest.mark.parametrize("change", ["noisy", "negative", "swapped"])
def test_direct_implementation(side: tuple[int, int], change: str) -> None:
    photo = astronaut(60, 180, *side)
    # Complementary and swapped colours make the product of the chromatic parts negative.
    other = {"noisy": noisy(photo, 40), "negative": 255 - photo, "swapped": photo.flip(1)}[change]
    first, second = (batch[0].permute(1, 2, 0).numpy() for batch in (photo, other))
    luma, colour = direct_fsim(first, second)
    assert fsim(photo, other).item() == pytest.approx(luma, abs=1e-6)
    assert fsim(photo, other, chromatic=True).item() == pytest.approx(colour, abs=1e-6)


@pytest.mark.parametrize("chromatic", [False, True])
def test_a_picture_equals_itself(chromatic: bool) -> None:
    assert fsim(astronaut(), astronaut(), chromatic).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("chromatic", [False, True])
def test_symmetry(chromatic: bool) -> None:
    photo, other = astronaut(), astronaut(200, 200)
    there, back = fsim(photo, other, chromatic), fsim(other, photo, chromatic)
    assert there.item() == pytest.approx(back.item(), abs=1e-6)


@pytest.mark.parametrize("chromatic", [False, True])
def test_range(chromatic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(4, 3, 48, 48, generator=generator) * 255 for _ in range(2))
    scores = fsim(first, second, chromatic)
    assert (scores > 0).all()
    assert (scores < 1).all()


@pytest.mark.parametrize("chromatic", [False, True])
def test_more_noise_and_more_blur_are_less_alike(chromatic: bool) -> None:
    photo = astronaut()
    by_noise = [fsim(photo, noisy(photo, s), chromatic).item() for s in (0, 5, 15, 40, 100)]
    assert by_noise == sorted(by_noise, reverse=True)
    by_blur = [fsim(photo, blurred(photo, w), chromatic).item() for w in (1, 3, 5, 9, 17)]
    assert by_blur == sorted(by_blur, reverse=True)
    assert by_noise[0] - by_noise[-1] > 0.3
    assert by_blur[0] - by_blur[-1] > 0.2


def test_mirroring_and_turning_both_changes_little() -> None:
    photo, other = astronaut(), blurred(astronaut())
    score = fsim(photo, other).item()
    for change in (lambda p: p.flip(-1), lambda p: p.flip(-2), lambda p: p.transpose(-1, -2)):
        assert fsim(change(photo), change(other)).item() == pytest.approx(score, abs=5e-3)


def test_brighter_changes_less_than_blur() -> None:
    photo = astronaut() * 0.7
    assert fsim(photo, photo + 40).item() > 0.98
    assert fsim(photo, blurred(photo)).item() < 0.9


def test_colour_matters_to_fsimc_alone() -> None:
    photo = astronaut()
    grey = (photo * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    grey = grey.expand_as(photo)
    assert fsim(photo, grey).item() == pytest.approx(1, abs=1e-5)
    assert fsim(photo, grey, chromatic=True).item() < 0.999


def test_flat_pictures() -> None:
    flat = torch.full((1, 3, 32, 32), 90.0)
    assert fsim(flat, flat).item() == pytest.approx(1)
    assert torch.isfinite(fsim(flat, astronaut(0, 160, 32, 32))).all()


def test_phase_congruency_finds_edges_whatever_their_contrast() -> None:
    faint, strong = (torch.zeros(1, 64, 64, dtype=torch.float64) for _ in range(2))
    faint[..., 32:], strong[..., 32:] = 10, 100
    first, second = phase_congruency(faint), phase_congruency(strong)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.allclose(first, second, atol=0.01)
    assert second[..., 31:33].min() > 0.5


def test_phase_congruency_does_not_take_noise_for_features() -> None:
    step = torch.zeros(1, 64, 64, dtype=torch.float64)
    step[..., 32:] = 100
    found = phase_congruency(noisy(step + 70, 5))
    assert found[..., 31:33].mean() > 2.5 * found[..., 8:24].mean()


def test_batch_and_dtype() -> None:
    photos = torch.cat([astronaut(), astronaut(200, 200)])
    others = noisy(photos, 20)
    scores = fsim(photos, others)
    assert scores.dtype == torch.float32
    singles = [fsim(photos[n : n + 1], others[n : n + 1]).item() for n in range(2)]
    assert scores.tolist() == pytest.approx(singles, abs=1e-6)
    assert torch.allclose(fsim(photos.float(), others.float()), scores, atol=1e-5)
