"""The pages under docs/ are true: their code runs, their files and options exist."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from face_destyle import HubModel
from face_destyle.models.base import REGISTRY, FaceModel
from tests.train import made
from train.fit import fit
from train.recipe import load_recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"```(\w*)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [text for name, text in found if name == language]


def test_the_worked_example_works(
    tmp_path: Path, portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"portrait": portrait, "__name__": "repaint"}
    try:
        for block in blocks("add-a-study.md", "python"):
            exec(compile(block, "docs/add-a-study.md", "exec"), names)
        network = FaceModel.from_pretrained("repaint")
        assert type(network) is names["Repaint"]
        assert network.recover(portrait).size == (128, 128)

        (recipe,) = blocks("add-a-study.md", "yaml")
        (tmp_path / "repaint.yaml").write_text(recipe)
        data = made.pairs(tmp_path / "pairs", count=2)
        weights = fit(load_recipe("repaint.yaml", [f"data.pairs={data}"]), tmp_path / "run")
        trained = HubModel.from_pretrained(weights)
        assert type(trained) is names["Repaint"] and trained.config.width == 8
        start = HubModel.from_pretrained(weights / "discriminator")
        assert all(torch.isfinite(p).all() for p in start.parameters())
    finally:
        REGISTRY.pop("repaint", None)


@pytest.mark.parametrize("page", [path.name for path in DOCS.glob("*.md")])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    text = (DOCS / page).read_text()
    named = re.findall(r"\b(?:train|tests|docs|cards|benchmarks|face_destyle)/[\w./-]*[\w/]", text)
    named += re.findall(r"\]\(([^)#]+)\)", text)
    assert named
    for path in named:
        if not path.startswith("http") and not re.search(r"repaint|[A-Z]{3}", path):
            places = (ROOT / path, DOCS / path)
            assert any(place.exists() for place in places), f"{page} names {path}"


@pytest.mark.parametrize("page", [path.name for path in DOCS.glob("*.md")])
def test_the_commands_of_a_page_have_these_options(page: str) -> None:
    for block in blocks(page, ""):
        for module, line in re.findall(r"-m (train\.\w+)((?:[^\n\\]|\\\n)*)", block):
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            for option in re.findall(r"\s(--[\w-]+)", line):
                assert f'"{option}"' in source, f"{page}: {module} has no {option}"


def test_the_accelerate_config_is_one(tmp_path: Path) -> None:
    (text,) = blocks("training.md", "yaml")
    config = yaml.safe_load(text)
    from accelerate.commands.config.config_args import ClusterConfig

    (tmp_path / "accelerate.yaml").write_text(text)
    read = ClusterConfig.from_yaml_file(str(tmp_path / "accelerate.yaml"))
    assert read.num_machines == config["num_machines"] == 2
