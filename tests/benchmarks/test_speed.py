"""The benchmarks run and count right; how fast this machine is, is not tested."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.pix2pix import UNet128, UNet128Config
from face_destyle import FDNN, IFRP, FDNNConfig, Stylizer, StylizerConfig
from face_destyle.published import WEIGHTS
from tests.train import made
from train.recipe import NetworkConfig, load_recipe
from train.start import build_networks

SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)


def test_tasks_take_turns_after_one_unmeasured_turn() -> None:
    calls: list[str] = []

    def slow_at_first() -> None:
        time.sleep(0.2 if "slow" not in calls else 0)
        calls.append("slow")

    found = speed.medians({"slow": slow_at_first, "other": lambda: calls.append("other")}, 3)
    assert calls == ["slow", "other"] * 4
    assert found["slow"] < 0.2


def test_one_face_in_both_runtimes() -> None:
    rival = UNet128(UNet128Config(width=2)).eval()
    figure = speed.recover_one(2, 1, {"fdnn": FDNN(SMALL).eval(), "unet_128": rival}, 0.5)
    ours = min(value for name, value in figure.parts.items() if name.startswith("fdnn "))
    theirs = min(value for name, value in figure.parts.items() if name.startswith("unet_128 "))
    assert len(figure.parts) == 4
    assert figure.value == pytest.approx(ours / theirs)
    assert (figure.limit, figure.at_most) == (0.5, True)
    assert figure.name == "recover one face by fdnn, share of unet_128's time"


def test_every_published_recovery_network_has_a_limit() -> None:
    ours = {pair[0] for pair in speed.LIMITS}
    assert ours == {n for n in WEIGHTS if n.startswith("fdnn") and not n.endswith("-protocol")}


def test_a_step_of_both_recipes(tmp_path: Path) -> None:
    ours = load_recipe(made.recipe(tmp_path, tmp_path))
    rival = load_recipe(
        speed.RECIPES["pix2pix"], ["train.precision=fp32", "discriminator.config={width: 2}"]
    )
    small = NetworkConfig("pix2pix-unet128", {"width": 2})
    recipes = {"fdnn": ours, "pix2pix": speed.replace(rival, model=small)}
    figure = speed.train_step(1, 2, recipes)
    ours_rate, rival_rate = figure.parts.values()
    assert figure.value == pytest.approx(ours_rate / rival_rate)
    assert (figure.limit, figure.at_most) == (3, False)


def test_what_transformers_cost() -> None:
    small = ("model.config.encoder_widths=[8, 8, 8, 8]", "model.config.decoder_widths=[8, 8, 8]")
    figure = speed.transformers_step(1, 2, None, (*small, "train.precision=fp32"))
    whole, without = figure.parts.values()
    assert figure.value == pytest.approx(100 * (whole - without) / whole)
    assert (figure.limit, figure.at_most) == (15, True)


def test_transformers_are_all_that_differs() -> None:
    recipe = load_recipe(speed.IFRP_RECIPE, speed.WITHOUT_TRANSFORMERS)
    network, _ = build_networks(recipe, None)
    left = [name for name, _ in IFRP().named_parameters() if not name.startswith("transformers.")]
    assert [name for name, _ in network.named_parameters()] == left


def test_the_recipes_are_the_real_ones() -> None:
    recipes = {name: load_recipe(path) for name, path in speed.RECIPES.items()}
    assert recipes["fdnn"].model == NetworkConfig("fdnn")
    assert recipes["pix2pix"].model == NetworkConfig("pix2pix-unet128")
    assert recipes["fdnn"].loss.adversarial > 0
    assert recipes["fdnn"].train.precision == recipes["pix2pix"].train.precision


def test_the_steps_are_those_with_a_discriminator() -> None:
    for path in speed.RECIPES.values():
        recipe = load_recipe(path, ["train.precision=fp32"])
        losses = speed._step_task(recipe, 2)()
        assert {"d_real", "d_fake", "adversarial"} <= set(losses)


def test_both_networks_learn_from_the_same_augmentation() -> None:
    ours = load_recipe(speed.RECIPES["fdnn"])
    rival = load_recipe("benchmarks/pix2pix-augmented.yaml")
    assert rival.augment == ours.augment
    assert rival.data == ours.data


def test_stylizing_beside_the_bare_network(tmp_path: Path) -> None:
    Stylizer(StylizerConfig(width=2, blocks=1)).save_pretrained(tmp_path / "style")
    figure = speed.stylize_all(1, 3, 2, (str(tmp_path / "style"),))
    whole, bare = figure.parts.values()
    assert figure.value == pytest.approx(100 * whole / bare)
    assert figure.value > 0


def test_the_memory_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    code = speed.main(["--part", "memory", "--out", str(out), "--threads", "1"])
    (figure,) = json.loads(out.read_text())["figures"]
    assert figure["holds"] is (figure["value"] <= 500)
    assert code == (0 if figure["holds"] else 1)
    assert 100 < figure["value"] < 2000  # torch alone is above 100 MB
    assert "at most 500 MB" in capsys.readouterr().out


def test_a_figure_says_whether_it_holds() -> None:
    figure = speed.Figure("share", 89.9, 90, False, " %", {"rate": 12.0})
    assert not figure.holds
    assert figure.sentence() == "share: 89.9 % (at least 90 %: MISSED); rate 12"
    assert speed.Figure("ratio", 0.5, 0.5, True, "", {}).holds


def test_a_result_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed.main(["--part", "memory", "--out", str(tmp_path / "none" / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
