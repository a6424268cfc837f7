"""Small datasets, recipes and helper networks that the training tests make for themselves."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import ImageOps
from safetensors.torch import save_file

from tests import drawn
from train.frozen import FaceEmbedding, PerceptualNetwork
from train.misalign import MisalignConfig, named_misalignment, turn_photo

GENERATOR = {
    "image_size": 32,
    "encoder_widths": [8, 8],
    "encoder_kernels": [3, 3],
    "encoder_blocks": [0, 1],
    "code_rank": 4,
    "decoder_widths": [8],
    "decoder_kernels": [3],
    "decoder_blocks": [1],
    "skip_sizes": [16],
    "skip_width": 4,
    "tail_width": 8,
}
DISCRIMINATOR = {"image_size": 32, "widths": [8, 8], "full_width": 8}


def photos(folder: Path, count: int = 6, split: str = "train") -> Path:
    """A picture folder of drawn faces, with identities."""
    target = folder / split
    target.mkdir(parents=True)
    lines = []
    for seed in range(count):
        drawn.face(seed).save(target / f"{seed:02d}.png")
        row = {
            "file_name": f"{seed:02d}.png",
            "identity": f"p{seed // 2}",
            "Smiling": seed % 2 == 0,
        }
        lines.append(json.dumps(row))
    (target / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def pairs(folder: Path, count: int = 6, splits: tuple[str, ...] = ("train",)) -> Path:
    """A folder of pairs in two 'styles': the negative, and the mirrored negative."""
    for split in splits:
        target = folder / split
        target.mkdir(parents=True)
        lines = []
        for seed in range(count):
            photo = drawn.face(seed)
            photo.save(target / f"{seed:02d}-photo.png")
            for style, change in (("negative", ImageOps.invert), ("posterized", ImageOps.solarize)):
                change(photo).save(target / f"{seed:02d}-{style}.png")
                row = {
                    "portrait_file_name": f"{seed:02d}-{style}.png",
                    "photo_file_name": f"{seed:02d}-photo.png",
                    "style": style,
                    "identity": f"p{seed}",
                    "photo_key": f"{split}-{seed}",
                }
                lines.append(json.dumps(row))
        (target / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def turned_pairs(folder: Path, count: int = 3, variants: int = 2, margin: int = 0) -> Path:
    """A split `train` of turned photos and their negatives, each with its alignment."""
    target = folder / "train"
    target.mkdir(parents=True)
    lines = []
    for seed in range(count):
        drawn.face(seed).save(target / f"{seed:02d}.png")
        for variant in range(variants):
            one = named_misalignment(MisalignConfig(), 0, str(seed), variant)
            photo = turn_photo(drawn.face(seed), 0, one)
            for style, portrait in (("same", photo), ("negative", ImageOps.invert(photo))):
                name = f"{seed:02d}-{variant}-{style}.png"
                portrait.save(target / name)
                row = {
                    "portrait_file_name": name,
                    "photo_file_name": f"{seed:02d}.png",
                    "style": style,
                    "identity": f"p{seed}",
                    "photo_key": f"train-{seed}",
                    "variant": variant,
                    "alignment": one.alignment().flatten().tolist(),
                    "margin": margin if seed else 0,
                }
                lines.append(json.dumps(row))
    (target / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def circle_psnr(one: torch.Tensor, two: torch.Tensor) -> float:
    """PSNR in dB of `(N, 3, S, S)` in [-1, 1], in a circle that every misalignment leaves whole."""
    ticks = (torch.arange(one.shape[-1]) + 0.5) / one.shape[-1] * 2 - 1
    inside = ticks[:, None].square() + ticks.square() < 0.8**2
    return float(-10 * ((one - two)[..., inside] / 2).square().mean().log10())


def recipe(folder: Path, data: Path, **sections: dict[str, Any]) -> Path:
    """A recipe of tiny networks; `sections` are laid over it."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "model": {"type": "fdnn", "config": GENERATOR},
        "discriminator": {"type": "fdnn-discriminator", "config": DISCRIMINATOR},
        "data": {"pairs": str(data)},
        "augment": {"blend": 0.5, "mix": 0.5, "noise": 0.1, "patches": 0.3, "strokes": 0.5},
        "optimizer": {"warmup": 0},
        "train": {
            "images": 80,
            "batch_size": 8,
            "precision": "fp32",
            "log_every": 16,
            "sample_every": 40,
            "save_every": 40,
        },
    }
    for name, values in sections.items():
        fields[name] = fields[name] | values if name in fields else values
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def perceptual_network(path: Path) -> Path:
    """A file in the layout of the distilled VGG-19, with random weights."""
    torch.manual_seed(0)
    save_file(PerceptualNetwork().state_dict(), path)
    return path


def face_embedding(path: Path, variant: str = "xiaoccer") -> Path:
    """A file in the layout of a MobileFaceNet, with random weights."""
    torch.manual_seed(0)
    save_file(FaceEmbedding(variant).state_dict(), path)
    return path
