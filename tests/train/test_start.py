"""What weights were trained with is known in all that starts from them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator

from face_destyle.errors import UserError
from tests.train import made
from train.figures import judge_sha256
from train.fit import Trainer, fit
from train.frozen import sha256
from train.recipe import Recipe, dump_recipe, load_recipe
from train.start import pin_networks


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """One step, on the CPU, without any judge."""
    data = made.pairs(tmp_path / "pairs", count=2)
    return load_recipe(made.recipe(tmp_path, data, train={"images": 8, "batch_size": 4}))


def weights_of(recipe: Recipe, folder: Path, **loss: object) -> Path:
    """Weights that were trained with the judges of `loss`, as their recipe says."""
    Trainer(recipe, Accelerator(cpu=True)).export(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "first", "loss": loss}))
    return folder


def test_the_judges_of_all_earlier_weights_are_written_down(tmp_path: Path, recipe: Recipe) -> None:
    first = weights_of(
        recipe, tmp_path / "first", identity_sha256="b", obedience_sha256="a", earlier_sha256=["c"]
    )
    assert pin_networks(recipe).loss.earlier_sha256 == ()
    pinned = pin_networks(recipe, str(first))
    assert pinned.loss.earlier_sha256 == ("a", "b", "c")
    # They are not refused as the networks of this recipe: it has its own.
    assert pinned.loss.identity_sha256 == pinned.loss.obedience_sha256 == ""
    network = made.face_embedding(tmp_path / "face.safetensors")
    loss = replace(recipe.loss, identity=0.1, identity_network=str(network))
    pinned = pin_networks(replace(recipe, loss=loss), str(first))
    assert pinned.loss.identity_sha256 == sha256(network)
    assert pinned.loss.earlier_sha256 == ("a", "b", "c")
    (tmp_path / "again.yaml").write_text(dump_recipe(pinned))
    assert load_recipe(tmp_path / "again.yaml").loss.earlier_sha256 == ("a", "b", "c")


def test_a_judge_is_refused_after_two_fine_tunings(tmp_path: Path, recipe: Recipe) -> None:
    network = made.face_embedding(tmp_path / "face.safetensors")
    weights = weights_of(recipe, tmp_path / "first", identity_sha256=sha256(network))
    for name in ("second", "third"):
        weights = fit(recipe, tmp_path / name, str(weights), cpu=True)
        with pytest.raises(UserError, match="judge by another face embedding"):
            judge_sha256(str(weights), str(network))
    fresh = fit(recipe, tmp_path / "fresh", cpu=True)
    assert judge_sha256(str(fresh), str(network)) == sha256(network)


def test_a_run_that_did_not_write_them_down_goes_on(tmp_path: Path, recipe: Recipe) -> None:
    first = str(weights_of(recipe, tmp_path / "first", identity_sha256="a"))
    run = tmp_path / "run"
    fit(recipe, run, first, stop_at=4, cpu=True)
    path = run / "recipe.json"
    fields = json.loads(path.read_text())
    assert fields["loss"].pop("earlier_sha256") == ["a"]
    path.write_text(json.dumps(fields))
    weights = fit(recipe, run, first, cpu=True)
    assert load_recipe(weights / "recipe.yaml").loss.earlier_sha256 == ("a",)
    # One that did is not continued from weights of other judges.
    path.write_text(json.dumps(fields | {"loss": fields["loss"] | {"earlier_sha256": ["b"]}}))
    with pytest.raises(UserError, match="a run of another recipe"):
        fit(recipe, run, first, cpu=True)
