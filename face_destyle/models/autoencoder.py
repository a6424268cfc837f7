"""The way from the full layer's map to the photo, which the recovery networks share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from face_destyle.models.base import FaceModel
from face_destyle.models.layers import Doubling, JoiningBlock, Norm, decoder_levels

# A map and, where there is one, what a skip connection brings beside it -> a map.
Level = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class Painter(nn.Module):
    """The end of a decoder: a map, and what comes beside it, -> an unclamped picture."""

    def __init__(
        self, channels: int, width: int, kernel: int, doubles: bool, norm: Norm, shuffle: int
    ):
        super().__init__()
        self.tail = JoiningBlock(channels, width, kernel, doubles, norm)
        self.head = nn.Conv2d(width, 3 * shuffle**2, kernel, padding=kernel // 2)
        self.shuffle_out = nn.PixelShuffle(shuffle)

    def forward(self, features: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        """`(N, C, S, S)` -> `(N, 3, P, P)`: P is S times the shuffle, or twice as much."""
        return self.shuffle_out(self.head(self.tail(features, beside)))  # type: ignore[no-any-return]


class FaceAutoencoder(FaceModel):
    """A recovery network that paints what its config says of decoder, skips, tail and head."""

    config: Any

    def add_decoder(
        self, transformers: Mapping[str, nn.Module] | None = None, coarse_side: int = 0
    ) -> None:
        """Make the levels, the layer after the last of them and the head: `decode` ends in it.

        Args:
            transformers: by the side of a level's map, what aligns it.
            coarse_side: of the level's map that a coarse photo is painted from as well, with a
                tail and a head of the same numbers: the levels after it add what is finer. The
                head starts at zero, so the photo starts as the coarse one. 0: no coarse photo.
        """
        config = self.config
        # What a skip connection adds to the channels that each level gives.
        joined = [
            config.skip_width if side in config.skip_sizes else 0 for side in config.decoder_sizes
        ]
        self.doubling = Doubling()
        self.decoder_transformers = nn.ModuleDict(transformers)
        # What is aligned has been doubled for it; the first level takes the map as it comes.
        doubled = [str(side) in self.decoder_transformers for side in config.decoder_sizes]
        doubles = [False, *(not already for already in doubled)]
        self.decoder = nn.ModuleList(
            decoder_levels(
                config.encoder_widths[-1],
                config.decoder_widths,
                config.decoder_kernels,
                config.decoder_blocks,
                joined,
                doubles[:-1],
                config.decoder_norm,
            )
        )

        def painter(level: int) -> Painter:
            """Of the map that a level gives."""
            return Painter(
                config.decoder_widths[level] + joined[level],
                config.tail_width,
                config.head_kernel,
                doubles[level + 1],
                config.decoder_norm,
                config.head_shuffle,
            )

        # The parts by themselves: their names in the weights have no prefix.
        end = painter(len(config.decoder_widths) - 1)
        self.tail, self.head, self.shuffle_out = end.tail, end.head, end.shuffle_out
        self.coarse = nn.ModuleDict()
        if coarse_side:
            self.coarse[str(coarse_side)] = painter(config.decoder_sizes.index(coarse_side))
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)

    def decode(
        self,
        features: torch.Tensor,
        round_the_code: Mapping[int, torch.Tensor],
        levels: Iterable[Level],
    ) -> torch.Tensor:
        """From the full layer's map to the photo, unclamped.

        Args:
            features: what the first level takes.
            round_the_code: by its side, what a skip connection brings.
            levels: the decoder's, or something around them.
        """
        beside, coarse = None, None
        for level, size in zip(levels, self.config.decoder_sizes, strict=True):
            features = level(features, beside)
            if str(size) in self.decoder_transformers:
                features, _ = self.decoder_transformers[str(size)](self.doubling(features))
            beside = round_the_code.get(size)
            if str(size) in self.coarse:
                coarse = self.coarse[str(size)](features, beside)
        photo: torch.Tensor = self.shuffle_out(self.head(self.tail(features, beside)))
        if coarse is None:
            return photo
        return photo + F.interpolate(coarse, photo.shape[2:], mode="bicubic")
