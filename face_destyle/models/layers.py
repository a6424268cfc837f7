"""The convolution blocks that the studies share."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Norm = Literal["instance", "group", "batch", "pixel", "none"]

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
    if kind == "pixel":
        return PixelNorm(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown normalization {kind!r}; use instance, group, batch, pixel or none")


class PixelNorm(nn.Module):
    """Each place of a map divided by the root mean square of its channels (Karras et al. 2018).

    It knows nothing of other places. Where a whole map is normalized, a generator keeps its
    strength to itself by one spike that outweighs all else in the statistics; a face has it on
    the nose, as soon as somebody asks for detail (Karras et al. 2020, section 2.1).
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` of any scale -> the same shape, with a scale and shift a channel."""
        power = features.square().mean(1, keepdim=True)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        return torch.addcmul(bias, features * (power + self.eps).rsqrt(), weight)


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
        # No layer before it needs its result to learn: in place it costs half.
        self.activation = nn.LeakyReLU(slope, inplace=True)

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


class JoiningConv2d(nn.Conv2d):
    """A convolution of two maps side by side, the first of which may come at half the side.

    Doubled by nearest neighbours a map has each number four times, and a convolution over it
    multiplies each as often. A transposed convolution with stride 2 gives the same numbers from 16
    products instead of 36 (for a kernel of 3), and no doubled map is ever made.

    Args:
        in_channels: of both maps together.
        out_channels: of the result.
        kernel: odd; the side stays.
        doubles: whether the first map comes at half the side.
        bias: as of every convolution.
    """

    spread: torch.Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, doubles: bool, bias: bool = True
    ):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
        self.doubles = doubles
        self.register_buffer("spread", spreading(kernel) if doubles else None, persistent=False)

    def forward(self, features: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """`(N, C, H, W)`, or of half the side, and `(N, C', H, W)` -> `(N, O, H, W)`."""
        side = self.kernel_size[0] // 2
        if not self.doubles:
            return super().forward(features if beside is None else torch.cat([features, beside], 1))
        channels = features.shape[1]
        kernel = self.doubling_kernel(self.weight[:, :channels])
        out = F.conv_transpose2d(features, kernel, self.bias, stride=2, padding=side)
        if beside is not None:
            out = out + F.conv2d(beside, self.weight[:, channels:], padding=side)
        return out

    def doubling_kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """`(O, I, K, K)` -> `(I, O, K + 1, K + 1)`, of the transposed convolution."""
        swapped = weight.transpose(0, 1)
        side = self.kernel_size[0] + 1
        return torch.unflatten(swapped.flatten(2) @ self.spread, 2, (side, side))


def spreading(kernel: int) -> torch.Tensor:
    """The matrix `(K K, (K + 1)(K + 1))` from a kernel to one that doubles its input too.

    A number of the small map stands at 2 x 2 places of the doubled one: each place of the kernel
    meets it at four. A transposed convolution counts its places from the other end.
    """
    places = torch.zeros(kernel, kernel, kernel + 1, kernel + 1)
    for down in range(kernel):
        for right in range(kernel):
            y, x = kernel - 1 - down, kernel - 1 - right
            places[down, right, y : y + 2, x : x + 2] = 1
    return places.reshape(kernel**2, (kernel + 1) ** 2)


class JoiningBlock(nn.Module):
    """A `ConvBlock` on two maps side by side, the first of which may come at half the side."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        doubles: bool,
        norm: Norm = "instance",
        slope: float = 0.0,
    ):
        super().__init__()
        self.conv = JoiningConv2d(in_channels, out_channels, kernel, doubles, norm == "none")
        self.norm = normalization(norm, out_channels)
        self.activation = nn.LeakyReLU(slope, inplace=True)

    def forward(self, features: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """As `JoiningConv2d.forward`."""
        return self.activation(self.norm(self.conv(features, beside)))  # type: ignore[no-any-return]


class DecoderLevel(nn.Sequential):
    """A `JoiningBlock`, then layers of one map: `(N, C, S, S)` -> `(N, W, S or 2S, ...)`."""

    def forward(self, features: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """As `JoiningConv2d.forward`; the layers after it take its result."""
        first, *others = self
        features = first(features, beside)
        for layer in others:
            features = layer(features)
        return features


def decoder_levels(
    channels: int,
    widths: Sequence[int],
    kernels: Sequence[int],
    blocks: Sequence[int],
    joined: Sequence[int],
    doubles: Sequence[bool],
    norm: Norm,
) -> list[DecoderLevel]:
    """The levels of a decoder, each of which has maps of twice the side of the one before.

    The doubling is by nearest neighbours, which leaves no checkerboard.

    Args:
        channels: of the map that the first level takes.
        widths, kernels, blocks: channels, kernel of the first layer and number of residual
            blocks of each level.
        joined: how many channels a skip connection adds to what each level gives; 0 for none.
        doubles: whether each level doubles what it takes.
        norm: of the layers.
    """
    levels = []
    rows = zip(widths, kernels, blocks, joined, doubles, strict=True)
    for width, kernel, count, more, double in rows:
        layers: list[nn.Module] = [JoiningBlock(channels, width, kernel, double, norm)]
        layers += [ResidualBlock(width, norm, slope=0.0) for _ in range(count)]
        levels.append(DecoderLevel(*layers))
        channels = width + more
    return levels
