"""IFRP, "Identity-preserving Face Recovery from Portraits" (Shiri et al., WACV 2018; IJCV 2019).

The skeleton is FDNN's: convolutions, a fully connected layer, a decoder. What is new: the portrait
may be turned, shifted and scaled, and spatial transformers between the first levels turn its
feature maps upright; and once they are upright, some go round the full layer through residual
blocks, so that no unaligned, stylized pixel does. A discriminator, used in training only, judges
the result.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from face_destyle.models.autoencoder import FaceAutoencoder
from face_destyle.models.base import Recovered
from face_destyle.models.fdnn import FDNNDiscriminator, FDNNDiscriminatorConfig, FullyConnected
from face_destyle.models.layers import ConvBlock, Norm, ResidualBlock
from face_destyle.models.similarity import SimilarityTransformer, compose, halvings


@dataclass(frozen=True)
class IFRPConfig:
    """The numbers of the style removal network.

    The defaults are the small network for a CPU, with skip connections as in the IJCV version;
    `IFRPConfig.paper()` is the WACV network, layer by layer.
    """

    image_size: int = 128
    stem_shuffle: int = 2  # space to depth before the first layer: no layer works at full size
    encoder_widths: tuple[int, ...] = (32, 64, 112, 160)
    encoder_kernels: tuple[int, ...] = (3, 3, 3, 3)
    encoder_blocks: tuple[int, ...] = (0, 0, 1, 1)
    pool: bool = False  # True: 2x2 max-pooling before each later level; False: stride 2
    transformers: tuple[int, ...] = (64, 32)  # sides of the encoder's maps that are aligned
    decoder_transformers: tuple[int, ...] = ()  # sides of the decoder's maps
    localisation_widths: tuple[int, ...] = (32, 64, 96, 96)  # smaller maps take the last ones
    localisation_full: int = 32
    localisation_norm: Norm = "instance"
    code_rank: int = 48  # the full layer goes through this many numbers; 0: one full matrix
    code_residual: bool = True  # the full layer corrects its input instead of replacing it
    decoder_widths: tuple[int, ...] = (160, 112, 80)
    decoder_kernels: tuple[int, ...] = (3, 3, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    skip_sizes: tuple[int, ...] = (32, 16)  # sides of the maps that also go round the full layer
    skip_width: int = 64  # channels of each of them
    tail_width: int = 40  # one more layer after the last doubling
    # The side of the decoder's map that a coarse photo is painted from as well; the levels after it
    # make it finer. 0: none.
    coarse_side: int = 0
    head_kernel: int = 3  # of the tail too
    head_shuffle: int = 2  # the last doubling is a pixel shuffle: a quarter of the work
    norm: Norm = "instance"
    decoder_norm: Norm = "pixel"  # of the decoder and the tail; others leave a blot in it

    def __post_init__(self) -> None:
        """Raise a ValueError where a transformer or a skip connection has no place."""
        for name, sides, maps in (
            ("transformers", self.transformers, self.sizes),
            ("decoder_transformers", self.decoder_transformers, self.decoder_sizes),
            ("skip_sizes", self.skip_sizes, tuple(set(self.sizes) & set(self.decoder_sizes))),
        ):
            wrong = [side for side in sides if side not in maps]
            if wrong:
                known = ", ".join(str(side) for side in sorted(maps)) or "none"
                raise ValueError(f"{name} has {wrong[0]}; there are maps of {known}")
        if self.coarse_side and self.coarse_side not in self.decoder_sizes[:-1]:
            known = ", ".join(map(str, self.decoder_sizes[:-1])) or "none"
            raise ValueError(
                f"coarse_side is {self.coarse_side}; before the last level there are maps of "
                f"{known}, and 0 is for no coarse photo"
            )
        for side in self.transformers + self.decoder_transformers:
            halvings(side, self.localisation_widths)
        for side in self.skip_sizes:
            if self.transformers and side > min(self.transformers):
                raise ValueError(
                    f"skip_sizes has {side}: it would carry unaligned features round the "
                    f"transformer at {min(self.transformers)}; leave it out"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side of the feature map after each level of the encoder."""
        first = self.image_size // self.stem_shuffle
        return tuple(first // 2**level for level in range(len(self.encoder_widths)))

    @property
    def code_size(self) -> int:
        """The side of the feature map that the full layer sees: pooled once more by the authors."""
        return self.sizes[-1] // 2 if self.pool else self.sizes[-1]

    @property
    def decoder_sizes(self) -> tuple[int, ...]:
        """The side after each level of the decoder."""
        return tuple(self.code_size * 2 ** (n + 1) for n in range(len(self.decoder_widths)))

    @classmethod
    def paper(cls) -> "IFRPConfig":
        """The WACV network (papers 2.2, 2.3): three transformers, no skip connections."""
        return cls(
            stem_shuffle=1,
            encoder_widths=(16, 32, 64, 128, 256, 512),
            encoder_kernels=(5, 5, 3, 3, 1, 1),
            encoder_blocks=(0, 0, 0, 0, 0, 0),
            pool=True,
            transformers=(64, 32),
            decoder_transformers=(8,),
            localisation_widths=(64, 128, 256, 20),
            localisation_full=20,
            localisation_norm="none",
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


class IFRP(FaceAutoencoder):
    """The style removal network with spatial transformers (papers 2.2, 2.10).

    Example:

    ```python
    from face_destyle import IFRP
    photo = IFRP.from_pretrained("fdnn-ifrp").recover("portrait.jpg")
    ```
    """

    model_type: ClassVar[str] = "ifrp"
    config_class = IFRPConfig
    expects_aligned: ClassVar[bool] = False
    config: IFRPConfig

    def __init__(self, config: IFRPConfig | None = None):
        super().__init__()
        self.config = config = config or IFRPConfig()
        self.shuffle_in = nn.PixelUnshuffle(config.stem_shuffle)
        self.encoder = nn.ModuleList(_encoder(config))
        self.transformers = nn.ModuleDict(_transformers(config))
        self.squeeze = nn.MaxPool2d(2) if config.pool else nn.Identity()
        self.code = FullyConnected(
            config.encoder_widths[-1], config.code_size, config.code_rank, config.code_residual
        )
        self.skips = nn.ModuleDict(_skips(config))
        self.add_decoder(_decoder_transformers(config), config.coarse_side)

    def raw(self, portraits: torch.Tensor) -> Recovered:
        """The photo before it is clamped, which is what the losses see, and the alignment."""
        features, round_the_code, alignment = self.encode(portraits)
        features = self.code(features)
        return Recovered(self.decode(features, round_the_code, self.decoder), alignment)

    def encode(
        self, portraits: torch.Tensor
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor], torch.Tensor | None]:
        """What the full layer sees, what goes round it by its side, and the alignment."""
        features = self.shuffle_in(portraits)
        alignment: torch.Tensor | None = None
        round_the_code = {}
        for level, size in zip(self.encoder, self.config.sizes, strict=True):
            features = level(features)
            if str(size) in self.transformers:
                features, matrix = self.transformers[str(size)](features)
                # The first was applied to the input itself: input = first(second(frame)).
                alignment = matrix if alignment is None else compose(alignment, matrix)
            if str(size) in self.skips:
                round_the_code[size] = self.skips[str(size)](features)
        return self.squeeze(features), round_the_code, alignment

    def forward(self, portraits: torch.Tensor) -> Recovered:
        """Recover photos.

        Args:
            portraits: `(N, 3, 128, 128)` in [-1, 1]; the face may be turned, shifted, scaled.

        Returns:
            `photo` `(N, 3, 128, 128)`, aligned: clamped to [-1, 1] in eval mode, unclamped in
            training mode, where a clamp would stop the gradient. `alignment` `(N, 2, 3)` in
            float32: the similarity that the encoder's transformers found together, from
            normalised coordinates of the frame to those of the input (see `similarity`); None
            without transformers. One in the decoder comes after the full layer, which knows no
            places: it is not part of it.

        Raises:
            ValueError: another shape.
        """
        self.check_input(portraits)
        out = self.raw(portraits)
        return out if self.training else Recovered(out.photo.clamp(-1, 1), out.alignment)


def _encoder(config: IFRPConfig) -> list[nn.Sequential]:
    """The levels; each later one halves the map before anything else.

    So the map at the end of a level is that of its last layer at that size, where the authors
    have their transformers.
    """
    levels = []
    channels = 3 * config.stem_shuffle**2
    rows = zip(config.encoder_widths, config.encoder_kernels, config.encoder_blocks, strict=True)
    for number, (width, kernel, blocks) in enumerate(rows):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if number and config.pool else []
        stride = 2 if number and not config.pool else 1
        layers.append(ConvBlock(channels, width, kernel, stride, config.norm))
        layers += [ResidualBlock(width, config.norm) for _ in range(blocks)]
        levels.append(nn.Sequential(*layers))
        channels = width
    return levels


def _transformer(config: IFRPConfig, channels: int, side: int) -> SimilarityTransformer:
    return SimilarityTransformer(
        channels,
        side,
        config.localisation_widths,
        config.localisation_full,
        config.pool,
        config.localisation_norm,
    )


def _transformers(config: IFRPConfig) -> dict[str, nn.Module]:
    """Those of the encoder, by the side of the feature map."""
    return {
        str(side): _transformer(config, width, side)
        for side, width in zip(config.sizes, config.encoder_widths, strict=True)
        if side in config.transformers
    }


def _decoder_transformers(config: IFRPConfig) -> dict[str, nn.Module]:
    return {
        str(side): _transformer(config, width, side)
        for side, width in zip(config.decoder_sizes, config.decoder_widths, strict=True)
        if side in config.decoder_transformers
    }


def _skips(config: IFRPConfig) -> dict[str, nn.Module]:
    """By the side of the feature map: narrowed first, so that the residual block costs little."""
    return {
        str(side): nn.Sequential(
            ConvBlock(width, config.skip_width, 1, norm=config.norm),
            ResidualBlock(config.skip_width, config.norm),
        )
        for side, width in zip(config.sizes, config.encoder_widths, strict=True)
        if side in config.skip_sizes
    }


class IFRPDiscriminator(FDNNDiscriminator):
    """The discriminative network (papers 2.4): FDNN's, with the same numbers."""

    model_type: ClassVar[str] = "ifrp-discriminator"
    config_class = FDNNDiscriminatorConfig
