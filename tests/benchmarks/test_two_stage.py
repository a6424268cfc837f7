"""One network beside two in a row: what goes through them, by which angle, against whom."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from benchmarks.two_stage import Pipeline, ViewSet, main, resized, score, summarize
from face_destyle import FDNN, TANN, FDNNConfig, TANNConfig, images, metrics
from face_destyle.configs import config_from_dict
from face_destyle.models.base import Recovered
from tests import drawn
from tests.train import made
from tests.train.test_triplet import TINY_TANN, YAWS, write_views
from train.fit import check_data
from train.frozen import FaceEmbedding
from train.recipe import load_recipe
from train.start import build
from train.tiny import TinyConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("views"), people=3, split="test")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.face_embedding(tmp_path_factory.mktemp("judge") / "embedding.safetensors")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TANN of 16 -> 32 and an FDNN of 32 -> 32, saved."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    TANN(config_from_dict(TANNConfig, TINY_TANN, "")).save_pretrained(folder / "tann")
    FDNN(config_from_dict(FDNNConfig, made.GENERATOR, "")).save_pretrained(folder / "fdnn")
    return folder


class Note(nn.Module):
    """A stage that notes what it gets, and gives a face larger by two."""

    def __init__(self, side: int):
        super().__init__()
        self.input_size, self.seen = side, torch.empty(0)

    def forward(self, pictures: torch.Tensor) -> Recovered:
        self.seen = pictures
        return Recovered(resized(pictures, 2 * self.input_size) * 0.5)


class TestPipeline:
    def test_each_stage_gets_the_picture_of_the_one_before(self) -> None:
        stages = (Note(16), Note(64))
        tiny = drawn.faces(2, 16)
        out = Pipeline("two", stages)(tiny)  # type: ignore[arg-type]
        assert out.shape == (2, 3, 128, 128)
        assert torch.equal(stages[0].seen, tiny)
        between = images.from_uint8(images.to_uint8(resized(tiny, 32) * 0.5))
        assert torch.equal(stages[1].seen, resized(between, 64))

    def test_none_is_bicubic(self) -> None:
        out = Pipeline("bicubic")(drawn.faces(2, 16))
        assert torch.equal(out, resized(drawn.faces(2, 16), 128))
        assert Pipeline("bicubic").codes(drawn.faces(2, 16)) is None


def test_figures_by_angle(views: Path, embedding: Path) -> None:
    test = ViewSet.open(str(views), "test", 0)
    assert len(test.rows) == 3 * len(YAWS)
    judge = FaceEmbedding.load(embedding)
    clean = TinyConfig(noise=0.0, jpeg=0.0, soft=0.0)
    clean = replace(clean, turns=replace(clean.turns, angle=0.0, scale=(1.0, 1.0), shift=0.0))
    scores = score([Pipeline("bicubic"), Pipeline("again")], test, judge, clean, 0)
    assert np.array_equal(scores["bicubic"]["psnr"], scores["again"]["psnr"])
    frontal = np.flatnonzero(test.angles == 0)
    tiny = resized(drawn.faces(3), 16)
    expected = metrics.psnr(resized(tiny, 128), drawn.faces(3)).numpy()
    assert np.allclose(scores["bicubic"]["psnr"][frontal], expected, atol=0.3)
    summary = summarize(test, scores)["angles"]
    assert list(summary) == ["0", "30", "60"]
    assert [summary[angle]["views"] for angle in summary] == [3, 6, 6]
    means = [summary[angle]["bicubic"]["psnr"] for angle in summary]
    assert means[0] > means[1] > means[2]
    assert summary["60"]["again"]["behind"] == [0, 0, 0]
    assert "behind" not in summary["60"]["bicubic"]


def test_the_command(
    views: Path, embedding: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ["--data", str(views), "--embedding", str(embedding), "--out", str(out)]
    options += ["--pipeline", f"tann={weights / 'tann'}", "--limit", "2"]
    options += ["--pipeline", f"two={weights / 'tann'},{weights / 'fdnn'}"]
    assert main(options) == 0
    figures: dict[str, Any] = json.loads(out.read_text())["angles"]
    assert figures["60"]["photos"] == 2 and figures["60"]["views"] == 4
    assert figures["30"]["tann"].keys() == {"psnr", "ssim", "identity", "rank1", "own", "other"}
    assert figures["30"]["tann"]["own"] > 0
    assert "own" not in figures["30"]["bicubic"]
    low, mean, high = (figures["30"]["two"]["behind"][n] for n in (1, 0, 2))
    gap = figures["30"]["tann"]["psnr"] - figures["30"]["two"]["psnr"]
    assert low <= mean <= high and mean == pytest.approx(gap, abs=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 * 3
    first = out.read_bytes()
    assert main(options) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pipeline", "tann"], "write name=weights"),
        (["--pipeline", "one={tann}", "--pipeline", "one={tann}"], "one is there twice"),
        (["--pipeline", "bicubic={tann}"], "bicubic is there twice"),
        (["--pipeline", "one={tann}", "--limit", "-1"], "--limit starts at 0"),
        (["--pipeline", "one={tann}", "--split", "train"], "no split train"),
        (["--pipeline", "one={tann}", "--out", "/no/where.json"], "is no folder"),
    ],
)
def test_mistakes_are_one_line(
    views: Path,
    embedding: Path,
    weights: Path,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = [text.format(tann=weights / "tann") for text in more]
    assert main(["--data", str(views), "--embedding", str(embedding), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_judge_that_trained_a_stage_is_refused(
    views: Path, embedding: Path, weights: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from train.frozen import sha256

    TANN.from_pretrained(weights / "tann").save_pretrained(tmp_path)
    loss = {"identity_sha256": sha256(embedding)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"loss": loss}))
    options = ["--data", str(views), "--embedding", str(embedding)]
    pipeline = f"two={weights / 'fdnn'},{tmp_path}"
    assert main([*options, "--pipeline", pipeline]) == 2
    assert "judge by another face embedding" in capsys.readouterr().err


class TestRecipes:
    SIZES = {
        "two_stage_sr": (16, 128),
        "two_stage_frontalize": (128, 128),
        "two_stage_frontalize_tiny": (16, 16),
        "two_stage_sr_frontal": (16, 128),
    }

    @pytest.mark.parametrize("name", SIZES)
    def test_the_parts_fit_together_and_see_as_much_as_ours(self, name: str) -> None:
        recipe = load_recipe(ROOT / "benchmarks" / f"{name}.yaml")
        ours = load_recipe(ROOT / "train" / "recipes" / "fdnn-tann.yaml")
        model = build(recipe.model)
        given = int(getattr(model.config, "photo_size", model.config.image_size))
        assert (model.config.image_size, given) == self.SIZES[name]
        assert build(recipe.discriminator).config.image_size == given
        check_data(recipe, self.SIZES[name])
        assert recipe.data.views.use
        for field in ("images", "batch_size"):
            assert getattr(recipe.train, field) == getattr(ours.train, field)
        assert recipe.optimizer == ours.optimizer
        assert recipe.loss.adversarial_after == ours.loss.adversarial_after
