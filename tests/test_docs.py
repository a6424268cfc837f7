"""The pages in docs/ and benchmarks/ are true: their code runs, their files and options exist."""

import glob
import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from face_destyle import HubModel
from face_destyle.models.base import REGISTRY, FaceModel
from tests.train import made
from train.fit import fit
from train.frozen import FaceEmbedding, PerceptualNetwork
from train.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
every_page = pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in PAGES])


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"```(\w*)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [text for name, text in found if name == language]


def options_of(module: str) -> str:
    """The source in which a command's options are; `benchmarks` lends some from `train`."""
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    lent = re.search(r"^from (train\.\w+) import main$", source, re.MULTILINE)
    return options_of(lent[1]) if lent else source


def test_the_worked_example_works(
    tmp_path: Path, portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"portrait": portrait, "__name__": "repaint"}
    try:
        for block in blocks("docs/add-a-study.md", "python"):
            exec(compile(block, "docs/add-a-study.md", "exec"), names)
        network = FaceModel.from_pretrained("repaint")
        assert type(network) is names["Repaint"]
        assert network.recover(portrait).size == (128, 128)

        (recipe,) = blocks("docs/add-a-study.md", "yaml")
        (tmp_path / "repaint.yaml").write_text(recipe)
        data = made.pairs(tmp_path / "pairs", count=2)
        weights = fit(load_recipe("repaint.yaml", [f"data.pairs={data}"]), tmp_path / "run")
        trained = HubModel.from_pretrained(weights)
        assert type(trained) is names["Repaint"] and trained.config.width == 8
        start = HubModel.from_pretrained(weights / "discriminator")
        assert all(torch.isfinite(p).all() for p in start.parameters())
    finally:
        REGISTRY.pop("repaint", None)


@every_page
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(
        r"\b(?:train|tests|docs|cards|benchmarks|face_destyle)/[\w./*-]*[\w/*]", text
    )
    named += re.findall(r"\]\(([^)#]+)\)", text)
    assert named
    for path in named:
        if not path.startswith("http") and not re.search(r"repaint|[A-Z]{3}", path):
            places = (ROOT / path, (ROOT / page).parent / path)
            assert any(glob.glob(str(place)) for place in places), f"{page} names {path}"


@every_page
def test_the_commands_of_a_page_have_these_options(page: str) -> None:
    for block in blocks(page, ""):
        commands = re.findall(r"-m ((?:train|benchmarks)\.\w+)((?:[^\n\\]|\\\n)*)", block)
        for module, line in commands:
            for option in re.findall(r"\s(--[\w-]+)", line):
                assert f'"{option}"' in options_of(module), f"{page}: {module} has no {option}"


def test_other_peoples_networks_become_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files as they lie upstream: other names for the face embedding, a layer in another shape."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    face, perceptual = FaceEmbedding("xiaoccer").eval(), PerceptualNetwork()
    tensors = face.state_dict() | {"fc.weight": face.fc.weight.detach()[..., None, None]}
    renamed = {f"upstream.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"epoch": 68, "net_state_dict": renamed}, "068.ckpt")
    torch.save({"model": perceptual.state_dict()}, "20191109-211322_E20.pth")
    for block in blocks("docs/training.md", "python"):
        exec(compile(block, "docs/training.md", "exec"), {})
    photos = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        read = FaceEmbedding.load("mobilefacenet_xiaoccer.safetensors")(photos)
        assert torch.equal(read, face(photos))
        seen = PerceptualNetwork.load("vgg19_cd16x_5SE.safetensors")(photos, ("relu5_1",))
        assert torch.equal(seen["relu5_1"], perceptual(photos, ("relu5_1",))["relu5_1"])


def test_the_workflow_runs_the_oldest_and_the_newest_torch() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    versions = workflow["jobs"]["tests"]["strategy"]["matrix"]["versions"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (allowed,) = (text for text in project["dependencies"] if text.startswith("torch>="))
    (pinned,) = re.findall(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    oldest = allowed.removeprefix("torch>=")
    assert [row["torch"] for row in versions] == [f"=={oldest}.0", f"=={pinned}", f">{pinned}"]


def test_the_accelerate_config_is_one(tmp_path: Path) -> None:
    (text,) = blocks("docs/training.md", "yaml")
    config = yaml.safe_load(text)
    from accelerate.commands.config.config_args import ClusterConfig

    (tmp_path / "accelerate.yaml").write_text(text)
    read = ClusterConfig.from_yaml_file(str(tmp_path / "accelerate.yaml"))
    assert read.num_machines == config["num_machines"] == 2
