"""The classifier of attributes is trained: who is learnt from, thresholds, figures."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from face_destyle import AttributeClassifier, AttributeClassifierConfig, UserError
from face_destyle.attributes import COUNT, NAMES
from face_destyle.metrics import equal_error
from tests import drawn
from tests.train import made
from train.classify import (
    ClassifyArguments,
    Faces,
    accuracies,
    balance,
    batches,
    classify,
    half_of,
    is_held_out,
    main,
    margins,
    markdown,
    of_half,
    parted,
    read_portraits,
    with_thresholds,
)
from train.classify import train as train_classifier
from train.losses import attributes_loss

SMILING, YOUNG, BLOND = (NAMES.index(name) for name in ("Smiling", "Young", "Blond_Hair"))
TINY = AttributeClassifierConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), pooled=2, dropout=0.0)


def photos(folder: Path, count: int = 8) -> Path:
    """Three splits of drawn faces, pale ones 'young'; of the last of each nothing is known."""
    for split in ("train", "validation", "test"):
        target = folder / split
        target.mkdir(parents=True)
        lines = []
        for seed in range(count):
            pale = seed % 2 == 0
            picture = drawn.face(seed).point(lambda v, pale=pale: v // 2 + 120 * pale)
            picture.save(target / f"{seed:02d}.png")
            row: dict[str, Any] = {"file_name": f"{seed:02d}.png", "identity": f"{split}-{seed}"}
            known = seed < count - 1
            row |= {"Young": pale if known else None, "Smiling": seed % 4 < 2 if known else None}
            lines.append(json.dumps(row))
        (target / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


def faces(count: int = 16) -> Faces:
    """Grey pictures: the light ones are young, of the others a part is unknown."""
    light = torch.arange(count) % 2
    pixels = (60 + 130 * light)[:, None, None, None].expand(count, 3, 128, 128).to(torch.uint8)
    known = torch.full((count, COUNT), math.nan)
    known[:, YOUNG] = light.float()
    return Faces(pixels.contiguous(), known, [str(n) for n in range(count)])


class TestHalves:
    def test_nobody_is_in_both(self) -> None:
        names = [f"celeba_{n}" for n in range(400)]
        even, odd = of_half(names, "even"), of_half(names, "odd")
        assert not set(even) & set(odd) and len(even) + len(odd) == 400
        assert 150 < len(even) < 250
        assert of_half(names, "all") == list(range(400))

    def test_a_name_keeps_its_half(self) -> None:
        assert [half_of(f"celeba_{n}") for n in range(4)] == ["odd", "odd", "even", "even"]


def test_some_are_held_out() -> None:
    names = [f"celeba_{n}" for n in range(1000)]
    people = Faces(torch.zeros(1000, 1), torch.zeros(1000, COUNT), names)
    kept, held = parted(people, 0.1)
    assert len(kept.pixels) + len(held.pixels) == 1000
    assert 60 < len(held.identities) < 140 and not set(kept.identities) & set(held.identities)
    assert 20 < len(of_half(held.identities, "even")) < 80
    assert parted(people, 0.0)[0].identities == names
    pixels = torch.arange(3)[:, None]
    few = Faces(pixels, pixels.expand(3, COUNT).float(), ["a", "b", "c"])
    for part in parted(few, 0.5):
        assert [few.identities[n] for n in part.pixels[:, 0]] == part.identities
        assert torch.equal(part.labels[:, 0], part.pixels[:, 0].float())


def test_both_answers_weigh_as_much() -> None:
    known = torch.full((100, COUNT), math.nan)
    known[:, YOUNG] = (torch.arange(100) < 75).float()
    known[:40, SMILING] = (torch.arange(40) < 1).float()
    no, yes = balance(known, heaviest=8.0)
    assert no[YOUNG] == pytest.approx(2.0) and yes[YOUNG] == pytest.approx(2 / 3)
    assert yes[SMILING] == 8.0 and no[SMILING] == pytest.approx(20 / 39)
    assert torch.isfinite(balance(known, 8.0)).all()


def test_what_is_unknown_is_not_learnt_from() -> None:
    known = torch.full((2, COUNT), math.nan)
    known[0, YOUNG] = 1.0
    logits = torch.zeros(2, COUNT, requires_grad=True)
    weights = torch.ones(2, COUNT)
    weights[1] = 3.0
    loss = attributes_loss(logits, known, weights)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.nonzero().tolist() == [[0, YOUNG]]


def test_a_batch_is_a_little_changed_and_repeats() -> None:
    people = faces(6)
    first, again = list(batches(people, 4, 0, seed=1)), list(batches(people, 4, 0, seed=1))
    assert [len(pictures) for pictures, _ in first] == [4]
    assert torch.equal(first[0][0], again[0][0])
    other = next(batches(people, 4, 1, seed=1))
    assert not torch.equal(first[0][0], other[0])
    pictures, known = first[0]
    assert pictures.abs().max() <= 1
    means = pictures.mean((1, 2, 3))
    assert means[known[:, YOUNG] == 1].min() > 0 > means[known[:, YOUNG] == 0].max()


class TestThresholds:
    def test_equal_error(self) -> None:
        scores = torch.tensor([-3.0, -2.0, 0.0, 1.0, -1.0, 2.0, 3.0, 4.0, 9.0])
        known = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, math.nan])
        border = equal_error(scores, known)
        assert -1 < border < 1  # one of four missed, one of four a false alarm
        assert (scores[known == 1] < border).sum() == 1
        assert (scores[known == 0] > border).sum() == 1

    def test_separable_scores_are_parted_in_the_middle(self) -> None:
        assert equal_error(torch.tensor([-4.0, 2.0]), torch.tensor([0.0, 1.0])) == -1

    def test_without_an_answer_there_is_none(self) -> None:
        assert math.isnan(equal_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])))

    def test_they_are_written_into_the_config(self) -> None:
        torch.manual_seed(0)
        network = AttributeClassifier(replace(TINY, thresholds=(0.9,) * COUNT)).eval()
        people = faces(8)
        tuned = with_thresholds(network, people)
        thresholds = tuned.config.thresholds
        assert [n for n, value in enumerate(thresholds) if value != 0.5] == [YOUNG]
        right = (margins(tuned, people.pixels)[:, YOUNG] > 0) == (people.labels[:, YOUNG] == 1)
        # Light and dark get two scores: a border between them parts them, one way or the other.
        assert right.float().mean() in (0.0, 1.0)
        before, after = network.state_dict(), tuned.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())


def test_accuracies_of_what_is_known() -> None:
    known = torch.full((5, COUNT), math.nan)
    known[:, YOUNG] = torch.tensor([1.0, 1.0, 1.0, 0.0, math.nan])
    known[:, SMILING] = torch.tensor([1.0, 1.0, math.nan, math.nan, math.nan])
    found = torch.ones(5, COUNT)
    found[0, YOUNG] = -1
    table = accuracies(found, known)
    assert table["Young"] == {"with": 3, "without": 1, "accuracy": 0.5, "balanced": 0.3333}
    assert table["Smiling"] == {"with": 2, "without": 0, "accuracy": 1.0, "balanced": None}
    assert table["Bald"]["accuracy"] is None


def test_it_learns_what_can_be_seen() -> None:
    arguments = ClassifyArguments(
        "", epochs=12, batch_size=8, learning_rate=0.01, ema_half_life=8, config=TINY
    )
    people = faces(16)
    network = with_thresholds(train_classifier(arguments, people), people)
    assert not network.training
    right = (margins(network, people.pixels)[:, YOUNG] > 0) == (people.labels[:, YOUNG] == 1)
    assert right.all()


@pytest.mark.parametrize("epochs", [1, 9, 10, 11])
def test_a_run_of_few_steps(epochs: int) -> None:
    arguments = ClassifyArguments("", epochs=epochs, batch_size=2, config=TINY)  # a step each
    network = train_classifier(arguments, faces(2))
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_what_a_run_leaves(tmp_path: Path, data: Path) -> None:
    arguments = ClassifyArguments(str(data), epochs=1, batch_size=4, held_out=0.5, config=TINY)
    metrics = classify(arguments, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md", "metrics.json"}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    held_out = sum(is_held_out(f"train-{seed}", 0.5) for seed in range(7))
    assert 0 < held_out < 7 and metrics["held_out_photos"] == held_out
    left = 7 - held_out
    assert metrics["training"] == {"photos": left, "portraits": 0, "identities": left}
    assert metrics["validation_photos"] == metrics["test_photos"] == 7
    assert metrics["attributes"]["Young"]["with"] == 4
    assert metrics["attributes"]["Bald"]["accuracy"] is None
    assert str(data) not in json.dumps(metrics)
    network = AttributeClassifier.from_pretrained(tmp_path / "out")
    assert network.config.thresholds[YOUNG] == metrics["attributes"]["Young"]["threshold"]
    assert network.config.thresholds[BLOND] == 0.5
    assert "| Young |" in markdown(metrics) and "**mean**" in markdown(metrics)


def test_the_halves_share_nobody(tmp_path: Path, data: Path) -> None:
    counts = {}
    for half in ("even", "odd"):
        arguments = ClassifyArguments(
            str(data), identities=half, epochs=1, batch_size=4, held_out=0.0, config=TINY
        )
        counts[half] = classify(arguments, tmp_path / half)["training"]["photos"]
    assert min(counts.values()) > 0 and sum(counts.values()) == 7


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.pairs(tmp_path_factory.mktemp("pairs"), count=4)
    path = folder / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["attributes"] = {"Smiling": number < 4 if number < 6 else None}
        row["alignment"] = [1, 0, 0.1, 0, 1, 0] if number == 0 else [1, 0, 0, 0, 1, 0]
    path.write_text("\n".join(map(json.dumps, rows)))
    return folder


class TestPortraits:
    def test_aligned_and_labelled_ones(self, pairs: Path) -> None:
        found = read_portraits(str(pairs), "all", each=2, limit=0, seed=0)
        # The first is turned, of the last two nothing is known.
        assert sorted(found.identities) == ["p0", "p1", "p1", "p2", "p2"]
        assert found.labels[:, SMILING].sum() == 3
        assert len(read_portraits(str(pairs), "all", each=1, limit=2, seed=0).pixels) == 2

    def test_of_one_half(self, pairs: Path) -> None:
        found = [set(read_portraits(str(pairs), h, 2, 0, 0).identities) for h in ("even", "odd")]
        assert not found[0] & found[1] and found[0] | found[1] == {"p0", "p1", "p2"}

    def test_they_are_learnt_from_too(self, tmp_path: Path, pairs: Path, data: Path) -> None:
        arguments = ClassifyArguments(
            str(data), stylized=str(pairs), epochs=1, batch_size=4, held_out=0.0, config=TINY
        )
        assert classify(arguments, tmp_path / "out")["training"]["portraits"] == 3

    def test_none_is_named(self, tmp_path: Path) -> None:
        folder = made.pairs(tmp_path, count=1)
        with pytest.raises(UserError, match="no aligned portraits with attributes of all"):
            read_portraits(str(folder), "all", 1, 0, 0)


def test_mistakes_end_in_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("not a classifier")
    bare = made.photos(tmp_path / "bare")
    unlabelled = photos(tmp_path / "unlabelled", count=1)
    new = str(tmp_path / "new")
    cases = [
        (["--photos", str(data), "--out", str(full)], "not an empty folder"),
        (["--photos", str(bare), "--out", new], "no split validation"),
        (["--photos", str(unlabelled), "--out", new], "no photos with attributes"),
        (["--photos", str(data), "--out", new, "--epochs", "0"], "--epochs starts at 1"),
    ]
    for arguments, named in cases:
        assert main(arguments) == 2
        lines = [
            line for line in capsys.readouterr().err.splitlines() if line and "0photo" not in line
        ]
        assert len(lines) == 1 and named in lines[0]
    assert not Path(new).exists()


def test_a_broken_photo_is_named(tmp_path: Path) -> None:
    folder = photos(tmp_path, count=3)
    (folder / "train" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(UserError, match=r"00\.png \(train-000000\)"):
        classify(ClassifyArguments(str(folder), config=TINY), tmp_path / "out")
