"""TANN, "Can We See More? Joint Frontalization and Hallucination of Unaligned Tiny Faces".

Yu, Shiri, Ghanem, Porikli; TPAMI 2020; thesis chapter 6.

In comes a 16 x 16 photo of a head that is turned in depth and in the plane, out comes its frontal
face at 128 x 128. The skeleton is IFRP's: transformers, a fully connected layer, a decoder. What
is new: what the full layer gives is a latent code, and in training a triplet loss draws the code
of a turned head towards that of its own frontal photo. Transformers in the decoder set right what
those on the tiny maps could not see.

The authors have it with and without skip connections (papers 4.2). `paper()` is without. The small
default has two, of maps that are upright already: a head from the front has nearly all its pixels
where they shall be, and a map of 4 x 4 loses most of them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from face_destyle.models.base import Recovered
from face_destyle.models.fdnn import FDNNDiscriminator, FDNNDiscriminatorConfig, FullyConnected
from face_destyle.models.ifrp import IFRP, IFRPConfig
from face_destyle.models.layers import ConvBlock, Norm, ResidualBlock


@dataclass(frozen=True)
class TANNConfig(IFRPConfig):
    """The numbers of the transformative upsampling network.

    The defaults are the small network for a CPU; `TANNConfig.paper()` is the authors' network
    without skip connections, layer by layer.
    """

    image_size: int = 16
    stem_shuffle: int = 1
    # A normalization right after the first layer would take away how bright the photo is, and how
    # strong its contrast; of a photo, unlike of a portrait, both shall be kept.
    stem_norm: Norm = "none"
    encoder_widths: tuple[int, ...] = (64, 96, 128)
    encoder_kernels: tuple[int, ...] = (3, 3, 3)
    encoder_blocks: tuple[int, ...] = (1, 1, 1)
    encoder_slope: float = 0.2  # of the rectifiers
    transformers: tuple[int, ...] = (16,)  # what is aligned at once may go round the code
    decoder_transformers: tuple[int, ...] = (16, 32)
    localisation_widths: tuple[int, ...] = (32, 64, 64)
    localisation_full: int = 64
    localisation_norm: Norm = "group"
    # The full layer goes through this many numbers; 0: one full matrix, as the authors have it.
    code_rank: int = 128
    # True: it corrects what it takes, and the latent code is the sum, 2048 numbers as in the paper.
    # Where a low-rank layer replaces what it takes, its few numbers are the code.
    code_residual: bool = True
    decoder_widths: tuple[int, ...] = (128, 160, 128, 64)
    decoder_kernels: tuple[int, ...] = (3, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    skip_sizes: tuple[int, ...] = (16, 8)  # sides of the maps that also go round the code
    tail_width: int = 64
    coarse_side: int = 16  # the photo is one of 32 x 32, made finer: most that is known is coarse
    norm: Norm = "pixel"  # one over places would take away contrasts, which a tiny photo is made of
    decoder_norm: Norm = "pixel"  # of the decoder and the tail; others leave a blot in it

    @property
    def photo_size(self) -> int:
        """The side of the photo."""
        return self.decoder_sizes[-1] * self.head_shuffle

    @classmethod
    def paper(cls) -> "TANNConfig":
        """The network without skip connections (papers 4.2): a code of 2048, five transformers."""
        return cls(
            stem_norm="batch",
            encoder_widths=(32, 128, 512),
            encoder_blocks=(0, 0, 0),
            encoder_slope=0.0,
            pool=True,
            transformers=(16, 8),
            decoder_transformers=(8, 16, 32),
            localisation_widths=(20, 256, 20),
            localisation_full=20,
            localisation_norm="none",
            code_rank=0,
            code_residual=False,
            decoder_widths=(256, 128, 256, 512, 256, 128),
            decoder_kernels=(1, 3, 3, 3, 3, 5),
            decoder_blocks=(0, 0, 0, 0, 0, 0),
            skip_sizes=(),
            coarse_side=0,
            head_kernel=5,
            head_shuffle=1,
            norm="batch",
            decoder_norm="batch",
        )


@dataclass
class Frontalized(Recovered):
    """What the network returns.

    Attributes:
        photo, alignment: as of every recovery network.
        code: `(N, D)`, the latent code, which the triplet loss compares.
    """

    code: torch.Tensor | None = None


class LatentCode(FullyConnected):
    """A full layer with a code in it: maps `(N, C, S, S)` -> the code `(N, D)` -> maps again.

    The code is what comes out of the layer, and D = C S S; or, where it is a low-rank layer that
    replaces what it takes, its narrowest place.
    """

    def __init__(self, channels: int, size: int, rank: int, residual: bool):
        super().__init__(channels, size, rank, residual)
        self.shape = (channels, size, size)
        narrow = rank and not residual
        self.encodes = 1 if narrow else len(self.layers)  # layers before the code

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The codes of maps."""
        flat = features.flatten(1)
        code: torch.Tensor = self.layers[: self.encodes](flat)
        return flat + code if self.residual else code

    def unfold(self, code: torch.Tensor) -> torch.Tensor:
        """The maps that the decoder takes."""
        maps: torch.Tensor = self.layers[self.encodes :](code)
        return torch.unflatten(maps, 1, self.shape)


class TANN(IFRP):
    """The transformative upsampling network (papers 4.2).

    Example:

    ```python
    from face_destyle import TANN
    photo = TANN.from_pretrained("fdnn-tann").recover("crop.jpg")
    ```
    """

    model_type: ClassVar[str] = "tann"
    config_class = TANNConfig
    config: TANNConfig

    def __init__(self, config: TANNConfig | None = None):
        super().__init__(config := config or TANNConfig())
        self.encoder = nn.ModuleList(_encoder(config))
        self.code: LatentCode = LatentCode(
            config.encoder_widths[-1], config.code_size, config.code_rank, config.code_residual
        )

    def raw(self, portraits: torch.Tensor) -> Frontalized:
        """The photo before it is clamped, the alignment, and the code: what the losses see."""
        features, round_the_code, alignment = self.encode(portraits)
        code = self.code.encode(features)
        photo = self.decode(self.code.unfold(code), round_the_code, self.decoder)
        return Frontalized(photo, alignment, code=code)

    def forward(self, portraits: torch.Tensor) -> Frontalized:
        """Recover frontal photos.

        Args:
            portraits: `(N, 3, 16, 16)` in [-1, 1]; the head may be turned to a profile, and the
                face rotated, shifted and scaled in the picture.

        Returns:
            `photo` `(N, 3, 128, 128)`, frontal and aligned: clamped to [-1, 1] in eval mode,
            unclamped in training mode. `alignment` `(N, 2, 3)` in float32: the similarity that
            the encoder's transformers found together, frame -> input, in normalised coordinates;
            None without transformers. `code` `(N, D)`, not normalised.

        Raises:
            ValueError: another shape.
        """
        self.check_input(portraits)
        out = self.raw(portraits)
        if self.training:
            return out
        return Frontalized(out.photo.clamp(-1, 1), out.alignment, code=out.code)


def _encoder(config: TANNConfig) -> list[nn.Sequential]:
    """The levels, as of IFRP; the first layer has a normalization of its own."""
    levels = []
    channels = 3 * config.stem_shuffle**2
    rows = zip(config.encoder_widths, config.encoder_kernels, config.encoder_blocks, strict=True)
    for number, (width, kernel, blocks) in enumerate(rows):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if number and config.pool else []
        stride = 2 if number and not config.pool else 1
        norm = config.norm if number else config.stem_norm
        layers.append(ConvBlock(channels, width, kernel, stride, norm, config.encoder_slope))
        layers += [ResidualBlock(width, config.norm, config.encoder_slope) for _ in range(blocks)]
        levels.append(nn.Sequential(*layers))
        channels = width
    return levels


@dataclass(frozen=True)
class TANNDiscriminatorConfig(FDNNDiscriminatorConfig):
    """The numbers of the discriminator; `paper()` gives the authors' (papers 4.3)."""

    @classmethod
    def paper(cls) -> "TANNDiscriminatorConfig":
        """Four pooled 5x5 levels without normalization and a full layer of 1024.

        The authors' dropout is left out, as in the other studies' discriminators.
        """
        return cls(
            stem_shuffle=1,
            widths=(32, 64, 128, 96),
            kernel=5,
            last_kernel=5,
            full_width=1024,
            pool=True,
            norm="none",
        )


class TANNDiscriminator(FDNNDiscriminator):
    """The discriminative network (papers 4.3): is this a frontal photo, or a recovered one?"""

    model_type: ClassVar[str] = "tann-discriminator"
    config_class = TANNDiscriminatorConfig
    config: TANNDiscriminatorConfig

    def __init__(self, config: TANNDiscriminatorConfig | None = None):
        super().__init__(config or TANNDiscriminatorConfig())
