"""Turned portraits: how far a network is off, and photos with and without surroundings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from face_destyle import UserError
from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.models.base import Recovered
from face_destyle.models.similarity import compose
from tests.train import made
from tests.train.evaluated import command
from train import evaluate, figures
from train.evaluate_alignment import ERRORS, alignment_errors, summarize_alignment
from train.frozen import FaceEmbedding
from train.misalign import Misalignment


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
