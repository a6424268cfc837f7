"""The table: its figures are those that one computes by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from face_destyle import FDNN, images, metrics
from tests import drawn
from tests.train import made
from tests.train.evaluated import PEOPLE, SMALL, command
from train import evaluate, figures
from train.data import decode, open_pairs
from train.frozen import FaceEmbedding, sha256
from train.photos import load_table


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
    for kind, expected in by_hand(parts, style).items():
        assert row[kind] == pytest.approx(expected, abs=1.5e-4)


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
            for measure in figures.MEASURES:
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


@pytest.mark.parametrize(
    ("left_out", "parquet"),
    [(("identity",), False), (("identity", "photo_key"), False), (("identity", "photo_key"), True)],
)
def test_a_photo_is_in_the_gallery_once(
    tmp_path: Path, parts: dict[str, str], left_out: tuple[str, ...], parquet: bool
) -> None:
    """Also where the pairs do not say whose photo it is, or which."""
    data = made.pairs(tmp_path / "pairs", count=PEOPLE, splits=("test",))
    path = data / "test" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["portrait_file_name"] = row["photo_file_name"]  # found again, with any embedding
        for name in left_out:
            del row[name]
    path.write_text("\n".join(map(json.dumps, rows)))
    if parquet:
        stored = load_table(str(data))["test"]
        data = tmp_path / "stored"
        data.mkdir()
        stored.to_parquet(data / "test.parquet")
    summary, raw = evaluate.evaluate(
        parts["weights"], str(data), parts["embedding"], "test", [], ["negative"], 0
    )
    assert (summary["photos"], summary["gallery"], summary["identities"]) == (PEOPLE,) * 3
    assert all(row["input"]["rank1"] == 1 for row in summary["styles"].values())
    assert len(set(raw["photo"])) == PEOPLE


def test_photos_of_one_name_are_two_photos(tmp_path: Path) -> None:
    """In a parquet a picture's path is its bare name, whatever folder it was in."""
    data = made.pairs(tmp_path / "pairs", count=2, splits=("test",))
    stored = load_table(str(data))["test"].remove_columns(["photo_key", "identity"])
    (tmp_path / "stored").mkdir()
    table = stored.with_format("arrow")[:].to_pylist()
    for row in table:
        content = (Path(row["photo"]["path"])).read_bytes()
        row["photo"] = {"bytes": content, "path": "face.png"}
        row["portrait"] = row["photo"]
    renamed = Dataset.from_list(table, features=stored.features)
    renamed.to_parquet(tmp_path / "stored" / "test.parquet")
    test = evaluate.TestSet.open(str(tmp_path / "stored"), "test", [], 0)
    assert len(set(test.keys)) == len(set(test.identities)) == 2


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


def test_without_a_face_embedding(
    parts: dict[str, str],
    written: tuple[dict[str, Any], dict[str, np.ndarray]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, scores = tmp_path / "metrics.json", tmp_path / "scores.npz"
    given = {name: value for name, value in parts.items() if name != "embedding"}
    assert command(given, "--out", str(out), "--scores", str(scores)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.endswith(" | - | - |") and line.count("->") == 3 for line in lines[2:])
    unmeasured = ("identity", "rank1")
    expected = json.loads(json.dumps(written[0]))
    del expected["identity_network_sha256"]
    for row in (*expected["styles"].values(), *expected["means"].values()):
        for kind in ("recovered", "input"):
            row[kind] = {m: value for m, value in row[kind].items() if m not in unmeasured}
    assert json.loads(out.read_text()) == expected
    with np.load(scores) as file:
        assert not [name for name in file.files if name.endswith(unmeasured)]
    # Groups of people are compared by identity too.
    assert command(given, "--people", "PHOTOS") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "give --embedding" in line


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


def test_all_styles_are_not_unseen(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe without styles learnt from all of its pairs: which these were it does not say."""
    weights = tmp_path / "all"
    FDNN(SMALL).save_pretrained(weights)
    given = parts | {"weights": str(weights)}
    for data in ({}, {"styles": []}):
        (weights / "recipe.yaml").write_text(yaml.safe_dump({"name": "all", "data": data}))
        assert command(given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "was trained on all styles" in line and "by --seen" in line
    assert command(given, "--limit", "1", "--seen", "") == 0


def test_figures_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "metrics.json"
    figures.write_figures({"psnr": 1}, out)
    before = out.read_text()

    def full(path: Path, text: str) -> None:
        with path.open("w") as file:
            file.write(text[:5])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        figures.write_figures({"psnr": 2}, out)
    assert out.read_text() == before
    monkeypatch.undo()
    figures.write_figures({"psnr": 2}, out)
    assert json.loads(out.read_text()) == {"psnr": 2}
    assert list(tmp_path.iterdir()) == [out]


def test_people_are_looked_for_before_the_work(
    parts: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "score", None)  # whoever measures fails
    photos = str(made.photos(tmp_path / "photos", count=1))
    for people, named in (("/nowhere", "/nowhere"), (photos, "has no split test; it has train")):
        assert command(parts, "--people", people) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line


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
    pleased = tmp_path / "pleased"
    FDNN(SMALL).save_pretrained(pleased)
    loss = {"identity": 0.1, "identity_sha256": sha256(Path(parts["embedding"]))}
    (pleased / "recipe.yaml").write_text(yaml.safe_dump({"loss": loss}))
    cases = [
        ({"weights": str(bare)}, [], "no recipe.yaml"),
        ({"weights": str(pleased)}, [], "judge by another face embedding"),
        ({"weights": "nobody"}, [], "nobody"),
        ({"data": "/nowhere"}, [], "/nowhere"),
        ({"embedding": "none.safetensors"}, [], "none.safetensors"),
        ({}, ["--style", "cubist"], "cubist"),
        ({}, ["--split", "train"], "train"),
        ({}, ["--variants", "0"], "--variants"),
        ({}, ["--margin", "-1"], "--margin"),
        ({}, ["--apart"], "give --margin"),
        ({}, ["--out", str(tmp_path / "none" / "metrics.json")], "none"),
        ({}, ["--scores", str(tmp_path / "none" / "scores.npz")], "none"),
    ]
    for changed, more, named in cases:
        assert command(parts | changed, *more) == 2, (changed, more)
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert named in line
        assert captured.out == ""
