"""The convolution blocks that the studies share."""

from collections.abc import Sequence
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


class Doubling(nn.UpsamplingNearest2d):
    """Twice the side by nearest neighbours, in the precision that comes in.

    Autocast on a CPU would go to float32 and back for it, a tenth of a training step.
    """

    def __init__(self) -> None:
        super().__init__(scale_factor=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` -> `(N, C, 2H, 2W)`."""
        kind = features.device.type
        if not torch.is_autocast_enabled(kind):
            return super().forward(features)
        with torch.autocast(kind, enabled=False):
            return super().forward(features)


def decoder_levels(
    channels: int,
    widths: Sequence[int],
    kernels: Sequence[int],
    blocks: Sequence[int],
    joined: Sequence[int],
    norm: Norm,
) -> list[nn.Sequential]:
    """The levels of a decoder: `(N, C, S, S)` -> `(N, widths[n], 2S, 2S)` each.

    Each ends in a nearest-neighbour doubling, which leaves no checkerboard.

    Args:
        channels: of the map that the first level takes.
        widths, kernels, blocks: channels, kernel of the first layer and number of residual
            blocks of each level.
        joined: how many channels a skip connection adds to what each level gives; 0 for none.
        norm: of the layers.
    """
    levels = []
    for width, kernel, count, more in zip(widths, kernels, blocks, joined, strict=True):
        layers: list[nn.Module] = [ConvBlock(channels, width, kernel, norm=norm, slope=0.0)]
        layers += [ResidualBlock(width, norm, slope=0.0) for _ in range(count)]
        levels.append(nn.Sequential(*layers, Doubling()))
        channels = width + more
    return levels
