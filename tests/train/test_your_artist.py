"""From an artwork to a model that can be published."""

import shutil
import time
from pathlib import Path

import pytest
import torch

from face_destyle import (
    FDNN,
    FaceModel,
    HubModel,
    published,
)
from face_destyle.errors import UserError
from tests.train import artist, made
from tests.train.artist import SMALL, SPEEDS, is_ready, line
from train import sizing, your_artist
from train.holdout import hold_out
from train.photos import Photo, open_photos, read_photos
from train.recipe import NetworkConfig, Recipe
from train.sizing import Plan, choose, told
from train.style import StyleArguments


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the command is given, by the name of the argument."""
    return artist.parts(tmp_path_factory.mktemp("parts"))


def test_what_a_run_leaves_is_ready(
    parts: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artist.quick(monkeypatch)
    whole = tmp_path / "whole"
    assert your_artist.main(line(parts, whole)) == 0
    said = capsys.readouterr().out
    assert said.index("in all about 1 min") < said.index("is ready")
    assert "style network: 2 steps" in said and "in all about 1 min" in said
    is_ready(whole, parts)
    # Once more: everything is there.
    before = (whole / "model" / "README.md").stat().st_mtime_ns
    assert your_artist.main(line(parts, whole)) == 0
    assert (whole / "model" / "README.md").stat().st_mtime_ns == before


def test_the_recipe_starts_from_the_given_networks(parts: dict[str, str]) -> None:
    arguments = your_artist.ArtistArguments(
        parts["artwork"], parts["photos"], parts["init"], "", "", {"udnie": "style-udnie"}
    )
    recipe = your_artist.make_recipe(arguments, Path("pairs"), 1000)
    assert recipe.model.config["encoder_widths"] == [8, 8, 8, 8]
    assert recipe.train.images == 992 and recipe.loss.adversarial_after == 744
    assert recipe.data.styles == ("my_quarters", "udnie")
    assert recipe.loss.alignment == 0


def test_the_published_weights_can_be_fine_tuned(parts: dict[str, str]) -> None:
    arguments = your_artist.ArtistArguments(parts["artwork"], parts["photos"], "fdnn", "", "", {})
    recipe = your_artist.make_recipe(arguments, Path("pairs"), 16)
    assert recipe.model.type == "fdnn" and recipe.discriminator.type == "fdnn-discriminator"
    assert your_artist.old_styles("fdnn") == {"the_scream": "style-the-scream"}
    judge = HubModel.from_pretrained("fdnn", subfolder="discriminator")
    assert {parameter.dtype for parameter in judge.parameters()} == {torch.float32}


def test_weights_without_a_discriminator_get_a_fresh_one(
    parts: dict[str, str], tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(parts["init"], alone, ignore=shutil.ignore_patterns("discriminator"))
    arguments = your_artist.ArtistArguments("my.png", "", str(alone), "", "", {}, parts["recipe"])
    recipe = your_artist.make_recipe(arguments, Path("pairs"), 16)
    assert recipe.discriminator == NetworkConfig("fdnn-discriminator")


def test_without_a_recipe_every_published_style_is_kept(parts: dict[str, str]) -> None:
    bare = Path(parts["init"]) / "discriminator"  # no recipe lies there
    styles = [name for name in published.WEIGHTS if name.startswith("style-")]
    assert sorted(your_artist.old_styles(str(bare)).values()) == sorted(styles)


def test_a_stage_is_complete_or_absent(parts: dict[str, str], tmp_path: Path) -> None:
    arguments = your_artist.ArtistArguments(
        parts["artwork"], parts["photos"], parts["init"], "", "", {}
    )
    artist = your_artist.Artist(arguments, tmp_path, 1.0)

    def half(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    def whole(path: Path) -> None:
        assert not path.exists()
        path.mkdir()

    with pytest.raises(KeyboardInterrupt):
        artist.stage("style", half)
    assert not (tmp_path / "style").exists()
    artist.stage("style", whole)
    assert list((tmp_path / "style").iterdir()) == []
    artist.stage("style", half)  # nothing is left to do
    assert [path.name for path in tmp_path.iterdir()] == ["style"]


def test_what_cannot_be_used_is_said_before_the_work(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    made.photos(empty, count=1)
    cases = {
        "artwork": ("nowhere.jpg", "nowhere.jpg does not exist"),
        "photos": (str(empty), "too few photos"),
        "init": ("style-udnie", "load it with Stylizer"),
        "perceptual": ("none.safetensors", "give the distilled VGG-19"),
        "embedding": ("none.safetensors", "give a face embedding"),
        "old": ("udnie", "write NAME=WEIGHTS"),
        "minutes": ("0", "--minutes above 0"),
    }
    for name, (value, said) in cases.items():
        assert your_artist.main(line(parts, out, **{name: value})) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert said in error
        assert not out.exists()
    assert your_artist.main(line(parts, out, old="my_quarters=style-udnie")) == 2
    assert "name the artwork otherwise" in capsys.readouterr().err


def test_a_plan_fills_the_time() -> None:
    plan = choose(SPEEDS, 60, 10_000, 100, 2, 2)
    assert plan.style_steps == 600
    seconds = plan.seconds(SPEEDS, 2, 2)
    assert sum(seconds.values()) == pytest.approx(3600, rel=0.01)
    assert plan.images >= sizing.PASSES * 4 * plan.photos * 0.95
    lines = told(plan, SPEEDS, 2, 2).splitlines()
    assert lines[0] == "style network: 600 steps, about 10 min"
    assert lines[-1] in ("in all about 1 h 0 min", "in all about 1 h 1 min")


def test_a_plan_is_never_less_than_makes_sense() -> None:
    plan = choose(SPEEDS, 0.01, 10_000, 100, 2, 2)
    assert plan == Plan(150, 16, 100, 1600)
    assert choose(SPEEDS, 60, 40, 4, 2, 2).photos == 40
    assert choose(SPEEDS, 1e6, 10**6, 4, 2, 2) == Plan(600, 4000, 4, 160_000)


@pytest.fixture
def timing(parts: dict[str, str]) -> tuple[StyleArguments, Recipe, str]:
    """What a machine is timed with."""
    arguments = your_artist.ArtistArguments(
        parts["artwork"], parts["photos"], parts["init"], "", "", {}, parts["recipe"]
    )
    recipe = your_artist.make_recipe(arguments, Path("pairs"), 0)
    style = StyleArguments(
        parts["artwork"], parts["photos"], parts["perceptual"], batch_size=1, artwork_side=64
    )
    return style, recipe, parts["init"]


def test_a_machine_is_timed(timing: tuple[StyleArguments, Recipe, str]) -> None:
    speeds = sizing.measure(*timing)
    assert all(value > 0 for value in vars(speeds).values())


def test_the_first_step_of_a_process_is_not_timed(
    timing: tuple[StyleArguments, Recipe, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def train_style(arguments: StyleArguments) -> None:
        # A second before the first step of all, a twentieth before each.
        time.sleep((0 if calls else 1) + 0.05 * arguments.steps)
        calls.append(arguments.steps)

    monkeypatch.setattr(sizing, "train_style", train_style)
    assert 0.03 < sizing.measure(*timing).style_step < 0.5
    assert calls == [1, 1, 3]


def test_nobody_is_on_both_sides(tmp_path: Path) -> None:
    photos = made.photos(tmp_path / "photos", count=12)
    broken = photos / "train" / "05.png"
    broken.write_bytes(broken.read_bytes()[:400])
    copy, original = photos / "train" / "11.png", photos / "train" / "00.png"
    copy.write_bytes(original.read_bytes())
    hold_out(str(photos), tmp_path / "part", 12, 3, seed=1)
    table = open_photos(str(tmp_path / "part"))
    people = {}
    for split in ("train", "test"):
        read = list(read_photos(table[split], split, range(len(table[split]))))
        assert all(isinstance(item, Photo) for item in read)
        people[split] = {item.identity for item in read if isinstance(item, Photo)}
    assert len(table["test"]) == 3
    assert not people["train"] & people["test"]
    pixels = [record["image"]["bytes"] for split in table.values() for record in split]
    assert len(set(pixels)) == len(pixels) <= 10
    attributes = {record["Smiling"] for record in table["train"]}
    assert attributes == {True, False}
    with pytest.raises(UserError, match="too few different faces"):
        hold_out(str(made.photos(tmp_path / "one", count=1)), tmp_path / "none", 1, 1, seed=0)
    assert not (tmp_path / "none").exists()


def test_a_model_of_another_kind_is_refused(parts: dict[str, str], tmp_path: Path) -> None:
    class Other(FDNN):
        model_type = "fdnn-other-for-this-test"

    try:
        Other(SMALL).save_pretrained(tmp_path / "other")
        arguments = your_artist.ArtistArguments(
            parts["artwork"], parts["photos"], str(tmp_path / "other"), "", "", {}
        )
        assert isinstance(FaceModel.from_pretrained(tmp_path / "other"), Other)
        with pytest.raises(UserError, match="your_artist fine-tunes fdnn and ifrp"):
            your_artist.make_recipe(arguments, Path("pairs"), 16)
    finally:
        from face_destyle.models.base import REGISTRY

        REGISTRY.pop(Other.model_type)
