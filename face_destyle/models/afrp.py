"""AFRP, "Recovering Faces from Portraits with Auxiliary Facial Attributes".

Shiri et al., WACV 2019.

A portrait has lost hair colour, age, expression; the user knows them, or wants to try. The
skeleton is IFRP's. What is new: a vector of 18 attributes joins the feature maps at the
bottleneck, and the discriminator, which sees it in a middle layer, judges whether a photo is real
and has these attributes.

Any of the 18 may be unknown. Where all are, nothing is added anywhere: the network is IFRP, and
can start from its weights.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast, overload

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from face_destyle import images
from face_destyle.attributes import COUNT, Attributes, to_vector
from face_destyle.errors import UserError
from face_destyle.models.autoencoder import Level
from face_destyle.models.base import FaceModel, Recovered
from face_destyle.models.fdnn import FDNNDiscriminator, FDNNDiscriminatorConfig, FullyConnected
from face_destyle.models.ifrp import IFRP, IFRPConfig
from face_destyle.models.layers import ConvBlock, DecoderLevel, JoiningBlock

CODES = 2 * COUNT  # a value and a mark of being known for each attribute


def encode_attributes(attributes: torch.Tensor | None, pictures: torch.Tensor) -> torch.Tensor:
    """What the networks see of attribute vectors: `(N, 36)` in the dtype of the pictures.

    The values come first, -1 to 1 instead of 0 to 1, then a 1 for each known one. An unknown
    attribute is 0 in both: it says neither yes nor no, as a missing one among 0 and 1 would.

    Args:
        attributes: `(N, 18)` from 0 to 1, nan for unknown; None where all are.
        pictures: `(N, 3, H, W)`, which they belong to.

    Raises:
        ValueError: another shape.
    """
    count = pictures.shape[0]  # not len(), which an export would take for a constant
    if attributes is None:
        return pictures.new_zeros(count, CODES)
    if attributes.dim() != 2 or tuple(attributes.shape) != (count, COUNT):
        raise ValueError(
            f"attributes of {count} pictures are ({count}, {COUNT}) from 0 to 1 or nan, "
            f"not {tuple(attributes.shape)}"
        )
    attributes = attributes.to(pictures)
    unknown = attributes.isnan()
    values = torch.where(unknown, torch.zeros_like(attributes), 2 * attributes - 1)
    return torch.cat([values, (~unknown).to(values)], 1)


def relative_codes(codes: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """What is asked as the difference to what is there: `(N, 36)`, known values from -2 to 2.

    What the portrait shows already is no change, and of another portrait the same wish is a large
    one (Liu et al., STGAN, CVPR 2019).

    Args:
        codes: of `encode_attributes`.
        read: logits of the attributes that the portraits show, `(N, 18)`.
    """
    values, known = codes.chunk(2, 1)
    return torch.cat([values - known * torch.tanh(read.to(codes) / 2), known], 1)


@dataclass(frozen=True)
class AFRPConfig(IFRPConfig):
    """The numbers of the face recovery network: those of IFRP, and where attributes come in.

    With neither `bottleneck` nor `modulation` the network does not see them: they are then in the
    discriminator alone.
    """

    bottleneck: bool = True  # attributes join the code of the full layer
    modulation: bool = True  # they scale and shift the maps of the decoder's levels
    modulation_places: int = 2  # of each attribute: how many maps say where it does
    modulation_side: int = 16  # of these maps
    relative: bool = True  # what is asked is seen as the difference to what the portrait shows

    def __post_init__(self) -> None:
        """Raise a ValueError where attributes have no place."""
        super().__post_init__()
        if self.bottleneck and not self.code_rank:
            raise ValueError("bottleneck is true and code_rank 0: there is no code to join")

    @property
    def reads(self) -> bool:
        """Whether the network reads attributes in the portrait."""
        return self.relative and (self.bottleneck or self.modulation)

    @classmethod
    def paper(cls) -> "AFRPConfig":
        """The network that papers 3.4 propose from what is stated.

        IFRP's of the WACV version, its full layer split in two with the attributes between, and
        skip connections through residual blocks at 8, 16 and 32.
        """
        fields = dataclasses.asdict(IFRPConfig.paper())
        fields |= {"code_rank": 2048, "skip_sizes": (32, 16, 8)}
        return cls(**fields, modulation=False, relative=False)


class JoinedCode(FullyConnected):
    """A full layer that sees feature maps and attributes: `(N, C, S, S)` -> `(N, C, S, S)`.

    Its first matrix multiplies the maps with the attributes appended, which is to add the product
    with further columns; those are kept by themselves, so that the rest has IFRP's names.
    """

    def __init__(self, channels: int, size: int, rank: int, residual: bool):
        super().__init__(channels, size, rank, residual)
        self.joined = _starting_at_zero(CODES, rank)

    def forward(self, features: torch.Tensor, codes: torch.Tensor | None = None) -> torch.Tensor:
        """Map feature maps and `(N, 36)` of `encode_attributes`; the shape stays."""
        first, activation, last = self.layers
        code = first(features.flatten(1))
        if codes is not None:
            code = code + self.joined(codes)
        mapped: torch.Tensor = last(activation(code)).reshape(features.shape)
        return features + mapped if self.residual else mapped


class Modulation(nn.Module):
    """Where in the photo, and in which channels of the decoder, each attribute changes something.

    A recovered photo has beard and hair in places of their own: an attribute's value multiplies
    maps of places, and each of these scales and shifts channels.

    Args:
        widths: of the decoder's levels.
        places: maps of each attribute.
        side: of a map; the levels take them at their own size.
    """

    def __init__(self, widths: Sequence[int], places: int, side: int):
        super().__init__()
        # Everywhere at first, and not all the same: two of one attribute would stay so.
        self.places = nn.Parameter(1 + 0.3 * torch.randn(COUNT, places, side, side))
        self.mixing = nn.ModuleList(
            nn.Conv2d(COUNT * places, 2 * width, 1, bias=False) for width in widths
        )
        for weight in self.mixing.parameters():
            nn.init.zeros_(weight)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """The maps `(N, 18 * places, side, side)` of codes `(N, 36)`; 0 where unknown."""
        values = codes[:, :COUNT, None, None, None]
        return (values * self.places).flatten(1, 2)


class AFRP(IFRP):
    """The face recovery network (papers 3.2, 3.4).

    Example:

    ```python
    from face_destyle import AFRP
    model = AFRP.from_pretrained("fdnn-afrp")
    photo = model.recover("portrait.jpg", attributes="Blond_Hair,Smiling,-Young")
    ```
    """

    model_type: ClassVar[str] = "afrp"
    config_class = AFRPConfig
    takes_attributes: ClassVar[bool] = True
    config: AFRPConfig

    def __init__(self, config: AFRPConfig | None = None):
        super().__init__(config := config or AFRPConfig())
        if config.bottleneck:
            self.code: FullyConnected = JoinedCode(
                config.encoder_widths[-1], config.code_size, config.code_rank, config.code_residual
            )
        if config.modulation:
            self.modulation = Modulation(
                config.decoder_widths, config.modulation_places, config.modulation_side
            )
        if config.reads:
            self.reader = nn.Linear(4 * config.encoder_widths[-1], COUNT)

    @classmethod
    def from_ifrp(cls, source: IFRP, **fields: Any) -> Self:
        """A network with the weights of an IFRP, which gives the same photos until it is trained.

        Args:
            source: an IFRP; left as it is.
            fields: those of `AFRPConfig` that IFRP has not.
        """
        model = cls(AFRPConfig(**dataclasses.asdict(source.config), **fields))
        weights = model.state_dict() | source.state_dict()
        model.load_state_dict(weights)
        return model.to(next(source.parameters()).dtype).train(source.training)

    def attribute_parameters(self) -> list[nn.Parameter]:
        """What attributes enter by, which an IFRP lacks."""
        entrance: list[nn.Parameter] = []
        if self.config.bottleneck:
            entrance += cast(JoinedCode, self.code).joined.parameters()
        if self.config.modulation:
            entrance += self.modulation.parameters()
        if self.config.reads:
            entrance += self.reader.parameters()
        return entrance

    def raw(self, portraits: torch.Tensor, attributes: torch.Tensor | None = None) -> Recovered:
        """The photo before it is clamped, which is what the losses see, and the alignment."""
        codes = encode_attributes(attributes, portraits)
        features, round_the_code, alignment = self.encode(portraits)
        read = self.read(features) if self.config.reads else None
        if read is not None:
            codes = relative_codes(codes, read.detach())
        features = self.code(features, codes) if self.config.bottleneck else self.code(features)
        levels: list[Level] = list(self.decoder)
        if self.config.modulation:
            placed = self.modulation(codes)
            levels = [
                functools.partial(
                    modulated, cast(DecoderLevel, level), cast(nn.Conv2d, mix), placed
                )
                for level, mix in zip(levels, self.modulation.mixing, strict=True)
            ]
        return Recovered(self.decode(features, round_the_code, levels), alignment, read)

    def read(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the attributes that portraits show, `(N, 18)`, from the last encoder map."""
        quarters = F.avg_pool2d(features, self.config.code_size // 2)
        return cast(torch.Tensor, self.reader(quarters.flatten(1)))

    def forward(self, portraits: torch.Tensor, attributes: torch.Tensor | None = None) -> Recovered:
        """Recover photos with the attributes that are asked for.

        Args:
            portraits: `(N, 3, 128, 128)` in [-1, 1]; the face may be turned, shifted, scaled.
            attributes: `(N, 18)` in the order of `attributes.NAMES`: 1 with, 0 without, between
                for a weaker wish, nan where the portrait shall decide; None for all nan.

        Returns:
            `photo` and `alignment` as of IFRP.

        Raises:
            ValueError: another shape.
        """
        self.check_input(portraits)
        out = self.raw(portraits, attributes)
        return out if self.training else Recovered(out.photo.clamp(-1, 1), out.alignment)

    def with_attributes(self, attributes: Attributes) -> "WithAttributes":
        """This network with attributes set: for whatever knows portraits alone, such as an export.

        The weights are shared, not copied.

        Raises:
            UserError: as in `attributes.to_vector`.
        """
        return WithAttributes(self, attributes)

    @overload  # as in FaceModel, a str is the path of one picture
    def recover(  # type: ignore[overload-overlap]
        self,
        pictures: images.Source,
        *,
        batch_size: int = 8,
        attributes: Attributes | None = None,
    ) -> Image.Image: ...
    @overload
    def recover(
        self,
        pictures: Sequence[images.Source],
        *,
        batch_size: int = 8,
        attributes: Attributes | None = None,
    ) -> list[Image.Image]: ...
    def recover(
        self,
        pictures: images.Source | Sequence[images.Source],
        *,
        batch_size: int = 8,
        attributes: Attributes | None = None,
    ) -> Image.Image | list[Image.Image]:
        """Recover faces as in `FaceModel.recover`, with attributes.

        Args:
            pictures: a path, a PIL picture, an `(H, W, 3)` uint8 array, or a list of these.
            batch_size: how many of a list go through the network at a time.
            attributes: of all the pictures: text such as `"Smiling,-Young"`, a mapping from names
                to True, False or None, or 18 numbers; the portrait decides what is not given.

        Raises:
            PictureError: a picture that cannot be read.
            UserError: as in `attributes.to_vector`.
        """
        if attributes is None:
            return super().recover(pictures, batch_size=batch_size)
        return self.with_attributes(attributes).recover(pictures, batch_size=batch_size)


class WithAttributes(FaceModel):
    """An AFRP and the attributes asked of it: a network from portraits to photos."""

    attributes: torch.Tensor

    def __init__(self, model: AFRP, attributes: Attributes):
        super().__init__()
        self.config = model.config
        self.model = model
        wish = torch.tensor([to_vector(attributes)], device=next(model.parameters()).device)
        self.register_buffer("attributes", wish, persistent=False)
        self.training = model.training

    def forward(self, portraits: torch.Tensor) -> Recovered:
        """Recover photos as `AFRP.forward`, from `(N, 3, 128, 128)` in [-1, 1]."""
        return self.model(portraits, self.attributes.expand(portraits.shape[0], -1))  # type: ignore[no-any-return]

    def _save_pretrained(self, save_directory: Path) -> None:
        raise UserError("a network with attributes set is not saved: save the AFRP itself")


def _starting_at_zero(inputs: int, outputs: int) -> nn.Linear:
    """A matrix that says nothing before it is trained, and nothing of an unknown attribute ever."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def modulated(
    level: DecoderLevel,
    mix: nn.Conv2d,
    placed: torch.Tensor,
    features: torch.Tensor,
    beside: torch.Tensor | None = None,
) -> torch.Tensor:
    """A level of the decoder with its map scaled and shifted (Perez et al., FiLM, AAAI 2018).

    Between normalization and activation of the first layer: a shift before an instance
    normalization would be taken away again, and one after the activation goes before the next.

    Args:
        level: of `layers.decoder_levels`.
        mix: to 2 C channels: how much more than 1 the C of the level are scaled, and the shifts.
        placed: of `Modulation`, `(N, M, side, side)`.
        features, beside: what the level takes.
    """
    first = cast(JoiningBlock, level[0])
    features = first.norm(first.conv(features, beside))
    size = (features.shape[2], features.shape[3])
    wide = F.interpolate(placed, size, mode="bilinear", align_corners=False)
    scale, shift = mix(wide).chunk(2, 1)
    features = first.activation(features * (1 + scale) + shift)
    for layer in list(level)[1:]:
        features = layer(features)
    return features


@dataclass(frozen=True)
class AFRPDiscriminatorConfig(FDNNDiscriminatorConfig):
    """The numbers of the discriminator, and where attributes come in."""

    join_size: int = 32  # side of the map that the attribute planes are appended to

    def __post_init__(self) -> None:
        """Raise a ValueError where the planes have no place, or no effect."""
        places = self.sizes[:-1]
        if self.join_size not in places:
            known = ", ".join(map(str, places))
            raise ValueError(f"join_size is {self.join_size}; there are maps of {known}")
        if self.norm == "instance":
            raise ValueError(
                "norm is instance, which takes away what an attribute adds to a whole map: "
                "use group"
            )

    @classmethod
    def paper(cls) -> "AFRPDiscriminatorConfig":
        """The widths of the parent paper (papers 3.3), without normalization, as there.

        Its dropout is left out: the papers' own discriminators (papers 2.4) have none.
        """
        return cls(
            stem_shuffle=1,
            widths=(32, 64, 128, 256),
            kernel=5,
            full_width=1024,
            pool=True,
            norm="none",
        )


class AFRPDiscriminator(FDNNDiscriminator):
    """The discriminative network (papers 3.2, 3.3): is this a photo, and of these attributes?

    To be trained on real photos with their attributes (1), generated ones with the attributes
    asked for (0), and real photos with wrong attributes (0).
    """

    model_type: ClassVar[str] = "afrp-discriminator"
    config_class = AFRPDiscriminatorConfig
    takes_attributes: ClassVar[bool] = True
    config: AFRPDiscriminatorConfig

    def __init__(self, config: AFRPDiscriminatorConfig | None = None):
        super().__init__(config := config or AFRPDiscriminatorConfig())
        blocks = [n for n, layer in enumerate(self.features) if isinstance(layer, ConvBlock)]
        self.place = blocks[config.sizes.index(config.join_size) + 1]
        narrow = cast(ConvBlock, self.features[self.place]).conv
        self.features[self.place] = ConvBlock(
            narrow.in_channels + CODES,
            narrow.out_channels,
            narrow.kernel_size[0],
            narrow.stride[0],
            config.norm,
        )

    def forward(self, photos: torch.Tensor, attributes: torch.Tensor | None = None) -> torch.Tensor:
        """Judge photos with their attributes.

        Args:
            photos: `(N, 3, 128, 128)` in [-1, 1].
            attributes: `(N, 18)` from 0 to 1, nan for unknown; None for all nan.

        Returns:
            Logits, positive for a real photo that has the attributes: `(N,)`, or `(N, S, S)`
            without a full layer.

        Raises:
            ValueError: another shape of the attributes.
        """
        planes = encode_attributes(attributes, photos)[:, :, None, None]
        features = photos
        for number, layer in enumerate(self.features):
            if number == self.place:
                tiled = planes.expand(-1, -1, *features.shape[2:])
                features = torch.cat([features, tiled], 1)
            features = layer(features)
        return self.judged(features)
