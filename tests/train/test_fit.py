"""The training loop: exact resume, honest failures, the schedules of the thesis."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from face_destyle import (
    FDNN,
    FDNNDiscriminator,
    HubModel,
)
from face_destyle.errors import UserError
from face_destyle.models.base import Recovered
from tests.train import made
from tests.train.runs import assert_equal
from train.checkpoints import checkpoints
from train.data import ALIGNED, Batch
from train.ema import EMA
from train.fit import Trainer, TrainingError, fit, main
from train.frozen import sha256
from train.losses import DiscriminatorLoss, GeneratorLoss, moved, softened
from train.optimizers import build_optimizer, learning_rate_factor
from train.recipe import LossConfig, OptimizerConfig, load_recipe
from train.start import pin_networks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.pairs(tmp_path_factory.mktemp("pairs"))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_ten_steps_equal_five_and_five(tmp_path: Path, data: Path, optimizer: str) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data, optimizer={"name": optimizer}))
    whole = fit(recipe, tmp_path / "whole")
    fit(recipe, tmp_path / "parts", stop_at=40)
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["images-0000000040"]
    parts = fit(recipe, tmp_path / "parts")
    assert_equal(whole, parts)


def test_what_a_run_leaves(tmp_path: Path, data: Path) -> None:
    path = made.recipe(tmp_path, data)
    assert main(["--recipe", str(path), "--out", str(tmp_path / "run")]) == 0
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [16, 32, 48, 64, 80]
    assert lines[0].keys() >= {
        "pixel",
        "adversarial",
        "d_real",
        "d_fake",
        "psnr",
        "images_per_second",
    }
    assert (run / "samples" / "0000000040.png").is_file()
    assert list((run / "tensorboard").rglob("events*"))
    assert len(checkpoints(run)) == 2
    assert isinstance(HubModel.from_pretrained(run / "weights"), FDNN)
    judge = HubModel.from_pretrained(run / "weights", subfolder="discriminator")
    assert isinstance(judge, FDNNDiscriminator)


def test_the_pixel_loss_falls_on_a_few_pairs(tmp_path: Path, data: Path) -> None:
    train = {"images": 1200, "log_every": 120}
    path = made.recipe(tmp_path, data, train=train, augment={"plain": 1.0, "mirror": False})
    fit(load_recipe(path), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["pixel"] < lines[0]["pixel"] / 2


def test_the_exported_recipe_is_the_one_trained_by(tmp_path: Path, data: Path) -> None:
    path = made.recipe(tmp_path, data)
    options = ["--set", "loss.adversarial=0.5", "--set", "train.images=16"]
    assert main(["--recipe", str(path), "--out", str(tmp_path / "run"), *options]) == 0
    exported = tmp_path / "run" / "weights" / "recipe.yaml"
    assert str(data) not in exported.read_text()
    again = load_recipe(exported, [f"data.pairs={data}"])
    assert again == load_recipe(path, ["loss.adversarial=0.5", "train.images=16"])


def test_the_embedding_of_the_loss_is_known_again(tmp_path: Path, data: Path) -> None:
    network = made.face_embedding(tmp_path / "embedding.safetensors")
    loss = {"identity": 0.1, "identity_network": str(network)}
    recipe = pin_networks(load_recipe(made.recipe(tmp_path, data, loss=loss)))
    assert recipe.loss.identity_sha256 == sha256(network)
    loss["identity_sha256"] = "0" * 64
    with pytest.raises(UserError, match="not the face embedding of the recipe"):
        pin_networks(load_recipe(made.recipe(tmp_path, data, loss=loss)))


def test_the_discriminator_joins_later(tmp_path: Path, data: Path) -> None:
    path = made.recipe(tmp_path, data, loss={"adversarial_after": 48})
    fit(load_recipe(path), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert ["d_real" in line for line in lines] == [False] * 3 + [True] * 2
    assert ["adversarial" in line for line in lines] == [False] * 3 + [True] * 2


def test_a_run_starts_from_given_weights(tmp_path: Path, data: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data))
    weights = fit(recipe, tmp_path / "first")
    continued = Trainer(recipe, Accelerator(cpu=True), init=str(weights))
    state = HubModel.from_pretrained(weights).state_dict()
    assert all(torch.equal(v, state[k]) for k, v in continued.generator.state_dict().items())


def test_another_discriminator_than_that_of_the_weights_is_fresh(
    tmp_path: Path, data: Path
) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data))
    trainer = Trainer(recipe, Accelerator(cpu=True))
    trainer.export(tmp_path / "weights")
    init = str(tmp_path / "weights")
    wanted = replace(recipe.discriminator, config=recipe.discriminator.config | {"full_width": 0})
    other = Trainer(replace(recipe, discriminator=wanted), Accelerator(cpu=True), init)
    assert other.discriminator.config.full_width == 0
    same = Trainer(recipe, Accelerator(cpu=True), init).discriminator.state_dict()
    state = trainer.discriminator.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in same.items())
    wider = replace(recipe.model, config=recipe.model.config | {"tail_width": 24})
    with pytest.raises(UserError, match=r"another config: leave out model\.config"):
        Trainer(replace(recipe, model=wider), Accelerator(cpu=True), init)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, data: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data))
    fit(recipe, tmp_path / "run", stop_at=40)
    saved = checkpoints(tmp_path / "run")[-1]
    state = torch.load(saved / "optimizer.bin", weights_only=False)
    for moments in state["state"].values():
        moments["exp_avg"].fill_(float("inf"))
    torch.save(state, saved / "optimizer.bin")
    with pytest.raises(
        TrainingError, match=r"at image \d+ .*last good checkpoint: .*images-0000000040"
    ):
        fit(recipe, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [saved]


def test_the_generator_step_leaves_the_discriminator_alone(tmp_path: Path, data: Path) -> None:
    trainer = Trainer(load_recipe(made.recipe(tmp_path, data)), Accelerator(cpu=True))
    before = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    portraits = torch.rand(4, 3, 32, 32) * 2 - 1
    batch = Batch(portraits, portraits, ALIGNED.expand(4, 2, 3))
    trainer.generator_step(trainer.generator(portraits), batch, 0)
    assert all(p.grad is None for p in trainer.discriminator.parameters())
    assert all(p.requires_grad for p in trainer.discriminator.parameters())
    after = trainer.discriminator.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_the_view_of_the_discriminator_moves_between_steps(tmp_path: Path, data: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data, loss={"jitter": 3}))
    trainer = Trainer(recipe, Accelerator(cpu=True))
    photos = torch.rand(2, 3, 32, 32) * 2 - 1
    logits = []
    for images_seen in (16, 16, 32):
        trainer.counter.images = images_seen
        logits.append(trainer.judge(photos, photos, None))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_the_networks_of_the_losses_see_the_moved_and_softened_view(
    tmp_path: Path, data: Path
) -> None:
    trainer = Trainer(
        load_recipe(made.recipe(tmp_path, data, loss={"jitter": 3, "soften": 0.7})),
        Accelerator(cpu=True),
    )
    seen: list[torch.Tensor] = []

    def loss(fake: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.extend((fake, real))
        return {"spy": (fake - real).square().mean()}

    trainer.photo_losses = [loss]
    trainer.counter.images = 32
    photos = torch.rand(2, 3, 32, 32) * 2 - 1
    fake = torch.rand(2, 3, 32, 32).requires_grad_()
    trainer.generator_step(Recovered(fake), Batch(photos, photos, ALIGNED.expand(2, 2, 3)), 0)
    expected = softened(moved(torch.cat([fake, photos]), 3, 32), 0.7)
    assert torch.equal(torch.cat(seen), expected)
    assert not torch.equal(expected[2:], photos)


@pytest.mark.parametrize("name", ["identity", "perceptual", "obedience"])
def test_a_loss_without_its_network_is_named(tmp_path: Path, data: Path, name: str) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data, loss={name: 0.1}))
    with pytest.raises(UserError, match=rf"loss\.{name} needs a network.*{name}_network"):
        Trainer(recipe, Accelerator(cpu=True))


def test_an_alignment_loss_needs_a_network_that_aligns(tmp_path: Path, data: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data, loss={"alignment": 1.0}))
    with pytest.raises(UserError, match=r"loss\.alignment to 0"):
        fit(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "values", "named"),
    [
        ("train", {"imagse": 3}, "imagse"),
        ("loss", {"pixel": "much"}, "pixel"),
        ("surprise", {"a": 1}, "surprise"),
        ("optimizer", {"name": "sgd"}, "sgd"),
    ],
)
def test_mistakes_in_a_recipe_are_named(
    tmp_path: Path, data: Path, section: str, values: dict[str, object], named: str
) -> None:
    path = made.recipe(tmp_path, data, **{section: values})
    with pytest.raises(UserError, match=named):
        load_recipe(path)


def test_mistakes_end_in_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.recipe(tmp_path, data)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("not a run")
    cases = [
        (["--recipe", str(tmp_path / "none.yaml"), "--out", "x"], "none.yaml"),
        (["--recipe", str(path), "--out", str(occupied)], "not empty"),
        (["--recipe", str(path), "--out", str(path)], "is a file"),
        (["--recipe", str(path), "--out", str(tmp_path / "a"), "--data", "/nowhere"], "/nowhere"),
        (
            ["--recipe", str(path), "--out", str(tmp_path / "b"), "--set", "data.styles=[cubist]"],
            "cubist",
        ),
        (["--recipe", str(path), "--out", str(tmp_path / "c"), "--init", "nobody"], "nobody"),
    ]
    for arguments, named in cases:
        assert main(arguments) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "split" not in line]
        assert len(lines) == 1 and named in lines[0]
    assert (occupied / "thesis.txt").read_text() == "not a run"


def test_a_run_of_a_recipe_with_fewer_keys_goes_on(tmp_path: Path, data: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data))
    fit(recipe, tmp_path / "run", stop_at=40)
    path = tmp_path / "run" / "recipe.json"
    fields = json.loads(path.read_text())
    del fields["data"]["attributes"], fields["loss"]["obedience"]
    path.write_text(json.dumps(fields))
    fit(recipe, tmp_path / "run", stop_at=48)
    path.write_text("[]")
    with pytest.raises(UserError, match="another recipe"):
        fit(recipe, tmp_path / "run")


def test_what_would_spoil_a_training_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = made.pairs(tmp_path / "pairs", count=2, splits=("train", "test"))
    recipe = made.recipe(tmp_path, leaky, train={"images": 8})
    command = ["--recipe", str(recipe), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "2 photos are on both sides of a split" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--unchecked"]) == 0


def test_another_recipe_does_not_continue_a_run(tmp_path: Path, data: Path) -> None:
    fit(load_recipe(made.recipe(tmp_path, data)), tmp_path / "run", stop_at=16)
    other = load_recipe(made.recipe(tmp_path, data, train={"seed": 1}))
    with pytest.raises(UserError, match="another recipe"):
        fit(other, tmp_path / "run")


def test_all_that_is_refused_weighs_as_much_as_the_photo() -> None:
    logits = {"wrong": (torch.zeros(2), torch.tensor([0, 2]))}
    logits["edited"] = (torch.zeros(1), torch.tensor([2]))
    parts = DiscriminatorLoss(LossConfig())(torch.zeros(4), torch.zeros(4), logits)
    one = torch.tensor(2.0).log().item() / 4
    assert parts["d_real"] == pytest.approx(4 * one)
    assert parts["d_fake"] == pytest.approx((1 / 2 + 1 + 1 / 3 + 1) * one)
    assert parts["d_wrong"] == pytest.approx((1 / 2 + 1 / 3) * one)
    assert parts["d_edited"] == pytest.approx(1 / 3 * one)
    patches = DiscriminatorLoss(LossConfig())(torch.zeros(4, 1, 3, 3), torch.zeros(4, 1, 3, 3))
    assert patches["d_real"] == patches["d_fake"] == pytest.approx(4 * one)


def test_the_adversarial_weight_decays_to_its_half() -> None:
    loss = GeneratorLoss(LossConfig())
    assert loss.adversarial_weight(0) == 0.01
    assert loss.adversarial_weight(100) == pytest.approx(0.01 * 0.995**100)
    assert loss.adversarial_weight(1000) == 0.005


def test_details_are_judged_by_themselves() -> None:
    fake, real = torch.zeros(2, 3, 32, 32), torch.full((2, 3, 32, 32), 0.5)
    loss = GeneratorLoss(LossConfig(detail=8.0))
    assert loss(fake, real, None, 0)["detail"] < 1e-6
    real[..., ::2] = -0.5
    assert loss(fake, real, None, 0)["detail"] == pytest.approx(8 * 0.25, rel=0.1)


def test_the_losses_are_those_of_the_thesis() -> None:
    logits = torch.tensor([0.3, -1.2])
    found = DiscriminatorLoss(LossConfig())(logits, logits)
    assert found["d_real"] == pytest.approx(-torch.sigmoid(logits).log().mean().item())
    assert found["d_fake"] == pytest.approx(-(1 - torch.sigmoid(logits)).log().mean().item())
    fake, real = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    parts = GeneratorLoss(LossConfig())(fake, real, logits, 0)
    assert parts["pixel"] == 0.25 and set(parts) == {"pixel", "adversarial"}
    assert parts["adversarial"] == pytest.approx(-0.01 * torch.sigmoid(logits).log().mean().item())
    extreme = DiscriminatorLoss(LossConfig())(torch.tensor([-200.0]), torch.tensor([200.0]))
    assert extreme["d_real"] == extreme["d_fake"] == 200


def test_rmsprop_is_the_authors() -> None:
    network = torch.nn.Linear(2, 2)
    options = build_optimizer(OptimizerConfig(name="rmsprop"), network, 0.001).param_groups[0]
    assert (options["alpha"], options["eps"], options["lr"]) == (0.9, 1e-8, 0.001)


def test_the_learning_rate_schedules() -> None:
    papers = OptimizerConfig(schedule="papers", warmup=0)
    assert learning_rate_factor(papers, 0, 0, 100) == 1
    assert learning_rate_factor(papers, 50, 10, 100) == pytest.approx(0.99**10)
    assert learning_rate_factor(papers, 50, 10_000, 100) == pytest.approx(1e-3)
    cosine = OptimizerConfig(schedule="cosine", warmup=0)
    assert learning_rate_factor(cosine, 50, 0, 100) == pytest.approx(0.5)
    linear = OptimizerConfig(schedule="linear", warmup=0)
    assert [learning_rate_factor(linear, n, 0, 100) for n in (0, 50, 75, 100)] == [1, 1, 0.5, 0]
    assert learning_rate_factor(OptimizerConfig(warmup=10), 4, 0, 10**9) == pytest.approx(0.5)


def test_the_average_halves_the_distance_in_a_half_life() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = EMA(network, half_life=100)
    torch.nn.init.constant_(network.weight, 1.0)
    for _ in range(10):
        average.update(network, batch_size=10, images_seen=10_000)
    assert average.network.weight.item() == pytest.approx(0.5)
