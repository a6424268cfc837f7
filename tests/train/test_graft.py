"""What fits of trained weights is taken over into a network that is another one."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from face_destyle import HubModel
from face_destyle.errors import UserError
from tests.train import made
from train.fit import main as fit
from train.graft import graft, main
from train.recipe import Recipe, load_recipe
from train.start import build, build_networks, numbers

DEEPER = {"decoder_blocks": [2]}


def coarse(folder: Path) -> Recipe:
    """A network for photos of 32 x 32."""
    folder.mkdir()
    return load_recipe(made.recipe(folder, Path("pairs")))


def finer(folder: Path) -> Recipe:
    """The same with one more block, and another discriminator."""
    folder.mkdir()
    sections = {
        "model": {"config": made.GENERATOR | DEEPER},
        "discriminator": {"config": made.DISCRIMINATOR | {"full_width": 4}},
    }
    return load_recipe(made.recipe(folder, Path("pairs"), **sections))


def trained(recipe: Recipe, folder: Path, seed: int, **loss: object) -> Path:
    """A folder of weights as a run leaves it."""
    torch.manual_seed(seed)
    build(recipe.model).save_pretrained(folder)
    build(recipe.discriminator).save_pretrained(folder / "discriminator")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "first", "loss": loss}))
    return folder


def same(one: HubModel, two: HubModel) -> set[str]:
    """Names of the tensors that both have, equal."""
    other = two.state_dict()
    return {
        name
        for name, value in one.state_dict().items()
        if name in other and value.shape == other[name].shape and value.equal(other[name])
    }


def test_what_fits_is_taken_and_the_rest_is_fresh(tmp_path: Path) -> None:
    source = trained(coarse(tmp_path / "coarse"), tmp_path / "weights", seed=5)
    recipe = finer(tmp_path / "finer")
    network, _, given = graft(recipe, [str(source)])
    old = HubModel.from_pretrained(source)
    taken = same(network, old)
    assert given == {str(source): len(taken)}
    assert {"encoder.0.0.conv.weight", "decoder.0.0.conv.weight", "head.weight"} <= taken
    again = graft(recipe, [str(source)])[0]
    assert same(network, again) == set(network.state_dict())
    fresh = {name for name in network.state_dict() if name.startswith("decoder.0.2")}
    assert fresh
    assert not fresh & set(old.state_dict())


def test_of_two_the_later_is_taken(tmp_path: Path) -> None:
    small, large = coarse(tmp_path / "coarse"), finer(tmp_path / "finer")
    first = trained(large, tmp_path / "first", seed=1)
    second = trained(small, tmp_path / "second", seed=2)
    network, _, given = graft(large, [str(first), str(second)])
    assert given[str(first)] == len(network.state_dict())
    assert "encoder.0.0.conv.weight" in same(network, HubModel.from_pretrained(second))
    assert "decoder.0.2.first.conv.weight" in same(network, HubModel.from_pretrained(first))


def test_a_discriminator_of_the_same_config_comes_along(tmp_path: Path) -> None:
    small, large = coarse(tmp_path / "coarse"), finer(tmp_path / "finer")
    source = trained(small, tmp_path / "weights", seed=5)
    judge = HubModel.from_pretrained(source, subfolder="discriminator")
    assert same(graft(small, [str(source)])[1], judge) == set(judge.state_dict())
    other = graft(large, [str(source)])[1]
    assert other.config.full_width == 4
    assert "features.1.conv.weight" not in same(other, judge)


def test_weights_without_a_discriminator(tmp_path: Path) -> None:
    recipe = coarse(tmp_path / "coarse")
    source = trained(recipe, tmp_path / "weights", seed=5)
    shutil.rmtree(source / "discriminator")
    judge = graft(recipe, [str(source)])[1]
    assert judge.config == numbers(recipe.discriminator)
    network, judge = build_networks(recipe, str(source))
    assert same(network, HubModel.from_pretrained(source)) == set(network.state_dict())
    assert judge.config == numbers(recipe.discriminator) and judge.training
    # One that is there and broken is no missing one.
    build(recipe.discriminator).save_pretrained(source / "discriminator")
    (source / "discriminator" / "model.safetensors").write_bytes(b"nothing")
    for start in (graft, build_networks):
        with pytest.raises(UserError, match="discriminator"):
            start(recipe, [str(source)] if start is graft else str(source))


def test_a_training_starts_from_it(tmp_path: Path) -> None:
    source = trained(coarse(tmp_path / "coarse"), tmp_path / "weights", 5, identity_sha256="b")
    made.pairs(tmp_path / "pairs", count=2)
    finer(tmp_path / "finer")
    recipe = str(tmp_path / "finer" / "recipe.yaml")
    settings = ["--set", "train.images=4", "--set", "train.batch_size=4"]
    start, run = tmp_path / "start", tmp_path / "run"
    command = ["--recipe", recipe, "--weights", str(source), "--out", str(start)]
    assert main(command) == 0
    given = ["--recipe", recipe, "--init", str(start), "--data", str(tmp_path / "pairs")]
    assert fit([*given, "--out", str(run), *settings, "--cpu"]) == 0
    moved = load_file(run / "weights" / "model.safetensors")["encoder.0.0.conv.weight"]
    distance = (moved - load_file(source / "model.safetensors")["encoder.0.0.conv.weight"]).abs()
    assert 0 < distance.max() < 0.1
    assert load_recipe(run / "weights" / "recipe.yaml").loss.earlier_sha256 == ("b",)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse(tmp_path / "coarse")
    command = ["--recipe", str(tmp_path / "coarse" / "recipe.yaml"), "--out", str(tmp_path / "o")]
    for weights, said in (
        (str(tmp_path / "nowhere"), "no weights named"),
        ("style-udnie", "nothing of style-udnie fits the fdnn of the recipe"),
    ):
        assert main([*command, "--weights", weights]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert said in error
    assert not (tmp_path / "o").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    recipe = coarse(tmp_path / "coarse")
    source = trained(recipe, tmp_path / "weights", seed=5)
    before = (source / "model.safetensors").read_bytes()
    path = str(tmp_path / "coarse" / "recipe.yaml")
    assert main(["--recipe", path, "--weights", str(source), "--out", str(source)]) == 2
    assert (source / "model.safetensors").read_bytes() == before
