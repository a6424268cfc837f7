"""The table: its figures are those that one computes by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from face_destyle import FDNN, FDNNConfig, images, metrics
from tests import drawn
from tests.train import made
from train import evaluate
from train.data import decode, open_pairs
from train.frozen import FaceEmbedding

PEOPLE = 4
SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights, pairs and embedding, by the name of their argument."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    FDNN(SMALL).save_pretrained(folder / "tiny")
    recipe = {"name": "tiny", "data": {"styles": ["negative"]}}
    (folder / "tiny" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return {
        "weights": str(folder / "tiny"),
        "data": str(made.pairs(folder / "pairs", count=PEOPLE, splits=("test",))),
        "embedding": str(made.face_embedding(folder / "face.safetensors")),
    }


def command(parts: dict[str, str], *more: str) -> int:
    arguments = [text for name, value in parts.items() for text in (f"--{name}", value)]
    return evaluate.main([*arguments, *more])


@pytest.fixture(scope="module")
def written(
    parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """metrics.json and the single scores of one evaluation."""
    folder = tmp_path_factory.mktemp("written")
    out, scores = folder / "metrics.json", folder / "scores.npz"
    assert command(parts, "--out", str(out), "--scores", str(scores)) == 0
    with np.load(scores) as file:
        return json.loads(out.read_text()), {name: file[name] for name in file.files}


def by_hand(parts: dict[str, str], style: str) -> dict[str, dict[str, float]]:
    """The figures of one style, without train.evaluate."""
    pairs = open_pairs(parts["data"], "test")
    rows = [row for row in range(len(pairs)) if pairs[row]["style"] == style]
    portraits, photos = (
        images.from_uint8(torch.stack([decode(pairs[row][name], 128) for row in rows]))
        for name in ("portrait", "photo")
    )
    model, judge = FDNN.from_pretrained(parts["weights"]), FaceEmbedding.load(parts["embedding"])
    found = {}
    with torch.inference_mode():
        recovered = images.from_uint8(images.to_uint8(model(portraits).photo))
        true = judge(photos)
        for kind, pictures in (("recovered", recovered), ("input", portraits)):
            vectors = judge(pictures)
            # Every photo of these pairs is another person.
            hits = (vectors @ true.T).argmax(1) == torch.arange(len(rows))
            found[kind] = {
                "psnr": metrics.psnr(pictures, photos).mean().item(),
                "ssim": metrics.ssim(pictures, photos).mean().item(),
                "fsim": metrics.fsim(pictures, photos).mean().item(),
                "identity": (vectors * true).sum(1).mean().item(),
                "rank1": hits.float().mean().item(),
            }
    return found


@pytest.mark.parametrize("style", ["negative", "posterized"])
def test_the_figures_of_a_style(
    parts: dict[str, str], written: tuple[dict[str, Any], Any], style: str
) -> None:
    row = written[0]["styles"][style]
    assert row["portraits"] == PEOPLE
    assert row["seen"] is (style == "negative")
    for kind, figures in by_hand(parts, style).items():
        assert row[kind] == pytest.approx(figures, abs=1.5e-4)


def test_what_metrics_json_says(parts: dict[str, str], written: tuple[dict[str, Any], Any]) -> None:
    summary = written[0]
    weights = Path(parts["weights"]) / "model.safetensors"
    assert summary["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    judge = Path(parts["embedding"]).read_bytes()
    assert summary["identity_network_sha256"] == hashlib.sha256(judge).hexdigest()
    assert summary["parameters"] == sum(p.numel() for p in FDNN(SMALL).parameters())
    assert (summary["photos"], summary["gallery"], summary["identities"]) == (PEOPLE,) * 3
    assert list(summary["styles"]) == ["negative", "posterized"]  # seen ones first
    for group, style in (("seen", "negative"), ("unseen", "posterized")):
        row = summary["styles"][style]
        assert summary["means"][group] == {kind: row[kind] for kind in ("recovered", "input")}


def test_every_single_score(written: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    summary, scores = written
    assert set(scores["style"]) == {"negative", "posterized"}
    assert set(scores["photo"]) == {f"test-{row}" for row in range(PEOPLE)}
    for style, row in summary["styles"].items():
        chosen = scores["style"] == style
        for kind in ("recovered", "input"):
            for measure in evaluate.MEASURES:
                mean = scores[f"{kind}_{measure}"][chosen].mean()
                assert mean == pytest.approx(row[kind][measure], abs=1e-4)


def test_rank1_is_about_people_and_not_about_photos(tmp_path: Path, parts: dict[str, str]) -> None:
    """With two photos of each person either one is a hit, and both are in the gallery."""
    data = made.pairs(tmp_path / "pairs", count=PEOPLE, splits=("test",))
    path = data / "test" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # A portrait that is the photo of another picture: a hit where both are the same person.
    for row, portrait in zip(rows, (1, 1, 0, 0, 3, 3, 2, 2), strict=True):
        row["portrait_file_name"] = f"{portrait:02d}-photo.png"
        row["identity"] = f"p{int(row['photo_file_name'][:2]) // 2}"
    path.write_text("\n".join(map(json.dumps, rows)))
    summary, _ = evaluate.evaluate(
        parts["weights"], str(data), parts["embedding"], "test", [], ["negative"], 0
    )
    assert (summary["gallery"], summary["identities"]) == (PEOPLE, 2)
    assert summary["styles"]["negative"]["input"]["rank1"] == 1
    for row in rows:
        row["identity"] = row["photo_file_name"]
    path.write_text("\n".join(map(json.dumps, rows)))
    summary, _ = evaluate.evaluate(
        parts["weights"], str(data), parts["embedding"], "test", [], ["negative"], 0
    )
    assert summary["styles"]["negative"]["input"]["rank1"] == 0


def test_the_table(parts: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(parts) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| negative",
        "| posterized",
        "| **mean seen**",
        "| **mean unseen**",
    ]
    assert {line.count("|") for line in lines} == {8}
    found = by_hand(parts, "negative")
    assert f"{found['input']['psnr']:.2f} -> {found['recovered']['psnr']:.2f}" in lines[2]


def test_narrower(parts: dict[str, str], tmp_path: Path) -> None:
    out, scores = tmp_path / "metrics.json", tmp_path / "scores.npz"
    more = ["--limit", "2", "--style", "posterized", "--out", str(out), "--scores", str(scores)]
    assert command(parts, *more) == 0
    summary = json.loads(out.read_text())
    assert list(summary["styles"]) == ["posterized"]
    assert list(summary["means"]) == ["unseen"]
    assert (summary["photos"], summary["gallery"]) == (2, 2)
    assert summary["styles"]["posterized"]["portraits"] == 2
    with np.load(scores) as file:
        assert list(file["photo"]) == ["test-0", "test-1"]


def test_seen_styles_can_be_named(parts: dict[str, str], tmp_path: Path) -> None:
    def seen(text: str) -> list[str]:
        out = tmp_path / "metrics.json"
        assert command(parts, "--limit", "1", "--seen", text, "--out", str(out)) == 0
        styles = json.loads(out.read_text())["styles"]
        return [name for name, row in styles.items() if row["seen"]]

    assert seen("posterized") == ["posterized"]
    assert seen("posterized,negative") == ["negative", "posterized"]
    assert seen("") == []


def test_only_the_plain_variant_is_evaluated(tmp_path: Path) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    drawn.face().save(folder / "a.png")
    row = {"portrait_file_name": "a.png", "photo_file_name": "a.png"}
    lines = [json.dumps(row | {"variant": variant}) for variant in (0, 1, 0)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert evaluate.TestSet.open(str(tmp_path), "test", [], 0).rows == [0, 2]


def test_bad_arguments_end_in_one_line(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    FDNN(SMALL).save_pretrained(bare)
    cases = [
        ({"weights": str(bare)}, [], "no recipe.yaml"),
        ({"weights": "nobody"}, [], "nobody"),
        ({"data": "/nowhere"}, [], "/nowhere"),
        ({"embedding": "none.safetensors"}, [], "none.safetensors"),
        ({}, ["--style", "cubist"], "cubist"),
        ({}, ["--split", "train"], "train"),
        ({}, ["--out", str(tmp_path / "none" / "metrics.json")], "none"),
        ({}, ["--scores", str(tmp_path / "none" / "scores.npz")], "none"),
    ]
    for changed, more, named in cases:
        assert command(parts | changed, *more) == 2, (changed, more)
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert named in line
        assert captured.out == ""
