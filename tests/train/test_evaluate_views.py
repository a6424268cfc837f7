"""Figures by the angle of the head: those that one computes by hand, of the right faces."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from torch import nn

from face_destyle import FDNN, TANN, FDNNConfig, TANNConfig, UserError, images, metrics
from face_destyle.configs import config_from_dict
from face_destyle.models.base import Recovered
from tests import drawn
from tests.train import made
from tests.train.test_triplet import TINY_TANN, YAWS, write_views
from train import evaluate, evaluate_views
from train.evaluate_views import Pipeline, ViewSet, resized, score, summarize, table
from train.frozen import FaceEmbedding, sha256
from train.tiny import TinyConfig
from train.views import FEATURES

PEOPLE = 3
CLEAN = TinyConfig(noise=0.0, jpeg=0.0, soft=0.0)
CLEAN = replace(CLEAN, turns=replace(CLEAN.turns, angle=0.0, scale=(1.0, 1.0), shift=0.0))
Written = tuple[dict[str, Any], dict[str, np.ndarray], str]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights, views and embedding, by the name of their argument."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    TANN(config_from_dict(TANNConfig, TINY_TANN, "")).save_pretrained(folder / "tann")
    return {
        "weights": str(folder / "tann"),
        "data": str(write_views(folder / "views", people=PEOPLE, split="test")),
        "embedding": str(made.face_embedding(folder / "face.safetensors")),
    }


def command(parts: dict[str, str], *more: str) -> int:
    arguments = [text for name, value in parts.items() for text in (f"--{name}", value)]
    return evaluate.main([*arguments, *more])


@pytest.fixture(scope="module")
def written(parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """metrics.json, the single scores and the table of one evaluation."""
    folder = tmp_path_factory.mktemp("written")
    out, scores = folder / "metrics.json", folder / "scores.npz"
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr("builtins.print", told.append)
        assert command(parts, "--out", str(out), "--scores", str(scores)) == 0
    with np.load(scores) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(out.read_text()), arrays, "\n".join(told)


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
        assert Pipeline("bicubic").with_codes(drawn.faces(2, 16))[1] is None


class TestViewSet:
    def test_rows_and_their_photos(self, parts: dict[str, str]) -> None:
        test = ViewSet.open(parts["data"], "test", 0)
        assert len(test.rows) == PEOPLE * len(YAWS)
        assert test.keys == [f"test-{person}-0" for person in range(PEOPLE)]
        assert test.photos.tolist() == [n for n in range(PEOPLE) for _ in YAWS]
        assert [test.views[row]["yaw"] for row in test.frontal] == [0] * PEOPLE
        assert dict(test.by_angle()).keys() == {"0", "30", "60"}

    def test_a_limit_is_of_photos(self, parts: dict[str, str]) -> None:
        test = ViewSet.open(parts["data"], "test", 2)
        assert (len(test.rows), test.keys) == (2 * len(YAWS), ["test-0-0", "test-1-0"])

    def test_a_photo_without_a_frontal_view_is_named(
        self, parts: dict[str, str], tmp_path: Path
    ) -> None:
        rows = ViewSet.open(parts["data"], "test", 0).views.with_format("arrow")[:].to_pylist()
        kept = [row for row in rows if row["yaw"] or row["identity"] != "p1"]
        Dataset.from_list(kept, features=FEATURES).to_parquet(str(tmp_path / "test-0.parquet"))
        with pytest.raises(UserError, match="photo test-1-0 has no frontal view"):
            ViewSet.open(str(tmp_path), "test", 0)

    @pytest.mark.parametrize(
        ("people", "expected"),
        [
            ([0, 1, 2, 3], [2, 3, 0, 1]),
            ([0, 1, 0, 2], [3, 3, 1, 1]),  # half the list away is the same person
            ([0, 0, 0, 1], [3, 3, 3, 1]),
            ([0, 0], None),
            ([0], None),
        ],
    )
    def test_somebody_else(
        self, parts: dict[str, str], people: list[int], expected: list[int] | None
    ) -> None:
        test = ViewSet.open(parts["data"], "test", 0)
        assert replace(test, people=torch.tensor(people)).strangers() == expected


class TestScore:
    def test_bicubic_by_angle(self, parts: dict[str, str]) -> None:
        test = ViewSet.open(parts["data"], "test", 0)
        judge = FaceEmbedding.load(parts["embedding"])
        scores = score([Pipeline("bicubic")], test, judge, CLEAN, 0)["bicubic"]
        assert list(scores) == list(evaluate_views.MEASURES)
        faces = drawn.faces(PEOPLE)
        enlarged = resized(resized(faces, 16), 128)
        enlarged = images.from_uint8(images.to_uint8(enlarged))
        frontal = test.angles == 0
        # The view went through the resampling of misalignment, which changes it a little.
        expected = metrics.psnr(enlarged, faces).numpy()
        assert np.allclose(scores["psnr"][frontal], expected, atol=0.3)
        means = [scores["psnr"][test.angles == angle].mean() for angle in (0, 30, 60)]
        assert means[0] > means[1] > means[2]

    def test_figures_are_of_8_bit_pictures(
        self, parts: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[torch.Tensor] = []

        def noted(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
            seen.append(fake)
            return torch.zeros(len(fake))

        monkeypatch.setattr(metrics, "psnr", noted)
        test = ViewSet.open(parts["data"], "test", 0)
        model = TANN.from_pretrained(parts["weights"])
        score([Pipeline("bicubic"), Pipeline("tann", (model,))], test, None, CLEAN, 0)
        assert len(seen) == 2
        for fake in seen:
            assert torch.equal(fake, images.from_uint8(images.to_uint8(fake)))

    def test_codes_are_of_oneself_and_of_another(self, parts: dict[str, str]) -> None:
        """A network whose code is the tiny photo: the turned view is nearer to its own front."""

        class Seen(nn.Module):
            input_size = 16

            def forward(self, tiny: torch.Tensor) -> Any:
                found: Any = Recovered(resized(tiny, 128))
                found.code = tiny.flatten(1)
                return found

        test = ViewSet.open(parts["data"], "test", 0)
        model: Any = Seen()
        scores = score([Pipeline("seen", (model,))], test, None, CLEAN, 0)["seen"]
        frontal = test.angles == 0
        tiny = test.tiny(test.frontal, CLEAN, 0).flatten(1)
        further = (tiny - tiny.roll(-1, 0)).square().mean(1).numpy()  # of three, the next one
        assert np.allclose(scores["own"][frontal], 0, atol=1e-6)
        assert np.allclose(scores["other"][frontal], further, atol=1e-6)
        assert (scores["own"][~frontal] > 1e-3).all()
        # Of one person alone there is nobody to tell apart.
        alone = score([Pipeline("seen", (model,))], ViewSet.open(parts["data"], "test", 1), None,
                      CLEAN, 0)["seen"]  # fmt: skip
        assert list(alone) == ["psnr", "ssim"]


def test_rank1_is_about_people_and_not_about_photos(parts: dict[str, str], tmp_path: Path) -> None:
    """The photo that a face is taken for is another one of the same person: a hit."""
    views = write_views(tmp_path, people=2, photos=2, split="test")
    test = ViewSet.open(str(views), "test", 0)
    gallery = torch.eye(4)
    swapped = gallery[[1, 0, 3, 2]][test.photos]
    found = evaluate_views.likeness_of_people(swapped, gallery, test)
    assert found["rank1"].tolist() == [1.0] * len(test.rows)
    assert found["identity"].tolist() == [0.0] * len(test.rows)
    others = gallery[[2, 3, 0, 1]][test.photos]
    assert not evaluate_views.likeness_of_people(others, gallery, test)["rank1"].any()


def test_what_metrics_json_says(parts: dict[str, str], written: Written) -> None:
    summary = written[0]
    weights = Path(parts["weights"]) / "model.safetensors"
    assert summary["weights_sha256"] == sha256(weights)
    assert summary["identity_network_sha256"] == sha256(Path(parts["embedding"]))
    model = TANN.from_pretrained(parts["weights"])
    assert summary["parameters"] == sum(p.numel() for p in model.parameters())
    assert (summary["photos"], summary["gallery"], summary["identities"]) == (PEOPLE,) * 3
    assert {angle: row["views"] for angle, row in summary["angles"].items()} == {
        "0": PEOPLE,
        "30": 2 * PEOPLE,
        "60": 2 * PEOPLE,
    }
    for row in summary["angles"].values():
        assert row.keys() == {"views", "input", "recovered", "own", "other"}
        assert list(row["input"]) == list(row["recovered"]) == list(evaluate_views.MEASURES)
    for kind, figures in summary["means"]["turned"].items():
        for measure, value in figures.items():
            each = [summary["angles"][angle][kind][measure] for angle in ("30", "60")]
            assert value == pytest.approx(np.mean(each), abs=1e-4)


@torch.inference_mode()
def test_the_figures_by_hand(parts: dict[str, str], written: Written) -> None:
    test = ViewSet.open(parts["data"], "test", 0)
    model = TANN.from_pretrained(parts["weights"])
    judge = FaceEmbedding.load(parts["embedding"])
    rows = [n for n, angle in enumerate(test.angles) if angle == 60]
    tiny = test.tiny([test.rows[n] for n in rows], TinyConfig(), 0)
    photos = drawn.faces(PEOPLE)[[n // len(YAWS) for n in rows]]
    true = judge(drawn.faces(PEOPLE))
    row = written[0]["angles"]["60"]
    small = images.from_uint8(images.to_uint8(model(tiny).photo))
    for kind, shown in (("input", tiny), ("recovered", small)):
        fake = images.from_uint8(images.to_uint8(resized(shown, 128)))
        vectors = judge(fake)
        own = torch.tensor([n // len(YAWS) for n in rows])
        assert row[kind] == pytest.approx(
            {
                "psnr": metrics.psnr(fake, photos).mean().item(),
                "ssim": metrics.ssim(fake, photos).mean().item(),
                "identity": (vectors * true[own]).sum(1).mean().item(),
                "rank1": ((vectors @ true.T).argmax(1) == own).float().mean().item(),
            },
            abs=2e-4,
        )


def test_every_single_score(written: Written) -> None:
    summary, scores, _ = written
    assert set(scores["photo"]) == {f"test-{person}-0" for person in range(PEOPLE)}
    for angle, row in summary["angles"].items():
        chosen = scores["angle"] == int(angle)
        for kind in ("recovered", "input"):
            for measure in evaluate_views.MEASURES:
                mean = scores[f"{kind}_{measure}"][chosen].mean()
                assert mean == pytest.approx(row[kind][measure], abs=1e-4)
        assert scores["recovered_own"][chosen].mean() == pytest.approx(row["own"], abs=1e-4)


def test_the_table(written: Written) -> None:
    summary, _, told = written
    assert told == table(summary)
    lines = told.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| 0",
        "| 30",
        "| 60",
        "| **mean turned**",
    ]
    assert {line.count("|") for line in lines} == {8}
    row = summary["angles"]["30"]
    before, after = row["input"]["psnr"], row["recovered"]["psnr"]
    assert f"| 30 | {2 * PEOPLE} | {before:.2f} -> {after:.2f} |" in lines[3]
    assert lines[3].endswith(f"| {row['own']:.3g} / {row['other']:.3g} |")


def test_without_a_face_embedding(
    parts: dict[str, str],
    written: Written,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "metrics.json"
    given = {name: value for name, value in parts.items() if name != "embedding"}
    assert command(given, "--out", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.count("->") == 2 and "| - | - |" in line for line in lines[2:])
    expected = json.loads(json.dumps(written[0]))
    del expected["identity_network_sha256"]
    for row in (*expected["angles"].values(), *expected["means"].values()):
        for kind in ("recovered", "input"):
            del row[kind]["identity"], row[kind]["rank1"]
    assert json.loads(out.read_text()) == expected


def test_narrower(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = parts | {"data": str(write_views(tmp_path / "views", people=2, split="later"))}
    out = tmp_path / "metrics.json"
    assert command(given, "--split", "later", "--limit", "1", "--out", str(out)) == 0
    summary = json.loads(out.read_text())
    assert (summary["photos"], summary["identities"]) == (1, 1)
    assert [row["views"] for row in summary["angles"].values()] == [1, 2, 2]
    # The codes of one person alone are held against nobody's: the table has no column for them.
    assert "own" not in summary["angles"]["0"]
    assert "codes" not in capsys.readouterr().out


def test_heads_that_are_not_turned_have_no_mean(parts: dict[str, str]) -> None:
    test = ViewSet.open(parts["data"], "test", 0)
    still = replace(test, angles=np.zeros_like(test.angles))
    scores = {name: np.ones(len(test.rows)) for name in ("psnr", "ssim")}
    summary = summarize(still, scores, scores)
    assert "means" not in summary
    assert len(table(summary).splitlines()) == 3


def test_bad_arguments_end_in_one_line(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pleased = tmp_path / "pleased"
    TANN.from_pretrained(parts["weights"]).save_pretrained(pleased)
    loss = {"identity": 0.1, "identity_sha256": sha256(Path(parts["embedding"]))}
    (pleased / "recipe.yaml").write_text(yaml.safe_dump({"loss": loss}))
    middle = tmp_path / "middle"
    FDNN(config_from_dict(FDNNConfig, made.GENERATOR, "")).save_pretrained(middle)
    pairs = made.pairs(tmp_path / "pairs", count=1, splits=("test",))
    portraits = tmp_path / "fdnn"
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).save_pretrained(portraits)
    cases = [
        ({"weights": str(pleased)}, [], "judge by another face embedding"),
        ({"weights": str(middle)}, [], "takes faces of 32 pixels, not 128"),
        ({"weights": str(portraits)}, ["--seen", ""], "portrait"),
        ({"data": str(pairs)}, [], "make views by train.views"),
        ({"data": "/nowhere"}, [], "/nowhere"),
        ({"embedding": "none.safetensors"}, [], "none.safetensors"),
        ({}, ["--split", "train"], "no split train"),
        ({}, ["--limit", "-1"], "--limit"),
        ({}, ["--seen", "candy"], "is measured on views: leave out --seen"),
        ({}, ["--seen", ""], "leave out --seen"),
        ({}, ["--style", "candy", "--people", "PHOTOS"], "leave out --style, --people"),
        ({}, ["--variants", "2", "--margin", "16"], "leave out --variants, --margin"),
    ]
    out = tmp_path / "metrics.json"
    for changed, more, named in cases:
        assert command(parts | changed, *more, "--out", str(out)) == 2, (changed, more)
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert named in line
        assert captured.out == "" and not out.exists()
