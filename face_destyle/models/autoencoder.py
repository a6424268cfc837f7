"""The way from the full layer's map to the photo, which the recovery networks share."""

from typing import Any

import torch
from torch import nn

from face_destyle.models.base import FaceModel
from face_destyle.models.layers import ConvBlock, decoder_levels


class FaceAutoencoder(FaceModel):
    """A recovery network that paints what its config says of decoder, skips, tail and head."""

    def add_decoder(self, config: Any) -> None:
        """Make the levels, the layer after the last of them and the head: `painted` ends in it."""
        # What a skip connection adds to the channels that each level gives.
        joined = [
            config.skip_width if side in config.skip_sizes else 0 for side in config.decoder_sizes
        ]
        self.decoder = nn.ModuleList(
            decoder_levels(
                config.encoder_widths[-1],
                config.decoder_widths,
                config.decoder_kernels,
                config.decoder_blocks,
                joined,
                config.norm,
            )
        )
        self.tail = ConvBlock(
            config.decoder_widths[-1] + joined[-1],
            config.tail_width,
            config.head_kernel,
            norm=config.norm,
            slope=0.0,
        )
        self.head = nn.Conv2d(
            config.tail_width,
            3 * config.head_shuffle**2,
            config.head_kernel,
            padding=config.head_kernel // 2,
        )
        self.shuffle_out = nn.PixelShuffle(config.head_shuffle)

    def painted(self, features: torch.Tensor) -> torch.Tensor:
        """What comes after the last level: its map -> the photo, unclamped."""
        return self.shuffle_out(self.head(self.tail(features)))  # type: ignore[no-any-return]
