"""FDNN, "Face Destylization" (Shiri et al., DICTA 2017; thesis chapter 3).

An aligned portrait goes through convolutions to feature maps of the stylized face, a fully
connected layer maps these to feature maps of the real face, and a decoder paints the photo.
There are no skip connections. A discriminator, used in training only, judges the result.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from face_destyle.models.base import FaceModel, HubModel, Recovered
from face_destyle.models.layers import ConvBlock, Norm, ResidualBlock


@dataclass(frozen=True)
class FDNNConfig:
    """The numbers of the style removal network.

    The defaults are the small network for a CPU; `FDNNConfig.paper()` is the authors' network
    without its spatial transformers, layer by layer.
    """

    image_size: int = 128
    stem_shuffle: int = 2  # space to depth before the first layer: no layer works at full size
    encoder_widths: tuple[int, ...] = (32, 64, 128, 160)
    encoder_kernels: tuple[int, ...] = (3, 3, 3, 3)
    encoder_blocks: tuple[int, ...] = (0, 1, 1, 1)
    pool: bool = False  # True: full-size convolution, then 2x2 max-pooling; False: stride 2
    code_rank: int = 48  # the full layer goes through this many numbers; 0: one full matrix
    code_residual: bool = True  # the full layer corrects its input instead of replacing it
    decoder_widths: tuple[int, ...] = (160, 128, 96)
    decoder_kernels: tuple[int, ...] = (3, 3, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    tail_width: int = 48  # one more layer after the last doubling
    head_kernel: int = 3  # of the tail too
    head_shuffle: int = 2  # the last doubling is a pixel shuffle: a quarter of the work
    norm: Norm = "instance"

    @classmethod
    def paper(cls) -> "FDNNConfig":
        """The widths of the authors' WACV network (papers 2.2) without spatial transformers."""
        return cls(
            stem_shuffle=1,
            encoder_widths=(16, 32, 64, 128, 256, 512),
            encoder_kernels=(5, 5, 3, 3, 1, 1),
            encoder_blocks=(0, 0, 0, 0, 0, 0),
            pool=True,
            code_rank=0,
            code_residual=False,
            decoder_widths=(256, 128, 64, 512, 256, 128),
            decoder_kernels=(1, 3, 3, 3, 3, 5),
            decoder_blocks=(0, 0, 0, 0, 0, 0),
            tail_width=64,
            head_kernel=5,
            head_shuffle=1,
            norm="batch",
        )


class FullyConnected(nn.Module):
    """The full layer: `(N, C, S, S)` -> `(N, C, S, S)`, every number sees every other."""

    def __init__(self, channels: int, size: int, rank: int, residual: bool):
        super().__init__()
        numbers = channels * size * size
        self.residual = residual
        self.layers = (
            nn.Sequential(nn.Linear(numbers, rank), nn.LeakyReLU(0.2), nn.Linear(rank, numbers))
            if rank
            else nn.Sequential(nn.Linear(numbers, numbers))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map feature maps; the shape stays."""
        mapped: torch.Tensor = self.layers(features.flatten(1)).reshape(features.shape)
        return features + mapped if self.residual else mapped


class FDNN(FaceModel):
    """The style removal network (thesis 3.3.1).

    Example:

    ```python
    from face_destyle import FDNN
    photo = FDNN.from_pretrained("fdnn").recover("portrait.jpg")
    ```
    """

    model_type: ClassVar[str] = "fdnn"
    config_class = FDNNConfig
    expects_aligned: ClassVar[bool] = True
    config: FDNNConfig

    def __init__(self, config: FDNNConfig | None = None):
        super().__init__()
        self.config = config = config or FDNNConfig()
        self.shuffle_in = nn.PixelUnshuffle(config.stem_shuffle)
        self.encoder, size = _encoder(config)
        self.code = FullyConnected(
            config.encoder_widths[-1], size, config.code_rank, config.code_residual
        )
        self.decoder = _decoder(config)
        self.head = nn.Conv2d(
            config.tail_width,
            3 * config.head_shuffle**2,
            config.head_kernel,
            padding=config.head_kernel // 2,
        )
        self.shuffle_out = nn.PixelShuffle(config.head_shuffle)

    def raw(self, portraits: torch.Tensor) -> torch.Tensor:
        """The photo before it is clamped: what the losses see."""
        code = self.code(self.encoder(self.shuffle_in(portraits)))
        return self.shuffle_out(self.head(self.decoder(code)))  # type: ignore[no-any-return]

    def forward(self, portraits: torch.Tensor) -> Recovered:
        """Recover photos.

        Args:
            portraits: `(N, 3, 128, 128)` in [-1, 1], aligned.

        Returns:
            `photo` `(N, 3, 128, 128)`: clamped to [-1, 1] in eval mode, unclamped in training
            mode, where a clamp would stop the gradient. `alignment` is None.

        Raises:
            ValueError: another shape.
        """
        self.check_input(portraits)
        photo = self.raw(portraits)
        return Recovered(photo if self.training else photo.clamp(-1, 1))


def _encoder(config: FDNNConfig) -> tuple[nn.Sequential, int]:
    """The encoder and the side of the feature map it ends in.

    With a shuffled stem the first level is at its final size already: only later ones halve.
    """
    layers: list[nn.Module] = []
    channels = 3 * config.stem_shuffle**2
    size = config.image_size // config.stem_shuffle
    levels = zip(config.encoder_widths, config.encoder_kernels, config.encoder_blocks, strict=True)
    for level, (width, kernel, blocks) in enumerate(levels):
        halve = level > 0 or config.stem_shuffle == 1
        stride = 2 if halve and not config.pool else 1
        layers.append(ConvBlock(channels, width, kernel, stride, config.norm))
        if halve and config.pool:
            layers.append(nn.MaxPool2d(2))
        layers += [ResidualBlock(width, config.norm) for _ in range(blocks)]
        size = size // 2 if halve else size
        channels = width
    return nn.Sequential(*layers), size


def _decoder(config: FDNNConfig) -> nn.Sequential:
    """Each level ends in a nearest-neighbour doubling, which leaves no checkerboard."""
    layers: list[nn.Module] = []
    channels = config.encoder_widths[-1]
    levels = zip(config.decoder_widths, config.decoder_kernels, config.decoder_blocks, strict=True)
    for width, kernel, blocks in levels:
        layers.append(ConvBlock(channels, width, kernel, norm=config.norm, slope=0.0))
        layers += [ResidualBlock(width, config.norm, slope=0.0) for _ in range(blocks)]
        layers.append(nn.UpsamplingNearest2d(scale_factor=2))
        channels = width
    tail = ConvBlock(channels, config.tail_width, config.head_kernel, norm=config.norm, slope=0.0)
    return nn.Sequential(*layers, tail)


@dataclass(frozen=True)
class FDNNDiscriminatorConfig:
    """The numbers of the discriminator; `paper()` gives the authors' (papers 2.4)."""

    image_size: int = 128
    stem_shuffle: int = 2
    widths: tuple[int, ...] = (32, 64, 96, 96)
    kernel: int = 3
    last_kernel: int = 3
    full_width: int = 96
    pool: bool = False
    norm: Norm = "group"

    @classmethod
    def paper(cls) -> "FDNNDiscriminatorConfig":
        """Four pooled levels of 32, 64, 128, 96 channels and a full layer of 1024."""
        return cls(
            stem_shuffle=1,
            widths=(32, 64, 128, 96),
            kernel=5,
            full_width=1024,
            pool=True,
            norm="batch",
        )


class FDNNDiscriminator(HubModel):
    """The discriminative network (thesis 3.3.2): is this a photo, or a recovered face?"""

    model_type: ClassVar[str] = "fdnn-discriminator"
    config_class = FDNNDiscriminatorConfig
    config: FDNNDiscriminatorConfig

    def __init__(self, config: FDNNDiscriminatorConfig | None = None):
        super().__init__()
        self.config = config = config or FDNNDiscriminatorConfig()
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.stem_shuffle)]
        channels = 3 * config.stem_shuffle**2
        size = config.image_size // config.stem_shuffle
        for level, width in enumerate(config.widths):
            halve = level > 0 or config.stem_shuffle == 1
            kernel = config.last_kernel if level == len(config.widths) - 1 else config.kernel
            stride = 2 if halve and not config.pool else 1
            layers.append(ConvBlock(channels, width, kernel, stride, config.norm))
            if halve and config.pool:
                layers.append(nn.MaxPool2d(2))
            size = size // 2 if halve else size
            channels = width
        self.features = nn.Sequential(*layers)
        self.full = nn.Linear(channels * size * size, config.full_width)
        self.activation = nn.LeakyReLU(0.2)
        self.judge = nn.Linear(config.full_width, 1)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Judge photos `(N, 3, 128, 128)` in [-1, 1]: logits `(N,)`, positive for real."""
        features = self.features(photos).flatten(1)
        return self.judge(self.activation(self.full(features))).squeeze(1)  # type: ignore[no-any-return]
