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

from face_destyle import FDNN, FDNNConfig, UserError, images, metrics
from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.models.base import Recovered
from face_destyle.models.similarity import compose
from tests import drawn
from tests.train import made
from train import evaluate, figures
from train.data import decode, open_pairs
from train.evaluate_alignment import ERRORS, alignment_errors, summarize_alignment
from train.frozen import FaceEmbedding, sha256
from train.misalign import Misalignment
from train.photos import load_table

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


class Told:
    """A network that returns the portrait, and the true alignment but for what is added to it."""

    def __init__(self, truth: torch.Tensor, further: Misalignment):
        self.truth = list(truth.split(evaluate.BATCH))
        self.further = further.alignment()[None]

    def __call__(self, portraits: torch.Tensor) -> Recovered:
        truth = self.truth.pop(0)
        return Recovered(portraits, compose(truth, self.further.expand_as(truth)))


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = made.turned_pairs(tmp_path_factory.mktemp("turned"), count=8, margin=16)
    (folder / "train").rename(folder / "test")
    return str(folder)


class TestAlignment:
    @staticmethod
    def summary(turned: str, further: Misalignment) -> dict[str, Any]:
        test = evaluate.TestSet.open(turned, "test", [], 0, variants=2)
        told = Told(test.alignments, further)
        found = [told(portraits).alignment for portraits in test.alignments.split(evaluate.BATCH)]
        errors = alignment_errors(torch.cat(found), test.alignments)
        return summarize_alignment(test.alignments, errors)["alignment"]

    def test_every_score_of_a_network_that_aligns(self, turned: str, parts: dict[str, str]) -> None:
        test = evaluate.TestSet.open(turned, "test", ["same"], 1, variants=2)
        model: Any = Told(test.alignments, Misalignment(angle=7.0))
        judge = FaceEmbedding.load(parts["embedding"])
        recovered, as_is = evaluate.score(model, test, judge, "told")
        assert list(recovered) == [*figures.MEASURES, *ERRORS]
        assert list(as_is) == list(figures.MEASURES)
        assert recovered["angle_error"] == pytest.approx([7, 7], abs=0.01)

    def test_none_where_the_truth_is_told(self, turned: str) -> None:
        found = self.summary(turned, Misalignment())
        assert sum(row["portraits"] for row in found.values()) == 32
        assert list(found) == ["0", "15", "30", "45"]
        for row in found.values():
            assert row["angle_error"] < 1e-3 and row["shift_error"] < 1e-3

    def test_degrees_and_pixels(self, turned: str) -> None:
        for row in self.summary(turned, Misalignment(angle=-7.0)).values():
            assert row["angle_error"] == pytest.approx(7, abs=0.01)
        # Frame pixels become pixels of the portrait, which shows the face at 0.8 to 1.
        for row in self.summary(turned, Misalignment(x=3.0, y=4.0)).values():
            assert row["angle_error"] == pytest.approx(0, abs=0.01)
            assert 4.0 <= row["shift_error"] <= 5.0

    def test_the_angle_goes_round(self) -> None:
        one, two = (Misalignment(angle).alignment()[None] for angle in (179.0, -179.0))
        found = alignment_errors(one, two)
        assert found["angle_error"][0] == pytest.approx(2, abs=1e-2)

    def test_landmarks_by_hand(self) -> None:
        """A face seen at half its size: its landmarks are half as far from the centre."""
        found = alignment_errors(
            Misalignment(scale=0.5).alignment()[None], Misalignment().alignment()[None]
        )
        points = np.array(FRAME_LANDMARKS) + 0.5 - 64
        expected = np.hypot(*points.T).mean() / 2
        assert found["shift_error"][0] == pytest.approx(expected, abs=1e-3)

    def test_what_is_evaluated(self, turned: str) -> None:
        def rows(**narrower: int) -> int:
            return len(evaluate.TestSet.open(turned, "test", [], 0, **narrower).rows)

        assert (rows(), rows(variants=2), rows(variants=9)) == (16, 32, 32)
        assert (rows(margin=16), rows(margin=1, variants=2)) == (14, 28)
        test = evaluate.TestSet.open(turned, "test", ["same"], 2, variants=2, margin=16)
        assert sorted(set(test.keys)) == ["train-1", "train-2"] and len(test.rows) == 4
        assert rows(margin=16, apart=True) == 2
        with pytest.raises(UserError, match="no pairs of test with a margin of 17 or more"):
            rows(margin=17)

    def test_a_second_table(self, turned: str) -> None:
        summary: dict[str, Any] = {"styles": {}, "means": {}}
        alone = evaluate.table(summary)
        found = self.summary(turned, Misalignment(angle=7.0))
        lines = evaluate.table(summary | {"alignment": found}).removeprefix(alone).splitlines()
        assert lines[:2] == ["", ""] and len(lines) == 4 + len(found)
        assert lines[-1] == f"| 45 | {found['45']['portraits']} | 7.0 | " + lines[-1][-5:]

    def test_not_of_a_network_that_does_not_align(
        self, turned: str, parts: dict[str, str], tmp_path: Path
    ) -> None:
        out = tmp_path / "metrics.json"
        more = ["--limit", "2", "--variants", "2", "--margin", "16", "--out", str(out)]
        assert command(parts | {"data": turned}, *more) == 0
        summary = json.loads(out.read_text())
        assert "alignment" not in summary
        assert (summary["margin"], summary["photos"]) == (16, 2)
        assert summary["styles"]["same"]["portraits"] == 4
        # The input as it is: turned, and held against the aligned photo.
        assert summary["styles"]["same"]["input"]["psnr"] < 25


def test_photos_of_less_margin_apart(
    turned: str, parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of eight photos has none: its figures are those of a test of it alone."""
    out, alone = tmp_path / "metrics.json", tmp_path / "alone.json"
    given = parts | {"data": turned}
    assert command(given, "--margin", "16", "--apart", "--out", str(out)) == 0
    assert "| mean seen, 1 photos of less margin |" in capsys.readouterr().out
    assert command(given, "--limit", "1", "--out", str(alone)) == 0
    summary, expected = json.loads(out.read_text()), json.loads(alone.read_text())
    assert (summary["photos"], summary["apart"]["photos"], expected["photos"]) == (7, 1, 1)
    assert summary["apart"]["means"] == expected["means"]
    assert summary["means"] != expected["means"]


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
