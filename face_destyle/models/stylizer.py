"""The feed-forward style network (Johnson et al., ECCV 2016, with instance normalization).

It makes the portraits that the studies learn from, and turns a visitor's photo into one.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from face_destyle import images
from face_destyle.models.base import HubModel

PADDING = 8  # a residual block trims 2 pixels a side, at a quarter of the size
CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red: the space the network works in
OUTPUT_SCALE = 150.0


@dataclass(frozen=True)
class StylizerConfig:
    """Widths are `width`, `2 width`, `4 width`; `style` names the artwork."""

    width: int = 16
    blocks: int = 5
    style: str = ""


class TrimmedResidualBlock(nn.Module):
    """Two unpadded 3x3 convolutions beside the trimmed input: 4 pixels smaller."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.in1 = nn.GroupNorm(channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.in2 = nn.GroupNorm(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Add what the two convolutions find to the middle of the input."""
        inner = F.relu(self.in1(self.conv1(features)))
        return self.in2(self.conv2(inner)) + features[..., 2:-2, 2:-2]  # type: ignore[no-any-return]


class Stylizer(HubModel):
    """Paint a photo in the manner of one artwork.

    The layers and their names are those of the fast-neural-style release
    (c9s1-16, d32, d64, five R64, u32, u16, c9s1-3), so its converted weights load strictly.

    Example:

    ```python
    from face_destyle import Stylizer
    portrait = Stylizer.from_pretrained("style-the-scream").stylize("me.jpg")
    ```
    """

    model_type: ClassVar[str] = "stylizer"
    config_class = StylizerConfig
    config: StylizerConfig
    mean: torch.Tensor

    def __init__(self, config: StylizerConfig | None = None):
        super().__init__()
        self.config = config = config or StylizerConfig()
        narrow, middle, wide = config.width, 2 * config.width, 4 * config.width
        self.conv1 = nn.Conv2d(3, narrow, 9, padding=4)
        self.in1 = nn.GroupNorm(narrow, narrow)
        self.conv2 = nn.Conv2d(narrow, middle, 3, 2, padding=1)
        self.in2 = nn.GroupNorm(middle, middle)
        self.conv3 = nn.Conv2d(middle, wide, 3, 2, padding=1)
        self.in3 = nn.GroupNorm(wide, wide)
        self.res = nn.ModuleList([TrimmedResidualBlock(wide) for _ in range(config.blocks)])
        self.up1 = nn.ConvTranspose2d(wide, middle, 3, 2, padding=1, output_padding=1)
        self.in4 = nn.GroupNorm(middle, middle)
        self.up2 = nn.ConvTranspose2d(middle, narrow, 3, 2, padding=1, output_padding=1)
        self.in5 = nn.GroupNorm(narrow, narrow)
        self.out = nn.Conv2d(narrow, 3, 9, padding=4)
        self.register_buffer("mean", torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Stylize photos.

        Args:
            photos: `(N, 3, H, W)` RGB in [-1, 1]; H and W multiples of 4, above 40.

        Returns:
            portraits of the same shape, in [-1, 1]; unclamped in training mode, where a clamp
            would stop the gradient.

        Raises:
            ValueError: a side that is no multiple of 4, or not above 40.
        """
        height, width = photos.shape[-2:]
        padding = PADDING * self.config.blocks
        if height % 4 or width % 4 or min(height, width) <= padding:
            raise ValueError(
                f"a photo of {width} x {height} cannot be stylized: "
                f"use sides that are multiples of 4 and above {padding}"
            )
        features = (photos.flip(1) + 1) * 127.5 - self.mean
        features = F.pad(features, (padding,) * 4, mode="reflect")
        features = F.relu(self.in1(self.conv1(features)))
        features = F.relu(self.in2(self.conv2(features)))
        features = F.relu(self.in3(self.conv3(features)))
        for block in self.res:
            features = block(features)
        features = F.relu(self.in4(self.up1(features)))
        features = F.relu(self.in5(self.up2(features)))
        painted = OUTPUT_SCALE * torch.tanh(self.out(features)) + self.mean
        portraits = painted.flip(1) / 127.5 - 1
        return portraits if self.training else portraits.clamp(-1, 1)

    def stylize(self, photo: images.Source, size: int = 128) -> Image.Image:
        """Stylize the centre square of one picture (path, PIL or array) at `size` x `size`."""
        batch = images.to_tensor([images.centre_square(images.load_picture(photo))], size)
        device = next(self.parameters()).device
        with torch.inference_mode():
            return images.to_picture(self(batch.to(device))[0])
