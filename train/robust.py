"""Changes that a classifier falls for, made to train it against them."""

from collections.abc import Callable

import torch


def attacked(
    pictures: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], reach: float
) -> torch.Tensor:
    """Pictures `(N, C, H, W)` in [-1, 1] changed so that a loss rises, each by at most `reach`.

    The length is that of the change as one vector. A generator that is to please a classifier
    finds such changes before it finds what the attribute looks like; one that withstands them can
    be pleased by what is seen (Wong et al. 2020: one step from a random start).

    Args:
        pictures: of a batch.
        loss: of these pictures, a number.
        reach: 0 leaves the pictures as they are.
    """
    if not reach:
        return pictures
    change = _of_length(torch.randn_like(pictures), reach * torch.rand(len(pictures), 1, 1, 1))
    change.requires_grad_()
    (slope,) = torch.autograd.grad(loss(pictures + change), change)
    change = change.detach() + _of_length(slope, torch.tensor(1.25 * reach))
    length = change.flatten(1).norm(dim=1).clamp(max=reach)[:, None, None, None]
    return (pictures + _of_length(change, length)).clamp(-1, 1)


def _of_length(changes: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    whole = changes.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
    return changes / whole * length
