"""How alike a recovered face and the true photo are: to the pixel, to the eye, as a person.

Pictures are `(N, 3, H, W)` RGB in [-1, 1]; what is outside is clipped. Every score is one number
a picture, so that means, intervals and paired differences can be taken of it.
"""

from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from face_destyle import fsim as feature_similarity
from face_destyle.errors import UserError

LUMA = (0.299, 0.587, 0.114)
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
BOOTSTRAP_ROUNDS = 10_000
ROUNDS_AT_A_TIME = 500


def psnr(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio over RGB, in dB: `(N,)`; infinite for equal pictures.

    Raises:
        ValueError: the shapes differ, or are not `(N, 3, H, W)`.
        UserError: the extra `eval` is not installed.
    """
    fake, real = _to_255(fake, real)
    torchmetrics = _torchmetrics()
    return torchmetrics.peak_signal_noise_ratio(  # type: ignore[no-any-return]
        fake, real, data_range=255.0, reduction="none", dim=(1, 2, 3)
    ).float()


def ssim(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Structural similarity of luma (Gaussian window 11 x 11, sigma 1.5): `(N,)`, 1 for equal.

    The mean is over the places where the whole window lies inside the picture, as in the
    authors' release and in scikit-image.

    Raises:
        ValueError: the shapes differ, are not `(N, 3, H, W)`, or a side is below 11.
        UserError: the extra `eval` is not installed.
    """
    fake, real = _to_255(fake, real)
    if min(fake.shape[2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM takes sides of {SSIM_WINDOW} or more, not {tuple(fake.shape)}")
    torchmetrics = _torchmetrics()
    _, places = torchmetrics.structural_similarity_index_measure(
        # In float32: the windows are seven times faster, and the score moves by less than 1e-5.
        _luma(fake).float(),
        _luma(real).float(),
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    edge = SSIM_WINDOW // 2
    scores: torch.Tensor = places[..., edge:-edge, edge:-edge].mean((1, 2, 3))
    return scores.float()


def fsim(fake: torch.Tensor, real: torch.Tensor, chromatic: bool = False) -> torch.Tensor:
    """Feature similarity of luma, or of colour too where `chromatic`: `(N,)`, 1 for equal.

    `real` may be one picture, `(1, 3, H, W)`: all are compared with it, in half the time.

    Raises:
        ValueError: the shapes differ otherwise, or are not `(N, 3, H, W)`.
    """
    shared = len(real) == 1 and real.shape[1:] == fake.shape[1:]
    fake_255, real_255 = _to_255(fake, real.expand_as(fake) if shared else real)
    return feature_similarity.fsim(fake_255, real_255[:1] if shared else real_255, chromatic)


def identity_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Cosine of embeddings `(N, D)`, row by row: `(N,)` in [-1, 1]."""
    return F.cosine_similarity(first.float(), second.float(), dim=1)


def rank1(
    query: torch.Tensor,
    gallery: torch.Tensor,
    query_identities: torch.Tensor,
    gallery_identities: torch.Tensor,
) -> torch.Tensor:
    """Whether the nearest of the gallery, by cosine, is the same person.

    Args:
        query, gallery: embeddings `(N, D)` and `(M, D)`.
        query_identities, gallery_identities: `(N,)` and `(M,)` integers.

    Returns:
        `(N,)` bool.
    """
    cosines = F.normalize(query.float(), dim=1) @ F.normalize(gallery.float(), dim=1).T
    return gallery_identities[cosines.argmax(1)] == query_identities


def bootstrap_interval(values: torch.Tensor | npt.ArrayLike, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean, by resampling `(N,)` values; of a paired difference too.

    Raises:
        ValueError: no value.
    """
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"an interval takes one row of values, not shape {samples.shape}")
    generator = np.random.default_rng(seed)
    means = [
        samples[generator.integers(samples.size, size=(ROUNDS_AT_A_TIME, samples.size))].mean(1)
        for _ in range(BOOTSTRAP_ROUNDS // ROUNDS_AT_A_TIME)
    ]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def _to_255(fake: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip, and scale to 0..255 in float64."""
    if fake.shape != real.shape or fake.dim() != 4 or fake.shape[1] != 3:
        raise ValueError(
            "two batches of the same shape (N, 3, H, W) can be compared, "
            f"not {tuple(fake.shape)} and {tuple(real.shape)}"
        )
    return (fake.double().clamp(-1, 1) + 1) * 127.5, (real.double().clamp(-1, 1) + 1) * 127.5


def _luma(pictures: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(LUMA, dtype=pictures.dtype, device=pictures.device)
    return (pictures * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def _torchmetrics() -> ModuleType:
    try:
        from torchmetrics.functional import image
    except ImportError as error:
        raise UserError(
            "PSNR and SSIM need torchmetrics: pip install 'face-destyle[eval]'"
        ) from error
    return image


def equal_error(scores: torch.Tensor, known: torch.Tensor) -> float:
    """The score at which false positives are as frequent as false negatives; nan for no such.

    Args:
        scores: of faces, `(N,)`.
        known: 1 with, 0 without, nan for unknown.
    """
    without, with_it = scores[known == 0].sort().values, scores[known == 1].sort().values
    if not len(without) or not len(with_it):
        return float("nan")
    every = torch.cat([without, with_it]).unique()  # type: ignore[no-untyped-call]
    # Between two scores, where a rounding cannot turn one over.
    places = torch.cat([every[:1] - 1, (every[1:] + every[:-1]) / 2, every[-1:] + 1])
    missed = torch.searchsorted(with_it, places).double() / len(with_it)
    alarms = 1 - torch.searchsorted(without, places).double() / len(without)
    near = (missed - alarms).abs()
    best = places[near == near.min()]
    return float((best[0] + best[-1]) / 2)
