"""FSIM, the feature similarity index (Zhang, Zhang, Mou, Zhang: IEEE TIP 20(8), 2011).

Two pictures are alike where their phase congruency (how far the phases of all scales agree, so an
edge or a line whatever its contrast) and their gradient magnitude are alike; places with features
weigh more. Phase congruency is Kovesi's, with log-Gabor filters, as in the authors' release.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F

SCALES = 4
ORIENTATIONS = 4
MIN_WAVELENGTH = 6.0
WAVELENGTH_FACTOR = 2.0
BANDWIDTH = 0.55  # sigma of the log-Gabor over its centre frequency
ANGULAR_SIGMA = math.pi / ORIENTATIONS / 1.2
NOISE_SIGMAS = 2.0  # what is below the mean noise plus this many sigmas is no feature
ENERGY_FLOOR = 1e-4
T1, T2, T3, T4 = 0.85, 160.0, 200.0, 200.0
CHROMA_POWER = 0.03
CHUNK = 4
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
SCHARR = ((3 / 16, 0.0, -3 / 16), (10 / 16, 0.0, -10 / 16), (3 / 16, 0.0, -3 / 16))


class _Filters(NamedTuple):
    bank: torch.Tensor  # (orientations, scales, H, W): real, in the frequency domain
    power: torch.Tensor  # (orientations,): sum of squares of the finest filter
    overlap: torch.Tensor  # (orientations,): noise energy a unit of noise power leaves


class _Features(NamedTuple):
    yiq: torch.Tensor  # (N, 3, H, W)
    phase: torch.Tensor  # (N, H, W)
    gradient: torch.Tensor  # (N, H, W)


def fsim(fake: torch.Tensor, real: torch.Tensor, chromatic: bool = False) -> torch.Tensor:
    """Compare pictures.

    Args:
        fake: `(N, 3, H, W)` RGB in 0..255.
        real: of the same shape; or one picture, `(1, 3, H, W)`, that all are compared with.
        chromatic: FSIMc, which compares the colours too, instead of luma alone.

    Returns:
        `(N,)` float32, up to 1 for equal pictures.
    """
    # A few pictures at a time stay in the cache: twice as fast.
    fakes = torch.split(fake, CHUNK)
    if len(real) == 1:
        shared = _features(real)
        return torch.cat([_compare(_features(part), shared, chromatic) for part in fakes])
    pairs = zip(fakes, torch.split(real, CHUNK), strict=True)
    return torch.cat(
        [_compare(_features(one), _features(other), chromatic) for one, other in pairs]
    )


def _features(pictures: torch.Tensor) -> _Features:
    yiq = _yiq(pictures)
    luma = yiq[:, 0]
    return _Features(yiq, phase_congruency(luma), _gradient(luma))


def _compare(fake: _Features, real: _Features, chromatic: bool) -> torch.Tensor:
    likeness = _similarity(fake.phase, real.phase, T1)
    likeness = likeness * _similarity(fake.gradient, real.gradient, T2)
    if chromatic:
        chroma = _similarity(fake.yiq[:, 1], real.yiq[:, 1], T3)
        chroma = chroma * _similarity(fake.yiq[:, 2], real.yiq[:, 2], T4)
        # Opposite colours make it negative: the real part of its complex power is taken.
        sign = torch.where(chroma < 0, math.cos(math.pi * CHROMA_POWER), 1.0)
        likeness = likeness * chroma.abs() ** CHROMA_POWER * sign
    # Two flat pictures have no feature at all: every place weighs the same then.
    weight = torch.maximum(fake.phase, real.phase) + torch.finfo(likeness.dtype).tiny
    return ((likeness * weight).sum((1, 2)) / weight.sum((1, 2))).float()


def phase_congruency(luma: torch.Tensor) -> torch.Tensor:
    """Phase congruency of `(N, H, W)` float64 in 0..255: `(N, H, W)` in [0, 1]."""
    height, width = luma.shape[1:]
    filters = _filters(height, width)
    spectrum = torch.fft.fft2(luma)
    energies, amplitudes = torch.zeros_like(luma), torch.zeros_like(luma)
    for bank, power, overlap in zip(*(part.to(luma.device) for part in filters), strict=True):
        response = torch.fft.ifft2(spectrum[:, None] * bank)  # (N, scales, H, W), complex
        total = response.sum(1)
        direction = total / (_square(total).sqrt() + ENERGY_FLOOR)
        # Along the mean phase, less across it: rotate every response by the mean phase.
        turned = response * direction.conj()[:, None]
        energy = (turned.real - turned.imag.abs()).sum(1)
        squares = _square(response)
        threshold = _noise_threshold(squares[:, 0], power, overlap)
        energies += (energy - threshold[:, None, None]).clamp(min=0)
        amplitudes += squares.sqrt().sum(1)
    return energies / (amplitudes + torch.finfo(luma.dtype).tiny)


def _square(response: torch.Tensor) -> torch.Tensor:
    """The squared magnitude; `abs` of complex numbers is several times slower."""
    real, imaginary = response.real, response.imag
    return real * real + imaginary * imaginary


def _noise_threshold(
    finest: torch.Tensor, power: torch.Tensor, overlap: torch.Tensor
) -> torch.Tensor:
    """The energy that noise alone would have, from the squares of the finest responses.

    Their median is robust to the few places with features; squares of noise are exponentially
    distributed, and the summed amplitude Rayleigh.
    """
    values = finest.flatten(1)
    median = (values.median(1).values - (-values).median(1).values) / 2  # torch's is the lower one
    mean_square = -median / math.log(0.5)
    tau: torch.Tensor = (mean_square / power * overlap / 2).sqrt()
    rayleigh_mean, rayleigh_sigma = math.sqrt(math.pi / 2), math.sqrt(2 - math.pi / 2)
    # 1.7 is Kovesi's rescaling of the estimate.
    return tau * (rayleigh_mean + NOISE_SIGMAS * rayleigh_sigma) / 1.7


@lru_cache(maxsize=4)
def _filters(height: int, width: int) -> _Filters:
    y, x = torch.meshgrid(_frequencies(height), _frequencies(width), indexing="ij")
    radius, angle = torch.hypot(x, y), torch.atan2(-y, x)
    radius[0, 0] = 1  # the logarithm of the constant term; its gain is set to zero below
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    radial = []
    for scale in range(SCALES):
        centre = 1 / (MIN_WAVELENGTH * WAVELENGTH_FACTOR**scale)
        gain = torch.exp(-(torch.log(radius / centre) ** 2) / (2 * math.log(BANDWIDTH) ** 2))
        gain = gain * low_pass
        gain[0, 0] = 0
        radial.append(gain)
    angular = []
    for orientation in range(ORIENTATIONS):
        turned = angle - orientation * math.pi / ORIENTATIONS
        distance = torch.atan2(turned.sin(), turned.cos())
        angular.append(torch.exp(-(distance**2) / (2 * ANGULAR_SIGMA**2)))
    bank = torch.stack(angular)[:, None] * torch.stack(radial)
    kernels = torch.fft.ifft2(bank).real * math.sqrt(height * width)
    # sum of squares + 2 x sum over pairs = square of the sum; twice, for real and imaginary part
    overlap = 2 * (kernels.sum(1) ** 2).sum((1, 2))
    return _Filters(bank, (bank[:, 0] ** 2).sum((1, 2)), overlap)


def _frequencies(length: int) -> torch.Tensor:
    """-0.5 .. 0.5, in the order of the FFT; an odd length reaches both ends."""
    steps = torch.arange(length, dtype=torch.float64) - length // 2
    frequencies: torch.Tensor = torch.fft.ifftshift(steps / (length - length % 2))
    return frequencies


def _yiq(pictures: torch.Tensor) -> torch.Tensor:
    """RGB -> YIQ in float64, averaged down to a shorter side of about 256 where it is longer."""
    matrix = torch.tensor(RGB_TO_YIQ, dtype=torch.float64, device=pictures.device)
    yiq = torch.einsum("ij,njhw->nihw", matrix, pictures.double())
    factor = max(1, math.floor(min(yiq.shape[-2:]) / 256 + 0.5))
    before, after = factor - factor // 2 - 1, factor // 2
    pooled: torch.Tensor = F.avg_pool2d(F.pad(yiq, (before, after, before, after)), factor)
    return pooled


def _gradient(luma: torch.Tensor) -> torch.Tensor:
    across = torch.tensor(SCHARR, dtype=luma.dtype, device=luma.device)
    kernels = torch.stack((across, across.T))[:, None]
    gradients = F.conv2d(luma[:, None], kernels, padding=1)
    return gradients.square().sum(1).sqrt()


def _similarity(first: torch.Tensor, second: torch.Tensor, constant: float) -> torch.Tensor:
    return (2 * first * second + constant) / (first**2 + second**2 + constant)
