"""The exponential moving average of a network's weights: what is evaluated and published."""

import copy
from typing import Any

import torch
from torch import nn


class EMA:
    """Average of `network`; the half-life is counted in images, whatever the batch size.

    Early in a run the half-life is at most a twentieth of the images seen, so the average does
    not drag the random start along (as in Karras et al., 2022).
    """

    RAMP = 0.05

    def __init__(self, network: nn.Module, half_life: int):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, network: nn.Module, batch_size: int, images_seen: int) -> None:
        """Take one step towards `network`."""
        half_life = min(self.half_life, self.RAMP * images_seen)
        decay = 0.5 ** (batch_size / max(half_life, 1e-8))
        averages: list[torch.Tensor] = list(self.network.parameters())
        current: list[torch.Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, current, 1 - decay)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take averaged weights back."""
        self.network.load_state_dict(state)
