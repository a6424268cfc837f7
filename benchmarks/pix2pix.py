"""The rival: pix2pix (Isola et al., CVPR 2017), unet_128 and the 70 x 70 PatchGAN.

Written from the paper's appendix and the layer sizes of its released code, and trained through
the same loop as our networks: `python -m benchmarks.fit --recipe benchmarks/pix2pix.yaml ...`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from face_destyle.models.base import FaceModel, HubModel, Recovered

DEPTH = 7  # 128 pixels down to one
# Up to this side a convolution is trained as a matrix product, twice as fast on a CPU: the maps
# are so small and the kernels so many that oneDNN's time goes into laying out the weights.
SMALL_SIDE = 8


class Down(nn.Conv2d):
    """A 4x4 convolution of stride 2: `(N, C, H, W)` -> `(N, C', H / 2, W / 2)`."""

    def __init__(self, before: int, after: int, bias: bool):
        super().__init__(before, after, 4, 2, 1, bias=bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Convolve."""
        count, _, height, width = features.shape
        if not self.training or max(height, width) > SMALL_SIDE:
            return super().forward(features)
        patches = F.unfold(features, 4, padding=1, stride=2).transpose(0, 1).flatten(1)
        out = (self.weight.flatten(1) @ patches).view(-1, count, height // 2, width // 2)
        out = out.transpose(0, 1)
        return out if self.bias is None else out + self.bias[:, None, None]


class Up(nn.ConvTranspose2d):
    """A transposed 4x4 convolution of stride 2: `(N, C, H, W)` -> `(N, C', 2H, 2W)`."""

    def __init__(self, before: int, after: int, bias: bool):
        super().__init__(before, after, 4, 2, 1, bias=bias)

    def forward(self, features: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Convolve; `output_size` as in torch."""
        count, _, height, width = features.shape
        if not self.training or max(height, width) > SMALL_SIDE:
            return super().forward(features, output_size)
        patches = self.weight.flatten(1).t() @ features.transpose(0, 1).flatten(1)
        patches = patches.view(-1, count, height * width).transpose(0, 1)
        # Patches overlap: their sums are taken in float32, as a convolution's are.
        out = F.fold(patches.float(), (2 * height, 2 * width), 4, padding=1, stride=2)
        return out if self.bias is None else out + self.bias[:, None, None]


@dataclass(frozen=True)
class UNet128Config:
    """Widths double from `width` up to eight times it."""

    image_size: int = 128
    width: int = 64
    dropout: float = 0.5


class UNet128(FaceModel):
    """A U-Net of seven levels with a skip at each: `(N, 3, 128, 128)` -> the same."""

    model_type: ClassVar[str] = "pix2pix-unet128"
    config_class = UNet128Config
    config: UNet128Config

    def __init__(self, config: UNet128Config | None = None):
        super().__init__()
        self.config = config = config or UNet128Config()
        widths = [config.width * min(2**level, 8) for level in range(DEPTH)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level in range(DEPTH):
            outermost, innermost = level == 0, level == DEPTH - 1
            before = 3 if outermost else widths[level - 1]
            down: list[nn.Module] = [] if outermost else [nn.LeakyReLU(0.2)]
            down.append(Down(before, widths[level], bias=outermost or innermost))
            if not (outermost or innermost):
                down.append(nn.BatchNorm2d(widths[level]))
            above = widths[level] if innermost else 2 * widths[level]
            up: list[nn.Module] = [
                nn.ReLU(inplace=True),
                Up(above, before, bias=outermost),
            ]
            if not outermost:
                up.append(nn.BatchNorm2d(before))
            # In the released unet_128 dropout follows the blocks of full width between the ends.
            if widths[level] == before and not innermost:
                up.append(nn.Dropout(config.dropout))
            self.down.append(nn.Sequential(*down))
            self.up.append(nn.Sequential(*up))
        self.apply(initialize)

    def forward(self, portraits: torch.Tensor) -> Recovered:
        """Photos `(N, 3, 128, 128)` in [-1, 1] for portraits of the same form."""
        self.check_input(portraits)
        skips, features = [], portraits
        for down in self.down:
            features = down(features)
            skips.append(features)
        for level in reversed(range(DEPTH)):
            features = self.up[level](features)
            if level > 0:
                features = torch.cat([skips[level - 1], features], 1)
        return Recovered(torch.tanh(features))


@dataclass(frozen=True)
class PatchGANConfig:
    """Three strided layers: every logit sees 70 x 70 pixels."""

    width: int = 64


class PatchGAN(HubModel):
    """The conditional discriminator: is this photo the photo of this portrait?"""

    model_type: ClassVar[str] = "pix2pix-patchgan"
    conditional: ClassVar[bool] = True
    config_class = PatchGANConfig
    config: PatchGANConfig

    def __init__(self, config: PatchGANConfig | None = None):
        super().__init__()
        self.config = config = config or PatchGANConfig()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for factor, stride in ((2, 2), (4, 2), (8, 1)):
            layers.append(nn.Conv2d(width * factor // 2, width * factor, 4, stride, 1, bias=False))
            layers += [nn.BatchNorm2d(width * factor), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 1))
        self.apply(initialize)

    def forward(self, photos: torch.Tensor, portraits: torch.Tensor) -> torch.Tensor:
        """Logits `(N, 1, 14, 14)` of photos `(N, 3, 128, 128)` given their portraits."""
        return self.layers(torch.cat([portraits, photos], 1))


def initialize(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.02, as published."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
