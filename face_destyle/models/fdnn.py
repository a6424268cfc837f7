"""FDNN, "Face Destylization" (Shiri et al., DICTA 2017; thesis chapter 3).

An aligned portrait goes through convolutions to feature maps of the stylized face, a fully
connected layer maps these to feature maps of the real face, and a decoder paints the photo.
A discriminator, used in training only, judges the result. The authors' network has no skip
connections; the small default one has two, through residual blocks, which its successor brought
in: at equal images seen they are worth more than any other change that was measured.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from face_destyle.models.autoencoder import FaceAutoencoder
from face_destyle.models.base import HubModel, Recovered
from face_destyle.models.layers import ConvBlock, Norm, ResidualBlock


@dataclass(frozen=True)
class FDNNConfig:
    """The numbers of the style removal network.

    The defaults are the small network for a CPU; `FDNNConfig.paper()` is the authors' network
    without its spatial transformers, layer by layer.
    """

    image_size: int = 128
    stem_shuffle: int = 2  # space to depth before the first layer: no layer works at full size
    encoder_widths: tuple[int, ...] = (32, 64, 112, 160)
    encoder_kernels: tuple[int, ...] = (3, 3, 3, 3)
    encoder_blocks: tuple[int, ...] = (0, 0, 1, 1)
    pool: bool = False  # True: full-size convolution, then 2x2 max-pooling; False: stride 2
    code_rank: int = 64  # the full layer goes through this many numbers; 0: one full matrix
    code_residual: bool = True  # the full layer corrects its input instead of replacing it
    decoder_widths: tuple[int, ...] = (160, 112, 80)
    decoder_kernels: tuple[int, ...] = (3, 3, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    skip_sizes: tuple[int, ...] = (32, 16)  # sides of the feature maps that also go round the code
    skip_width: int = 48  # channels of each of them
    tail_width: int = 40  # one more layer after the last doubling
    head_kernel: int = 3  # of the tail too
    head_shuffle: int = 2  # the last doubling is a pixel shuffle: a quarter of the work
    norm: Norm = "instance"
    decoder_norm: Norm = "pixel"  # of the decoder and the tail; others leave a blot in it

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side of the feature map after each level of the encoder."""
        first = self.image_size // max(self.stem_shuffle, 2)
        return tuple(first // 2**level for level in range(len(self.encoder_widths)))

    @property
    def decoder_sizes(self) -> tuple[int, ...]:
        """The side after each level of the decoder."""
        return tuple(self.sizes[-1] * 2 ** (n + 1) for n in range(len(self.decoder_widths)))

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
            skip_sizes=(),
            tail_width=64,
            head_kernel=5,
            head_shuffle=1,
            norm="batch",
            decoder_norm="batch",
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


class FDNN(FaceAutoencoder):
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
        self.encoder = nn.ModuleList(_encoder(config))
        self.code = FullyConnected(
            config.encoder_widths[-1], config.sizes[-1], config.code_rank, config.code_residual
        )
        self.skips = nn.ModuleDict(_skips(config))
        self.add_decoder()

    def raw(self, portraits: torch.Tensor) -> torch.Tensor:
        """The photo before it is clamped: what the losses see."""
        features = self.shuffle_in(portraits)
        round_the_code = {}
        for level, size in zip(self.encoder, self.config.sizes, strict=True):
            features = level(features)
            if str(size) in self.skips:
                round_the_code[size] = self.skips[str(size)](features)
        return self.decode(self.code(features), round_the_code, self.decoder)

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


def _encoder(config: FDNNConfig) -> list[nn.Sequential]:
    """The levels; with a shuffled stem the first is at its final size already: later ones halve."""
    levels = []
    channels, before = 3 * config.stem_shuffle**2, config.image_size // config.stem_shuffle
    rows = zip(
        config.encoder_widths,
        config.encoder_kernels,
        config.encoder_blocks,
        config.sizes,
        strict=True,
    )
    for width, kernel, blocks, size in rows:
        halve = size < before
        stride = 2 if halve and not config.pool else 1
        layers: list[nn.Module] = [ConvBlock(channels, width, kernel, stride, config.norm)]
        if halve and config.pool:
            layers.append(nn.MaxPool2d(2))
        layers += [ResidualBlock(width, config.norm) for _ in range(blocks)]
        levels.append(nn.Sequential(*layers))
        channels, before = width, size
    return levels


def _skips(config: FDNNConfig) -> dict[str, nn.Module]:
    """By the side of the feature map: a residual block, then a narrow layer."""
    widths = dict(zip(config.sizes[:-1], config.encoder_widths, strict=False))
    for size in config.skip_sizes:
        if size not in widths:
            known = ", ".join(map(str, widths))
            raise ValueError(f"skip_sizes has {size}, the feature maps have {known}")
    return {
        str(size): nn.Sequential(
            ResidualBlock(widths[size], config.norm),
            ConvBlock(widths[size], config.skip_width, 1, norm=config.norm),
        )
        for size in config.skip_sizes
    }


@dataclass(frozen=True)
class FDNNDiscriminatorConfig:
    """The numbers of the discriminator; `paper()` gives the authors' (papers 2.4)."""

    image_size: int = 128
    stem_shuffle: int = 2
    widths: tuple[int, ...] = (32, 64, 96, 96)
    kernel: int = 3
    last_kernel: int = 3
    full_width: int = 96  # 0: no full layer, each place of the last map is judged by itself
    pool: bool = False
    norm: Norm = "group"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side of the feature map after each level."""
        first = self.image_size // max(self.stem_shuffle, 2)
        return tuple(first // 2**level for level in range(len(self.widths)))

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
        for level, width in enumerate(config.widths):
            halve = level > 0 or config.stem_shuffle == 1
            kernel = config.last_kernel if level == len(config.widths) - 1 else config.kernel
            stride = 2 if halve and not config.pool else 1
            layers.append(ConvBlock(channels, width, kernel, stride, config.norm))
            if halve and config.pool:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.judge: nn.Module
        if config.full_width:
            self.full = nn.Linear(channels * config.sizes[-1] ** 2, config.full_width)
            self.activation = nn.LeakyReLU(0.2)
            self.judge = nn.Linear(config.full_width, 1)
        else:
            self.judge = nn.Conv2d(channels, 1, 1)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Judge photos `(N, 3, 128, 128)` in [-1, 1].

        Returns:
            Logits, positive for real: `(N,)`, or `(N, S, S)` without a full layer.
        """
        return self.judged(self.features(photos))

    def judged(self, features: torch.Tensor) -> torch.Tensor:
        """The last feature map `(N, C, S, S)` -> logits."""
        if self.config.full_width:
            features = self.activation(self.full(features.flatten(1)))
        return self.judge(features).squeeze(1)  # type: ignore[no-any-return]
