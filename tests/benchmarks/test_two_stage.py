"""One network beside two in a row: by which angle, against whom, by how much."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.two_stage import main, summarize
from face_destyle import FDNN, TANN, FDNNConfig, TANNConfig
from face_destyle.configs import config_from_dict
from tests.train import made
from tests.train.test_triplet import TINY_TANN, write_views
from train.evaluate_views import Pipeline, ViewSet, score
from train.frozen import sha256
from train.loader import check_data
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


def test_the_first_beside_the_others(views: Path) -> None:
    test = ViewSet.open(str(views), "test", 0)
    scores = score([Pipeline("one"), Pipeline("again")], test, None, TinyConfig(), 0)
    scores["again"]["psnr"] -= np.where(test.angles == 60, 2.0, 0.0)
    summary = summarize(test, scores)["angles"]
    assert list(summary) == ["0", "30", "60"]
    assert [summary[angle]["views"] for angle in summary] == [3, 6, 6]
    assert [summary[angle]["photos"] for angle in summary] == [3, 3, 3]
    assert summary["30"]["again"]["behind"] == [0, 0, 0]
    assert summary["60"]["again"]["behind"] == pytest.approx([2, 2, 2])
    assert "behind" not in summary["60"]["one"]


def test_the_command(
    views: Path, embedding: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ["--data", str(views), "--embedding", str(embedding), "--out", str(out)]
    options += ["--pipeline", f"tann={weights / 'tann'}", "--limit", "2"]
    options += ["--pipeline", f"two={weights / 'tann'},{weights / 'fdnn'}"]
    assert main(options) == 0
    content = json.loads(out.read_text())
    tann, fdnn = (sha256(weights / name / "model.safetensors") for name in ("tann", "fdnn"))
    assert content["weights_sha256"] == {"tann": [tann], "two": [tann, fdnn]}
    assert content["identity_network_sha256"] == sha256(embedding)
    figures: dict[str, Any] = content["angles"]
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
    TANN.from_pretrained(weights / "tann").save_pretrained(tmp_path)
    loss = {"identity_sha256": sha256(embedding)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"loss": loss}))
    options = ["--data", str(views), "--embedding", str(embedding)]
    pipeline = f"two={weights / 'fdnn'},{tmp_path}"
    assert main([*options, "--pipeline", pipeline]) == 2
    assert "judge by another face embedding" in capsys.readouterr().err


class TestRecipes:
    SIZES = {
        "two_stage_sr": (16, 32),
        "two_stage_frontalize": (32, 32),
        "two_stage_frontalize_tiny": (16, 16),
        "two_stage_sr_frontal": (16, 32),
    }

    @pytest.mark.parametrize("name", SIZES)
    def test_the_parts_fit_together_and_see_as_much_as_ours(self, name: str) -> None:
        recipe = load_recipe(ROOT / "benchmarks" / f"{name}.yaml")
        ours = load_recipe(ROOT / "train" / "recipes" / "tann-coarse.yaml")
        model = build(recipe.model)
        given = int(getattr(model.config, "photo_size", model.config.image_size))
        assert (model.config.image_size, given) == self.SIZES[name]
        assert build(recipe.discriminator).config.image_size == given
        check_data(recipe, self.SIZES[name])
        assert recipe.data.views.use
        for field in ("images", "batch_size"):
            assert getattr(recipe.train, field) == getattr(ours.train, field)
        assert recipe.optimizer == ours.optimizer
        assert recipe.loss.adversarial == ours.loss.adversarial == 0
