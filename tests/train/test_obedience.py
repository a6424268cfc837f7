"""Obedience and preservation: what is counted, and who may not judge."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from face_destyle import (
    TANN,
    AttributeClassifier,
    AttributeClassifierConfig,
    Recovered,
    TANNConfig,
    UserError,
)
from face_destyle.attributes import COUNT, NAMES, to_vector
from tests.models import test_afrp, test_ifrp
from tests.train import made
from train import evaluate
from train.editing import HAIR_COLOURS, labels
from train.frozen import sha256
from train.obedience import (
    Judges,
    Rest,
    Wish,
    granted,
    judge_on_photos,
    main,
    measure_flips,
    measure_preservation,
    summarize_flips,
    summarize_preservation,
    wilson,
    wish_for,
)

YOUNG, MALE, BLACK, BLOND = (NAMES.index(n) for n in ("Young", "Male", "Black_Hair", "Blond_Hair"))


def face(text: str) -> tuple[float, ...]:
    return tuple(0.0 if math.isnan(value) else value for value in to_vector(text))


class Painter(nn.Module):
    """Writes the attributes into the first row of the picture, but for the deaf ones."""

    takes_attributes = True

    def __init__(self, *deaf: int):
        super().__init__()
        self.deaf = deaf

    def forward(self, portraits: torch.Tensor, attributes: torch.Tensor | None = None) -> Recovered:
        photo = portraits.clone()
        photo[:, :, 0, :COUNT] = 0.5  # by itself it recovers faces that have everything
        if attributes is not None:
            written = 2 * attributes.nan_to_num(0.75) - 1
            for place in self.deaf:
                written[:, place] = -1
            photo[:, :, 0, :COUNT] = written[:, None]
        return Recovered(photo)


class Reader(AttributeClassifier):
    """Reads the first row of a picture."""

    model_type = ""

    def __init__(self) -> None:
        super().__init__(AttributeClassifierConfig(widths=(4,), blocks=(0,)))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return faces[:, 0, 0, :COUNT] * 4


class Embedding(nn.Module):
    """The same person in every picture but for what the first row says of the age."""

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        old = (photos[:, 0, 0, YOUNG] < 0).float()
        return torch.stack([1 - old, old], 1)


JUDGES = Judges(Reader(), Embedding())  # type: ignore[arg-type]
FACES = ["Black_Hair,Young", "Male", "Young,Blond_Hair,Smiling"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of a split `test`, two styles of each of four faces; of the last nothing is known."""
    folder = made.pairs(tmp_path_factory.mktemp("pairs"), count=4, splits=("test",))
    path = folder / "test" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        known = face(FACES[number // 2]) if number < 6 else (None,) * COUNT
        row["attributes"] = {n: v and bool(v) for n, v in zip(NAMES, known, strict=True)}
        row["attributes"] |= {n: False for n, v in row["attributes"].items() if v == 0}
    path.write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def opened(data: Path) -> tuple[evaluate.TestSet, torch.Tensor]:
    test = evaluate.TestSet.open(str(data), "test", [], 0)
    return test, labels(test.pairs, str(data))[test.rows]


def test_the_intervals_of_wilson() -> None:
    assert wilson(0.5, 100) == [0.4038, 0.5962]
    assert wilson(1.0, 20) == [0.8389, 1.0]
    low, high = wilson(0.0, 20)
    assert low == 0 and high == pytest.approx(0.1611)


class TestWishes:
    def test_an_attribute_is_turned_over(self) -> None:
        own = face("Male")
        assert wish_for(own, "Male", 0) == (face(""), "Male", False)
        assert wish_for(own, "Smiling", 0) == (face("Male,Smiling"), "Smiling", True)

    def test_hair_of_one_colour_gets_each_of_the_others(self) -> None:
        own = face("Black_Hair")
        wishes = [wish_for(own, "Black_Hair", turn) for turn in range(3)]
        assert [wish.name for wish in wishes] == [c for c in HAIR_COLOURS if c != "Black_Hair"]
        assert all(wish.vector == face(wish.name) and wish.present for wish in wishes)
        assert wish_for(own, "Gray_Hair", 0) == (face("Gray_Hair"), "Gray_Hair", True)

    def test_when_they_are_granted(self) -> None:
        found = torch.full((1, COUNT), -1.0)
        found[0, YOUNG], found[0, BLACK], found[0, BLOND] = 0.1, -0.2, -0.1

        def seen(name: str, present: bool) -> bool:
            return bool(granted(found, [Wish(face(""), name, present)])[0])

        assert seen("Young", True) and not seen("Young", False)
        assert seen("Male", False) and not seen("Male", True)
        # Of the hair colours the one that stands out most, though below its own threshold.
        assert seen("Blond_Hair", True) and not seen("Black_Hair", True)


class TestFlips:
    @pytest.mark.parametrize("rest", ["open", "true"])
    def test_an_obedient_network(
        self, rest: Rest, opened: tuple[evaluate.TestSet, torch.Tensor]
    ) -> None:
        test, known = opened
        flips = measure_flips(Painter(), test, known, JUDGES, rest)  # type: ignore[arg-type]
        summary = summarize_flips(test, ["negative"], flips)
        assert summary["attributes"]["Young"]["portraits"] == 6
        assert summary["attributes"]["Young"]["photos"] == 3
        # A face of no hair colour has the first by chance: to ask for that is no change.
        assert summary["attributes"]["Smiling"]["changed"]["share"] == 1
        assert summary["attributes"]["Smiling"]["changed"]["interval"] == wilson(1.0, 3)
        assert all(row["reached"]["share"] == 1 for row in summary["attributes"].values())
        assert summary["attributes"]["Young"]["cosine"] == 0
        assert summary["attributes"]["Smiling"]["cosine"] == 1
        assert summary["mean_cosine"] == pytest.approx(17 / 18, abs=1e-4)
        assert summary["mean_changed_by_styles"].keys() == {"seen", "unseen"}

    @pytest.mark.parametrize(("rest", "said"), [("open", 1), ("true", COUNT)])
    def test_what_is_said_beside_it(
        self, rest: Rest, said: int, opened: tuple[evaluate.TestSet, torch.Tensor]
    ) -> None:
        test, known = opened
        heard = []

        class Listener(Painter):
            def forward(self, portraits: torch.Tensor, attributes: Any = None) -> Recovered:
                heard.append((~attributes.isnan()).sum(1))
                return super().forward(portraits, attributes)

        measure_flips(Listener(), test, known, JUDGES, rest)  # type: ignore[arg-type]
        counts = torch.cat(heard)
        # A hair colour that is asked for says of the other three, and baldness of bangs, too.
        assert counts.min() == said and (counts == said).float().mean() > 0.7

    def test_a_deaf_one_is_found_out(self, opened: tuple[evaluate.TestSet, torch.Tensor]) -> None:
        """It never makes anybody male: the men that were women already are not counted."""
        test, known = opened
        flips = measure_flips(Painter(MALE), test, known, JUDGES)  # type: ignore[arg-type]
        summary = summarize_flips(test, [], flips)
        row = summary["attributes"]["Male"]
        assert row["changed"]["share"] == 0
        assert row["reached"]["share"] == pytest.approx(1 / 3, abs=1e-3)
        assert summary["worst"] == "Male"
        assert "seen" not in summary["mean_changed_by_styles"]

    def test_without_labels_there_is_nothing(
        self, opened: tuple[evaluate.TestSet, torch.Tensor]
    ) -> None:
        test, known = opened
        nothing = torch.full_like(known, math.nan)
        with pytest.raises(UserError, match="nothing can be flipped"):
            measure_flips(Painter(), test, nothing, JUDGES)  # type: ignore[arg-type]


def test_preservation(opened: tuple[evaluate.TestSet, torch.Tensor]) -> None:
    test, known = opened
    found, of_photos = measure_preservation(Painter(), test, known, JUDGES)  # type: ignore[arg-type]
    assert of_photos.shape == (8, COUNT)
    summary = summarize_preservation(test, ["negative"], found)
    assert summary.keys() == {"portrait", "attributes", "portrait_of_labelled"}
    assert summary["portrait"]["all"]["portraits"] == 8
    assert summary["attributes"]["all"]["portraits"] == 6
    assert summary["portrait_of_labelled"]["all"]["portraits"] == 6
    assert set(summary["portrait"]) == {"all", "seen", "unseen", "negative", "posterized"}
    photo_is_male = (of_photos[:, MALE] > 0).numpy()
    expected = float(np.mean(~photo_is_male))  # without attributes everybody becomes male
    assert summary["portrait"]["all"]["gender_differs"]["share"] == pytest.approx(
        expected, abs=1e-4
    )
    asked = (known[:6, MALE] > 0).numpy()
    expected = float(np.mean(asked != photo_is_male[:6]))
    share = summary["attributes"]["all"]["gender_differs"]["share"]
    assert share == pytest.approx(expected, abs=1e-4)


def test_the_judge_is_judged_on_photos(opened: tuple[evaluate.TestSet, torch.Tensor]) -> None:
    test, known = opened
    found = torch.where(known == 1, 1.0, -1.0)
    table = judge_on_photos(test, known, found)
    assert table["attributes"]["Young"] == {
        "with": 2,
        "without": 1,
        "accuracy": 1.0,
        "balanced": 1.0,
    }
    assert table["mean"]["balanced"] == 1


def save_judges(folder: Path) -> tuple[str, str]:
    config = AttributeClassifierConfig(widths=(4, 4, 4, 4), blocks=(0, 0, 0, 0), pooled=2)
    AttributeClassifier(config).save_pretrained(folder / "judge")
    return str(folder / "judge"), str(made.face_embedding(folder / "embedding.safetensors"))


def test_the_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge, embedding = save_judges(tmp_path)
    test_afrp.awake(test_afrp.SMALL).save_pretrained(tmp_path / "afrp")
    test_ifrp.awake(test_ifrp.SMALL).save_pretrained(tmp_path / "ifrp")
    for name in ("afrp", "ifrp"):
        out = tmp_path / f"{name}.json"
        given = {"weights": tmp_path / name, "judge": judge, "data": data, "embedding": embedding}
        options = [text for key, value in given.items() for text in (f"--{key}", str(value))]
        options += ["--out", str(out), "--limit", "2", "--seen", "negative"]
        assert main(options) == 0
        summary: dict[str, Any] = json.loads(out.read_text())
        assert summary["judge_sha256"] == sha256(Path(judge) / "model.safetensors")
        assert summary["portraits"] == 4 and summary["photos"] == 2
        assert ("obedience" in summary) is (name == "afrp")
        printed = capsys.readouterr().out
        assert ("| Wavy_Hair |" in printed) is (name == "afrp")
        assert "| portrait | all |" in printed and "| portrait | unseen |" in printed


def test_what_learns_from_views_is_measured_elsewhere(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, embedding = save_judges(tmp_path)
    TANN(TANNConfig()).save_pretrained(tmp_path / "tann")
    options = ["--weights", str(tmp_path / "tann"), "--judge", judge, "--data", str(data)]
    assert main([*options, "--embedding", embedding, "--seen", "negative"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train.evaluate measures it on views" in line


def test_who_may_not_judge(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge, embedding = save_judges(tmp_path)
    weights = tmp_path / "weights"
    test_afrp.awake(test_afrp.SMALL).save_pretrained(weights)
    hashes = {
        "obedience_sha256": sha256(Path(judge) / "model.safetensors"),
        "identity_sha256": sha256(Path(embedding)),
    }
    options = ["--weights", str(weights), "--judge", judge, "--data", str(data)]
    options += ["--embedding", embedding]
    cases = [
        ({"obedience_sha256": hashes["obedience_sha256"]}, [], "judge by another classifier"),
        ({"identity_sha256": hashes["identity_sha256"]}, [], "judge by another face embedding"),
        ({"earlier_sha256": list(hashes.values())}, [], "judge by another classifier"),
        ({}, ["--seen", ""], "no folder"),
        ({}, [], "name them by --seen"),
    ]
    for loss, more, named in cases:
        styles = [] if named.endswith("--seen") else ["negative"]
        recipe = {"data": {"styles": styles}, "loss": loss}
        (weights / "recipe.yaml").write_text(json.dumps(recipe))
        out = tmp_path / ("none/out.json" if more else "out.json")
        assert main([*options, *more, "--out", str(out)]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if named in line]
        assert len(lines) == 1
        assert not out.exists()
