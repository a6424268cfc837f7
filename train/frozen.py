"""Frozen helper networks: perceptual features for losses, face embeddings for identity.

They are never part of a published weight. Each is loaded from a path or from `org/name/file` on
the Hub, strictly.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional as F

from face_destyle.errors import WeightsError
from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.models.base import load_weights

# The 112 x 112 template of ArcFace (Deng et al., CVPR 2019), in the same order.
TEMPLATE_LANDMARKS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
TEMPLATE_SIZE = 112


def find_frozen(source: str | Path, what: str, ending: str = "safetensors") -> Path:
    """A file that helps in training: a path, or `org/name/file.ENDING` on the Hub.

    Raises:
        WeightsError: neither; says what kind of file is needed.
    """
    if Path(source).is_file():
        return Path(source)
    parts = str(source).split("/")
    if len(parts) < 3 or str(source).startswith((".", "/")):
        raise WeightsError(
            f"{source} does not exist: give {what} as a {ending} file, "
            f"or as org/name/file.{ending} on the Hub"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download("/".join(parts[:2]), "/".join(parts[2:])))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise WeightsError(
            f"cannot get {source} from the Hub; give {what} as a path instead"
        ) from error


def sha256(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class PerceptualNetwork(nn.Module):
    """VGG-19 distilled to a 16th of its filters (Wang et al., CVPR 2020): relu1_1 .. relu5_1.

    Its 1x1 `aux` maps, trained to repeat the features of the original VGG-19, are loaded with
    the file but not used.
    """

    LAYERS = [
        "11",
        "12",
        "P",
        "21",
        "22",
        "P",
        "31",
        "32",
        "33",
        "34",
        "P",
        "41",
        "42",
        "43",
        "44",
        "P",
        "51",
    ]
    WIDTHS = (16, 32, 64, 128, 128)
    ORIGINAL_WIDTHS = (64, 128, 256, 512, 512)

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 3, 1)
        channels = 3
        for name in self.LAYERS:
            if name == "P":
                continue
            block = int(name[0]) - 1
            setattr(self, f"conv{name}", nn.Conv2d(channels, self.WIDTHS[block], 3))
            channels = self.WIDTHS[block]
            if name[1] == "1":
                aux = nn.Conv2d(channels, self.ORIGINAL_WIDTHS[block], 1)
                setattr(self, f"conv{name}_aux", aux)

    @classmethod
    def load(cls, source: str | Path) -> "PerceptualNetwork":
        """Load from a path or Hub file, frozen, in eval mode."""
        network = cls()
        load_weights(network, find_frozen(source, "the distilled VGG-19 (levels 1 to 5)"))
        return network.requires_grad_(False).eval()

    def forward(self, pictures: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Features of pictures `(N, 3, H, W)` in [-1, 1], for names such as `relu3_1`."""
        wanted = {name.removeprefix("relu").replace("_", "") for name in layers}
        features, found = self.conv0((pictures + 1) / 2), {}
        for name in self.LAYERS:
            if name == "P":
                features = F.max_pool2d(features, 2)
                continue
            padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
            features = F.relu(getattr(self, f"conv{name}")(padded))
            if name in wanted:
                found[f"relu{name[0]}_{name[1]}"] = features
            if len(found) == len(wanted):
                break
        return found


class _Unit(nn.Module):
    """Convolution, batch normalization and, where asked for, PReLU."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        active: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width) if active else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.prelu(self.bn(self.conv(features)))


class _Bottleneck(nn.Module):
    """Expand, depthwise 3x3, project; with a shortcut where the shape stays."""

    def __init__(self, channels: int, middle: int, width: int, stride: int):
        super().__init__()
        self.sep = _Unit(channels, middle, 1)
        self.dw = _Unit(middle, middle, 3, stride, 1, middle)
        self.proj = _Unit(middle, width, 1, active=False)
        self.shortcut = stride == 1 and channels == width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mapped: torch.Tensor = self.proj(self.dw(self.sep(features)))
        return features + mapped if self.shortcut else mapped


class FaceEmbedding(nn.Module):
    """MobileFaceNet (Chen et al., 2018): an aligned 128 x 128 face -> a 128-d unit vector.

    The two published variants differ in blocks, crop and bias; the file tells which it is.
    The aligned frame is warped to the embedding's own template inside.
    """

    # (middle, width, repeats, stride of the first)
    BLOCKS = {
        "insightface": (
            (128, 64, 1, 2),
            (128, 64, 4, 1),
            (256, 128, 1, 2),
            (256, 128, 6, 1),
            (512, 128, 1, 2),
            (256, 128, 2, 1),
        ),
        "xiaoccer": (
            (128, 64, 5, 2),
            (256, 128, 1, 2),
            (256, 128, 6, 1),
            (512, 128, 1, 2),
            (256, 128, 2, 1),
        ),
    }
    grid: torch.Tensor

    def __init__(self, variant: str):
        super().__init__()
        self.narrow = variant == "xiaoccer"  # it sees the middle 96 of the 112 columns
        self.conv1 = _Unit(3, 64, 3, 2, 1)
        self.dw1 = _Unit(64, 64, 3, 1, 1, 64)
        blocks: list[nn.Module] = []
        channels = 64
        for middle, width, repeats, stride in self.BLOCKS[variant]:
            for repeat in range(repeats):
                blocks.append(_Bottleneck(channels, middle, width, stride if repeat == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.conv6 = _Unit(channels, 512, 1)
        self.gdc = _Unit(512, 512, (7, 6) if self.narrow else (7, 7), groups=512, active=False)
        self.fc = nn.Linear(512, 128, bias=not self.narrow)
        self.fc_bn = nn.BatchNorm1d(128)
        self.register_buffer("grid", _template_grid(), persistent=False)

    @classmethod
    def load(cls, source: str | Path) -> "FaceEmbedding":
        """Load from a path or Hub file, frozen, in eval mode.

        Raises:
            WeightsError: no such file, no safetensors file, or one of another network.
        """
        path = find_frozen(source, "a MobileFaceNet face embedding")
        network = cls(_variant(path))
        load_weights(network, path)
        return network.requires_grad_(False).eval()

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Embed aligned photos `(N, 3, 128, 128)` in [-1, 1] as unit vectors `(N, 128)`."""
        grid = self.grid.expand(len(photos), -1, -1, -1)
        faces = F.grid_sample(photos, grid, align_corners=False, padding_mode="border")
        faces = faces * (127.5 / 128)  # its inputs are (x - 127.5) / 128
        if self.narrow:
            faces = faces[..., 8:104]
        features = self.gdc(self.conv6(self.blocks(self.dw1(self.conv1(faces)))))
        return F.normalize(self.fc_bn(self.fc(features.flatten(1))))


def _variant(path: Path) -> str:
    """Which of `FaceEmbedding.BLOCKS` a file holds."""
    try:
        with safe_open(path, "pt") as file:
            return "insightface" if "fc.bias" in file.keys() else "xiaoccer"  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error


def _template_grid() -> torch.Tensor:
    """Where each pixel of the 112 template lies in the 128 frame, for `grid_sample`."""
    source = np.array(TEMPLATE_LANDMARKS) + 0.5
    target = np.array(FRAME_LANDMARKS) + 0.5
    # A similarity is one complex factor and one complex shift: a least-squares line.
    points, images = source @ (1, 1j), target @ (1, 1j)
    centred = points - points.mean()
    factor = (centred.conj() @ (images - images.mean())) / (centred.conj() @ centred)
    rows, columns = np.mgrid[0:TEMPLATE_SIZE, 0:TEMPLATE_SIZE] + 0.5
    mapped = factor * (columns + 1j * rows - points.mean()) + images.mean()
    grid = np.stack([mapped.real, mapped.imag], -1) / 128 * 2 - 1
    return torch.from_numpy(grid.astype(np.float32))[None]
