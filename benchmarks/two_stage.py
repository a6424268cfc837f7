"""Tiny turned faces: one network beside two in a row and beside bicubic, by the angle of the head.

    python -m benchmarks.two_stage --data VIEWS --embedding EMBEDDING.safetensors \
        --pipeline tann=cards/fdnn-tann \
        --pipeline hallucinated-then-frontalized=SR/weights,FRONTALIZE/weights \
        --pipeline frontalized-then-hallucinated=FRONTALIZE16/weights,SR_FRONTAL/weights \
        --out benchmarks/results/two-stage.json

A pipeline is a name and its networks, in the order that a face goes through them; between two it
is an 8-bit picture, resized where the next one takes another size. What each was trained by stands
in benchmarks/two_stage_*.yaml. Each is measured as `train.evaluate` measures one network, on the
same tiny photos. Of the first pipeline it is told how far it is ahead of each other one, in dB,
with the 95 % interval over photos.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_destyle import FaceModel, metrics
from face_destyle.errors import UserError
from face_destyle.models.base import weights_file
from train.console import one_line_errors
from train.evaluate_views import BICUBIC, MEASURES, Pipeline, ViewSet, score, told_codes
from train.figures import judge_sha256, means, told, write_figures
from train.frozen import FaceEmbedding, find_frozen, sha256
from train.memory import keep_freed_memory
from train.tiny import TinyConfig

Array = npt.NDArray[Any]


def parse_pipeline(text: str, embedding: str) -> tuple[Pipeline, list[str]]:
    """Read `name=weights,weights`: the pipeline, and the hashes of its weights.

    Raises:
        UserError: written otherwise, no such weights, or weights that were trained with the
            embedding that judges.
    """
    name, separator, weights = text.partition("=")
    if not (name and separator and weights):
        raise UserError(f"--pipeline {text}: write name=weights or name=weights,weights")
    parts = weights.split(",")
    for one in parts:
        judge_sha256(one, embedding)
    pipeline = Pipeline(name, tuple(FaceModel.from_pretrained(one) for one in parts))
    return pipeline, [sha256(weights_file(one)) for one in parts]


def summarize(test: ViewSet, scores: dict[str, dict[str, Array]]) -> dict[str, Any]:
    """Means by angle, and how far the first pipeline is ahead of each other one in PSNR."""
    first = next(iter(scores))
    angles: dict[str, Any] = {}
    for angle, chosen in test.by_angle():
        photos = test.photos[chosen]
        rows: dict[str, Any] = {"views": int(chosen.sum()), "photos": len(set(photos.tolist()))}
        for name, measures in scores.items():
            rows[name] = means(measures, chosen, list(measures))
            if name != first:
                gap = (scores[first]["psnr"] - measures["psnr"])[chosen]
                rows[name]["behind"] = _interval(gap, photos)
        angles[angle] = rows
    return {"angles": angles}


def _interval(gap: Array, photos: Array) -> list[float]:
    """Mean, low, high of a difference; the two sides of a head are one photo."""
    _, photo = np.unique(photos, return_inverse=True)
    gaps = np.bincount(photo, weights=gap.astype(np.float64)) / np.bincount(photo)
    return [round(value, 3) for value in (float(gaps.mean()), *metrics.bootstrap_interval(gaps))]


def table(summary: dict[str, Any], names: list[str]) -> str:
    """The figures as Markdown: one line an angle and pipeline."""
    lines = [
        "| angle | pipeline | PSNR (dB) | SSIM | identity | rank-1 | first is ahead (dB) | codes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for angle, rows in summary["angles"].items():
        for name in names:
            row = rows[name]
            ahead, low, high = row.get("behind", (0, 0, 0))
            cells = [
                angle,
                name,
                *told(row, MEASURES),
                f"{ahead:+.2f} [{low:+.2f}, {high:+.2f}]" if "behind" in row else "",
                told_codes(row),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="views: folder or Hub id")
    parser.add_argument("--split", default="test")
    parser.add_argument("--embedding", required=True, help="that took no part in training")
    parser.add_argument(
        "--pipeline", action="append", required=True, metavar="NAME=WEIGHTS[,WEIGHTS]"
    )
    parser.add_argument("--limit", type=int, default=0, help="photos; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of how views are made tiny")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    given = parser.parse_args(argv)
    keep_freed_memory()
    if given.limit < 0:
        raise UserError("--limit starts at 0")
    if given.out and not given.out.parent.is_dir():
        raise UserError(f"{given.out} cannot be written: {given.out.parent} is no folder")
    parsed = [parse_pipeline(text, given.embedding) for text in given.pipeline]
    pipelines = [*(one for one, _ in parsed), Pipeline(BICUBIC)]
    names = [one.name for one in pipelines]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"--pipeline {twice[0]} is there twice")
    test = ViewSet.open(given.data, given.split, given.limit)
    judge = FaceEmbedding.load(given.embedding)
    summary = {
        "weights_sha256": {one.name: hashes for one, hashes in parsed},
        "identity_network_sha256": sha256(find_frozen(given.embedding, "a face embedding")),
        **summarize(test, score(pipelines, test, judge, TinyConfig(), given.seed)),
    }
    if given.out:
        write_figures(summary, given.out)
    print(table(summary, names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
