"""Train a style network from one artwork (Johnson et al., ECCV 2016).

    python -m train.style --artwork starry_night.jpg --photos PHOTOS \
        --perceptual vgg19_cd16x_5SE.safetensors --out OUT

Content + style + total variation loss on the features of a frozen perceptual network. What it was
given lies beside the weights as recipe.yaml, by which the same network can be made again.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from face_destyle import Stylizer, StylizerConfig, images
from face_destyle.errors import UserError
from face_destyle.models.base import weights_file
from train.console import one_line_errors
from train.frozen import PerceptualNetwork, find_frozen, sha256
from train.losses import moved
from train.memory import keep_freed_memory
from train.photos import Photo, open_photos, read_photos
from train.precision import Precision, in_bf16

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
CONTENT_LAYER = "relu3_1"


@dataclass(frozen=True)
class StyleArguments:
    """The recipe of one style network; the photos are `(128, 128)`, the batch is in pictures."""

    artwork: str
    photos: str
    perceptual: str
    steps: int = 600
    batch_size: int = 4
    learning_rate: float = 2e-3
    artwork_side: int = 256  # its shorter side: a smaller artwork gives finer strokes
    content_weight: float = 1.5
    style_weight: float = 10.0
    variation_weight: float = 0.3
    range_weight: float = 5.0  # of what lies outside [-1, 1], which would be cut to flat white
    jitter: int = 0  # pixels by which what the perceptual network sees moves from step to step
    init: str = ""  # a style network to start from
    pool: int = 2000  # how many training photos are drawn from
    seed: int = 0


def gram(features: torch.Tensor) -> torch.Tensor:
    """Gram matrices `(N, C, C)` of features `(N, C, H, W)`, by area and channels."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


class StyleLoss:
    """Content, style, range and total variation, each a mean over its own elements.

    The style part of a layer is relative to the artwork's own Gram matrix, the content part to
    the photo's own features: so the weights mean the same for a pale and for a glaring artwork.
    """

    def __init__(
        self, network: PerceptualNetwork, artwork: torch.Tensor, arguments: StyleArguments
    ):
        self.network = network
        self.arguments = arguments
        with torch.no_grad():
            features = network(artwork, STYLE_LAYERS)
        self.targets = {name: gram(value) for name, value in features.items()}

    def __call__(
        self, portraits: torch.Tensor, photos: torch.Tensor, step: int = 0
    ) -> dict[str, torch.Tensor]:
        """The weighted parts for portraits and photos `(N, 3, H, W)` in [-1, 1], at a step."""
        reach = self.arguments.jitter
        features = self.network(moved(portraits, reach, step), (*STYLE_LAYERS, CONTENT_LAYER))
        with torch.no_grad():
            content = self.network(moved(photos, reach, step), (CONTENT_LAYER,))[CONTENT_LAYER]
        style = torch.stack(
            [
                (gram(features[name]) - target).square().mean() / target.square().mean()
                for name, target in self.targets.items()
            ]
        ).mean()
        return {
            "content": self.arguments.content_weight
            * (features[CONTENT_LAYER] - content).square().mean()
            / content.square().mean(),
            "style": self.arguments.style_weight * style,
            "range": self.arguments.range_weight * (portraits.abs() - 1).relu().mean(),
            "variation": self.arguments.variation_weight
            * (portraits.diff(dim=2).abs().mean() + portraits.diff(dim=3).abs().mean()),
        }


def load_artwork(path: str, side: int) -> torch.Tensor:
    """The whole artwork, its shorter side `side` pixels: `(1, 3, H, W)` in [-1, 1]."""
    picture = images.load_picture(path)
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    return images.from_uint8(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


@torch.no_grad()
def smooth_start(network: Stylizer) -> None:
    """Let the transposed convolutions begin as bilinear doubling.

    With 3 taps at stride 2 the output pixels are sums of 1, 2 or 4 taps: from independent random
    taps a grid appears that takes thousands of steps to unlearn.
    """
    bilinear = torch.tensor([0.5, 1.0, 0.5]).outer(torch.tensor([0.5, 1.0, 0.5]))
    for layer in (network.up1, network.up2):
        channels, width = layer.weight.shape[:2]
        mixing = torch.randn(channels, width, 1, 1) * (2 / channels) ** 0.5
        layer.weight.copy_(mixing * bilinear)


def train_style(arguments: StyleArguments, precision: Precision = "auto") -> Stylizer:
    """Train a style network; the same arguments give the same network on the same machine."""
    bf16 = in_bf16(precision, "cpu")
    torch.manual_seed(arguments.seed)
    network = Stylizer(StylizerConfig(style=Path(arguments.artwork).stem.replace("_", "-"))).train()
    smooth_start(network)
    if arguments.init:
        network.load_state_dict(Stylizer.from_pretrained(arguments.init).state_dict())
    perceptual = PerceptualNetwork.load(arguments.perceptual)
    loss = StyleLoss(perceptual, load_artwork(arguments.artwork, arguments.artwork_side), arguments)
    photos = _read_pool(arguments)
    optimizer = torch.optim.Adam(network.parameters(), arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    draw = torch.Generator().manual_seed(arguments.seed)
    with tqdm(range(arguments.steps), unit="step") as bar:
        for step in bar:
            chosen = torch.randint(len(photos), (arguments.batch_size,), generator=draw)
            batch = images.from_uint8(photos[chosen])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                portraits = network(batch)
                parts = loss(portraits.float(), batch, step)
            total = sum(part.float() for part in parts.values())
            if not torch.isfinite(torch.as_tensor(total)):
                raise UserError("the style loss is no number any more: lower --learning-rate")
            optimizer.zero_grad()
            torch.as_tensor(total).backward()
            optimizer.step()
            schedule.step()
            psnr = -10 * ((portraits.float() - batch) / 2).square().mean().log10()
            bar.set_postfix({k: f"{v.item():.3f}" for k, v in parts.items()}, psnr=f"{psnr:.1f}")
    return network.eval()


def public_name(source: str) -> str:
    """What is told of a source: the name of a file or folder without where it lies, or a Hub id."""
    return Path(source).resolve().name if Path(source).exists() else source


def recipe(arguments: StyleArguments) -> dict[str, Any]:
    """The content of recipe.yaml: the arguments, files by their name and their hash."""
    files = {
        "artwork": Path(arguments.artwork),
        "perceptual": find_frozen(arguments.perceptual, "the distilled VGG-19"),
    }
    if arguments.init:
        files["init"] = weights_file(arguments.init)
    found: dict[str, Any] = {}
    for name, value in asdict(arguments).items():
        found[name] = public_name(value) if isinstance(value, str) and value else value
        if name in files:
            found[f"{name}_sha256"] = sha256(files[name])
    return found


def _read_pool(arguments: StyleArguments) -> torch.Tensor:
    table = open_photos(arguments.photos)
    split = "train" if "train" in table else next(iter(table))
    count = min(len(table[split]), arguments.pool)
    rows = range(0, len(table[split]), max(1, len(table[split]) // count))
    read = list(read_photos(table[split], split, rows))
    for item in read:
        if not isinstance(item, Photo):
            tqdm.write(f"skipped {item}", file=sys.stderr)
    chosen = [item for item in read if isinstance(item, Photo)]
    if not chosen:
        raise UserError(f"{arguments.photos} holds no picture that can be read")
    pixels = np.stack([np.asarray(photo.picture) for photo in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line on bad arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artwork", required=True)
    parser.add_argument("--photos", required=True, help="folder, parquet folder or Hub id")
    parser.add_argument("--perceptual", required=True, help="distilled VGG-19: path or Hub file")
    parser.add_argument("--out", required=True, type=Path)
    defaults = StyleArguments("", "", "")
    names = (
        "steps",
        "batch_size",
        "learning_rate",
        "artwork_side",
        "content_weight",
        "style_weight",
        "variation_weight",
        "range_weight",
        "jitter",
        "init",
        "pool",
        "seed",
    )
    for name in names:
        default = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = parser.parse_args(argv)
    keep_freed_memory()
    if given.out.is_file():
        raise UserError(f"{given.out} is a file: choose another --out")
    if given.out.exists() and any(given.out.iterdir()):
        raise UserError(f"{given.out} is not empty: choose another --out")
    arguments = StyleArguments(
        given.artwork, given.photos, given.perceptual, **{n: getattr(given, n) for n in names}
    )
    network, made_by = train_style(arguments), recipe(arguments)
    network.save_pretrained(given.out)
    (given.out / "recipe.yaml").write_text(yaml.safe_dump(made_by, sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
