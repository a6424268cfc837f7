"""The convolution blocks that the studies share."""

from typing import Literal

import torch
from torch import nn

Norm = Literal["instance", "group", "batch", "none"]

GROUPS = 8


def normalization(kind: Norm, channels: int) -> nn.Module:
    """Return the normalization layer of `channels` channels.

    `instance` and `group` look at one picture at a time, so a batch of n equals n singles in
    training too. Instance normalization is a group normalization with one channel a group:
    torch's own `InstanceNorm2d` leaves the channels_last layout and is several times slower.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.GroupNorm(channels, channels)
    if kind == "group":
        return nn.GroupNorm(min(GROUPS, channels), channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown normalization {kind!r}; use instance, group, batch or none")


class ConvBlock(nn.Module):
    """Convolution, normalization, leaky ReLU: `(N, C, H, W)` -> `(N, C', H / stride, ...)`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        norm: Norm = "instance",
        slope: float = 0.2,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            bias=norm == "none",  # every normalization subtracts or replaces a bias
        )
        self.norm = normalization(norm, out_channels)
        self.activation = nn.LeakyReLU(slope)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Apply the three."""
        return self.activation(self.norm(self.conv(features)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity; the shape stays."""

    def __init__(self, channels: int, norm: Norm = "instance", slope: float = 0.2):
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm, slope=slope)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none")
        self.norm = normalization(norm, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Add what the two convolutions find."""
        return features + self.norm(self.second(self.first(features)))  # type: ignore[no-any-return]
