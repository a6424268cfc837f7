"""The training loop with attributes: asked for, judged, obeyed; and still exactly resumed."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator

from face_destyle import (
    AFRP,
    IFRP,
    AFRPConfig,
    AFRPDiscriminator,
    AttributeClassifier,
    AttributeClassifierConfig,
    HubModel,
    IFRPConfig,
)
from face_destyle.attributes import COUNT, NAMES, to_vector
from face_destyle.errors import UserError
from tests.train import made
from tests.train.runs import assert_equal
from train.data import ALIGNED, Batch, Pairs
from train.editing import Edited, EditedLoss, ReadingLoss, changed_attribute
from train.fit import Trainer, fit
from train.frozen import sha256
from train.optimizers import build_optimizer, set_rate
from train.recipe import OptimizerConfig, Recipe, load_recipe
from train.start import build, pin_networks

UNALIGNED = made.GENERATOR | {"transformers": []}
ASKING = {
    "model": {"type": "afrp", "config": UNALIGNED | {"modulation_side": 4}},
    "discriminator": {
        "type": "afrp-discriminator",
        "config": made.DISCRIMINATOR | {"join_size": 16},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of which two in three faces are known."""
    folder = made.pairs(tmp_path_factory.mktemp("labelled"))
    path = folder / "train" / "metadata.jsonl"
    lines = []
    for number, line in enumerate(path.read_text().splitlines()):
        known = {"Smiling": number % 4 < 2, "Male": number % 8 < 4, "Black_Hair": number < 6}
        found = known if number % 6 < 4 else dict.fromkeys(known)
        lines.append(json.dumps(json.loads(line) | {"attributes": found}))
    path.write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    config = AttributeClassifierConfig(image_size=32, widths=(4, 4), blocks=(0, 0))
    AttributeClassifier(config).save_pretrained(folder)
    return folder


def asking(folder: Path, data: Path, judge: Path | None = None) -> Path:
    """A recipe of networks that take attributes, obedience among its losses where one judges."""
    path = made.recipe(folder, data, **ASKING)
    fields = yaml.safe_load(path.read_text())
    fields["data"]["attributes"] = {"drop_all": 0.2, "drop_each": 0.5, "flip": 0.7}
    if judge:
        fields["loss"] = {"obedience": 0.1, "obedience_network": str(judge)}
    path.write_text(yaml.safe_dump(fields))
    return path


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_with_attributes_ten_steps_equal_five_and_five(
    tmp_path: Path, labelled: Path, judge: Path
) -> None:
    recipe = load_recipe(asking(tmp_path, labelled, judge))
    whole = fit(recipe, tmp_path / "whole")
    fit(recipe, tmp_path / "parts", stop_at=40)
    assert_equal(whole, fit(recipe, tmp_path / "parts"))
    assert isinstance(HubModel.from_pretrained(whole), AFRP)
    expected = {"d_real", "d_fake", "d_wrong", "d_edited"}
    expected |= {"obedience", "obedience_kept", "adversarial_edited"}
    assert all(line.keys() >= expected for line in lines_of(tmp_path / "whole"))
    before = build(recipe.model).state_dict()
    after = HubModel.from_pretrained(whole).state_dict()
    # Zero at the start: only what attributes teach moves it.
    assert before["code.joined.weight"].abs().max() == 0
    assert after["code.joined.weight"].abs().max() > 0


def by_neighbours(folder: Path, labelled: Path, *more: str) -> Recipe:
    overrides = ["data.attributes.neighbours=2", "data.attributes.flip=1", "loss.edited=4"]
    return load_recipe(asking(folder, labelled), [*overrides, "loss.reading=0.1", *more])


def test_a_change_is_learnt_from_neighbours(tmp_path: Path, labelled: Path) -> None:
    recipe = by_neighbours(tmp_path, labelled)
    whole = fit(recipe, tmp_path / "whole")
    fit(recipe, tmp_path / "parts", stop_at=40)
    assert_equal(whole, fit(recipe, tmp_path / "parts"))
    edits = [line["edited"] for line in lines_of(tmp_path / "whole") if "edited" in line]
    assert len(edits) >= 3 and min(edits) > 0
    assert all(line["reading"] > 0 for line in lines_of(tmp_path / "whole"))
    assert all("obedience" not in line for line in lines_of(tmp_path / "whole"))
    with pytest.raises(UserError, match=r"loss\.edited learns from data\.attributes\.neighbours"):
        by_neighbours(tmp_path, labelled, "data.attributes.neighbours=0")


def test_an_edited_photo_differs_in_what_was_flipped(tmp_path: Path, labelled: Path) -> None:
    recipe = by_neighbours(tmp_path, labelled, "data.attributes.strength=1")
    pairs = Pairs(str(labelled), recipe.data, recipe.augment, seed=0, side=32)
    assert pairs.neighbours is not None
    found = 0
    for place, row in enumerate(pairs.rows):
        for epoch in range(8):
            item = pairs[epoch, place]
            if item["flipped"].isnan().all():
                assert torch.equal(item["edited"], item["photo"])
                continue
            attribute, present = changed_attribute(item["attributes"], item["flipped"])
            assert pairs.labels[row, attribute] != float(present)
            again = pairs.neighbours.changed(item["photo"], attribute, present, 1.0)
            assert again is not None and torch.equal(item["edited"], again)
            found += 1
    assert found
    # Of the 18, three are known of some faces: nothing shows what the others look like.
    assert not pairs.labels[:, 0].eq(1).any()


def test_what_is_known_is_what_is_read() -> None:
    read, true = torch.zeros(2, COUNT), torch.full((2, COUNT), torch.nan)
    true[0, 3], true[1, 5] = 1, 0
    read[0, 3], read[1, 5], read[1, 6] = 2.0, 1.0, 99.0
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert ReadingLoss(3.0)(read, true)["reading"].item() == pytest.approx(3 * expected)
    assert ReadingLoss(3.0)(read, true * torch.nan)["reading"] == 0
    with pytest.raises(UserError, match=r"reads no attributes: set loss\.reading to 0"):
        ReadingLoss()(None, true)


def test_the_loss_of_a_change_leaves_the_unedited_photo_alone() -> None:
    fake = torch.rand(3, 3, 4, 4, requires_grad=True)
    photos = torch.rand(2, 3, 4, 4, requires_grad=True)
    rows = torch.tensor([0, 2])
    asked = torch.zeros(2, COUNT)
    change = (photos - fake[rows]).detach() + 0.5
    loss = EditedLoss(8.0)(Edited(rows, asked, asked, photos), fake, change)["edited"]
    sizes = change.square().mean((1, 2, 3)) + 0.01
    assert loss.item() == pytest.approx(8 * (0.25 / sizes).sum().item() / 3)
    loss.backward()
    assert fake.grad is None and photos.grad is not None


def test_a_small_change_is_learnt_as_soon_as_a_large_one() -> None:
    fake, rows, asked = torch.zeros(1, 3, 4, 4), torch.tensor([0]), torch.zeros(1, COUNT)
    parts = []
    for size in (0.3, 3.0):
        change = torch.full((1, 3, 4, 4), size)
        parts.append(EditedLoss()(Edited(rows, asked, asked, change / 2), fake, change)["edited"])
    assert parts[0].item() == pytest.approx(0.25 * 0.09 / 0.10)
    assert parts[1].item() == pytest.approx(0.25 * 9 / 9.01)


@pytest.mark.parametrize(
    ("asked", "wished", "expected"),
    [
        ("Smiling", "-Smiling", ("Smiling", False)),
        ("", "-Young", ("Young", False)),
        ("Black_Hair,Male", "Blond_Hair,Male", ("Blond_Hair", True)),
        ("Bangs,Gray_Hair", "Bald", ("Bald", True)),
    ],
)
def test_which_attribute_was_changed(asked: str, wished: str, expected: tuple[str, bool]) -> None:
    vectors = [torch.tensor(to_vector(text)) for text in (asked, wished)]
    attribute, present = changed_attribute(vectors[0], vectors[1])
    assert (NAMES[attribute], present) == expected


def test_the_classifier_of_the_loss_is_known_again(
    tmp_path: Path, labelled: Path, judge: Path
) -> None:
    recipe = pin_networks(load_recipe(asking(tmp_path, labelled, judge)))
    assert recipe.loss.obedience_sha256 == sha256(judge / "model.safetensors")
    other = load_recipe(asking(tmp_path, labelled, judge), ["loss.obedience_sha256=abc"])
    with pytest.raises(UserError, match=r"not the attribute classifier.*sha256 abc.*obedience_sha"):
        pin_networks(other)


def test_an_identity_of_both_faces_needs_a_network(
    tmp_path: Path, labelled: Path, judge: Path
) -> None:
    path = asking(tmp_path, labelled, judge)
    recipe = load_recipe(path, ["loss.obedience_identity=0.1"])
    with pytest.raises(UserError, match=r"loss\.obedience_identity needs a network"):
        Trainer(recipe, Accelerator(cpu=True))


def test_each_loss_sees_its_own_attributes(tmp_path: Path, labelled: Path, judge: Path) -> None:
    trainer = Trainer(load_recipe(asking(tmp_path, labelled, judge)), Accelerator(cpu=True))
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    asked, wrong, flipped = (torch.full((4, COUNT), value) for value in (1.0, 0.25, 0.5))
    wrong[0], flipped[1:] = torch.nan, torch.nan
    batch = Batch(pictures, pictures * 0.5, ALIGNED.expand(4, 2, 3), asked, wrong, flipped)
    seen: dict[str, list[tuple[int, float]]] = {"generator": [], "discriminator": []}
    for name, calls in seen.items():
        getattr(trainer, name).register_forward_hook(
            lambda layer, given, out, calls=calls: calls.append(
                (len(given[0]), given[1].unique().item())
            )
        )
    trainer.step(batch, 0)
    assert seen["generator"] == [(4, 1.0), (1, 0.5)]
    refused = [(4, 1.0), (4, 1.0), (3, 0.25), (1, 0.5)]  # real, generated, wrong, edited
    assert seen["discriminator"] == [*refused, (4, 1.0), (1, 0.5)]


def test_a_network_without_attributes_is_not_given_any(tmp_path: Path, labelled: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, labelled))
    fit(recipe, tmp_path / "run")
    assert "d_wrong" not in lines_of(tmp_path / "run")[0]


def test_an_afrp_starts_from_an_ifrp(tmp_path: Path, labelled: Path) -> None:
    source = build(
        load_recipe(
            made.recipe(tmp_path, labelled, model={"type": "ifrp", "config": UNALIGNED})
        ).model
    )
    assert isinstance(source, IFRP)
    source.save_pretrained(tmp_path / "ifrp")
    path = asking(tmp_path, labelled)
    # What IFRP has too may be left out of the recipe.
    only = ["model.config={modulation_side: 4}"]
    for overrides in ([], only):
        recipe = load_recipe(path, overrides)
        trainer = Trainer(recipe, Accelerator(cpu=True), init=str(tmp_path / "ifrp"))
        assert isinstance(trainer.generator, AFRP) and trainer.generator.training
        assert isinstance(trainer.discriminator, AFRPDiscriminator)
        assert trainer.generator.config.modulation_side == 4
        state = trainer.generator.state_dict()
        assert all(torch.equal(state[k], v) for k, v in source.state_dict().items())
    other = load_recipe(path, ["model.config.tail_width=4"])
    with pytest.raises(UserError, match=r"tail_width 8: leave tail_width out of model\.config"):
        Trainer(other, Accelerator(cpu=True), init=str(tmp_path / "ifrp"))


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_what_attributes_enter_by_learns_faster(name: str) -> None:
    model = AFRP.from_ifrp(IFRP(IFRPConfig(code_rank=4)), modulation_side=4)
    config = OptimizerConfig(name=name, attribute_gain=10)  # type: ignore[arg-type]
    optimizer = build_optimizer(config, model, 0.1)
    set_rate(optimizer, 0.002)
    rest, entrance = optimizer.param_groups
    assert (rest["lr"], entrance["lr"]) == (0.002, pytest.approx(0.02))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)] for parameter in entrance["params"]}
    mixing = {f"modulation.mixing.{level}.weight" for level in range(3)}
    reading = {"reader.weight", "reader.bias"}
    assert found == {"code.joined.weight", "modulation.places"} | mixing | reading
    assert len(found) + len(rest["params"]) == len(names)
    bare = AFRP(AFRPConfig(bottleneck=False, modulation=False))
    assert [len(g["params"]) for g in build_optimizer(config, bare, 0.1).param_groups] == [
        len(list(bare.parameters()))
    ]
