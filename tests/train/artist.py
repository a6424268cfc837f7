"""What train.your_artist is given in the tests, and what it must leave."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, FDNNDiscriminatorConfig, HubModel
from tests import drawn
from tests.train import made
from train import publish, your_artist
from train.sizing import Plan, Speeds

SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)
PLAN = Plan(style_steps=2, photos=6, held_out=2, images=16)
SPEEDS = Speeds(style_step=1.0, portrait=0.01, image=0.02, figure=0.1)


def parts(folder: Path) -> dict[str, str]:
    """What the command is given, by the name of the argument; its files in an empty folder."""
    torch.manual_seed(0)
    drawn.quarters(90, 80).save(folder / "my quarters.png")
    FDNN(SMALL).half().save_pretrained(folder / "first")
    judge = FDNNDiscriminatorConfig(widths=(8, 8), full_width=8)
    FDNNDiscriminator(judge).half().save_pretrained(folder / "first" / "discriminator")
    (folder / "first" / "recipe.yaml").write_text(yaml.safe_dump({"data": {"styles": ["udnie"]}}))
    recipe = {
        "name": "tiny",
        "model": {"type": "fdnn"},
        "discriminator": {"type": "fdnn-discriminator"},
        "augment": {"mirror": True, "blend": 0.5},
        "train": {"batch_size": 4, "precision": "fp32"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return {
        "artwork": str(folder / "my quarters.png"),
        "photos": str(made.photos(folder / "photos", count=12)),
        "init": str(folder / "first"),
        "perceptual": str(made.perceptual_network(folder / "vgg.safetensors")),
        "embedding": str(made.face_embedding(folder / "face.safetensors")),
        "recipe": str(folder / "tiny.yaml"),
        "variants": "1",
    }


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command take the machine for one that needs seconds."""
    monkeypatch.setattr(your_artist, "measure", lambda *parts: SPEEDS)
    monkeypatch.setattr(your_artist, "choose", lambda *parts: PLAN)


def line(parts: dict[str, str], out: Path, **changed: str) -> list[str]:
    """The arguments of the command."""
    given = parts | changed | {"out": str(out)}
    return [text for name, value in given.items() for text in (f"--{name}", value)]


def is_ready(out: Path, parts: dict[str, str]) -> None:
    """The folder can be pushed as it is, and its card tells what was measured."""
    model = out / "model"
    assert set(publish.uploaded(model)) == set(publish.PUBLISHED) - {"obedience.json"}
    assert not [path for path in model.rglob("*") if path.suffix in (".png", ".jpg", ".parquet")]
    before, after = HubModel.from_pretrained(parts["init"]), HubModel.from_pretrained(model)
    assert not torch.equal(before.state_dict()["head.weight"], after.state_dict()["head.weight"])
    figures = json.loads((model / "metrics.json").read_text())
    assert {name: row["seen"] for name, row in figures["styles"].items()} == {
        "my_quarters": True,
        "udnie": True,
    }
    as_it_was = json.loads((out / "before.json").read_text())
    assert {name: row["seen"] for name, row in as_it_was["styles"].items()} == {
        "my_quarters": False,
        "udnie": True,
    }
    text = (model / "README.md").read_text()
    old, new = (row["styles"]["udnie"]["recovered"]["psnr"] for row in (as_it_was, figures))
    assert f"| udnie | {old:.2f} -> {new:.2f} |" in text
    assert "base_model: first" in text and "after **my quarters** above all" in text
    assert str(Path(parts["photos"]).parent) not in text
