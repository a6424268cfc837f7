"""Tiny turned faces: one network beside two in a row and beside bicubic, by the angle of the head.

    python -m benchmarks.two_stage --data VIEWS --embedding EMBEDDING.safetensors \
        --pipeline tann=cards/fdnn-tann \
        --pipeline hallucinated-then-frontalized=SR/weights,FRONTALIZE/weights \
        --pipeline frontalized-then-hallucinated=FRONTALIZE16/weights,SR_FRONTAL/weights \
        --out benchmarks/results/two-stage.json

A pipeline is a name and its networks, in the order that a face goes through them; between two it
is an 8-bit picture, resized where the next one takes another size. What each was trained by stands
in benchmarks/two_stage_*.yaml. Views are those of train.views; every one is made tiny by numbers
that depend on its name alone. Of the first pipeline it is told how far it is ahead of each other
one, in dB, with the 95 % interval over photos.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from torch.utils.data import default_collate
from tqdm import tqdm

from face_destyle import FaceModel, images, metrics
from face_destyle.errors import UserError
from train.console import one_line_errors
from train.data import decode
from train.evaluate import judge_sha256, write_figures
from train.frozen import FaceEmbedding
from train.memory import keep_freed_memory
from train.tiny import TinyConfig, make_tiny, named_tiny
from train.triplet import distances, open_views

MEASURES = ("psnr", "ssim", "identity", "rank1")
CODES = ("own", "other")
BICUBIC = "bicubic"
BATCH = 32

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pipeline:
    """Networks that a tiny face goes through; none of them for bicubic enlargement."""

    name: str
    stages: tuple[FaceModel, ...] = ()

    @classmethod
    def parse(cls, text: str, embedding: str) -> "Pipeline":
        """Read `name=weights,weights`.

        Raises:
            UserError: written otherwise, no such weights, or weights that were trained with the
                embedding that judges.
        """
        name, separator, weights = text.partition("=")
        if not (name and separator and weights):
            raise UserError(f"--pipeline {text}: write name=weights or name=weights,weights")
        for one in weights.split(","):
            judge_sha256(one, embedding)
        return cls(name, tuple(FaceModel.from_pretrained(one) for one in weights.split(",")))

    def __call__(self, tiny: torch.Tensor) -> torch.Tensor:
        """`(N, 3, 16, 16)` -> `(N, 3, 128, 128)`, both in [-1, 1]."""
        pictures = tiny
        for stage in self.stages:
            photos = stage(resized(pictures, stage.input_size)).photo
            pictures = images.from_uint8(images.to_uint8(photos))
        return resized(pictures, images.FACE_SIDE)

    def codes(self, tiny: torch.Tensor) -> torch.Tensor | None:
        """The latent codes `(N, D)` of the first network; None where it has none."""
        if not self.stages:
            return None
        return getattr(self.stages[0](resized(tiny, self.stages[0].input_size)), "code", None)


@dataclass(frozen=True)
class ViewSet:
    """Views of the photos that are evaluated.

    Attributes:
        views: the whole split.
        rows: those of it that are evaluated; the other lists are in their order.
        angles: of the heads, in whole degrees to either side.
        keys: of the photos.
        people: whose they are, as numbers.
        frontal: the row of the frontal view, by key.
    """

    views: Any
    rows: list[int]
    angles: Array
    keys: list[str]
    people: torch.Tensor
    frontal: dict[str, int]

    @classmethod
    def open(cls, source: str, split: str, limit: int) -> "ViewSet":
        """Open a split; `limit` is a number of photos, 0 for all.

        Raises:
            UserError: no views, or of some photo no frontal one.
        """
        views = open_views(source, split)
        yaws, every, identities = (list(views[name]) for name in ("yaw", "photo_key", "identity"))
        chosen = set(list(dict.fromkeys(every))[: limit or None])
        rows = [row for row, key in enumerate(every) if key in chosen]
        frontal = {every[row]: row for row in rows if yaws[row] == 0}
        missing = chosen - set(frontal)
        if missing:
            raise UserError(f"{source}: photo {sorted(missing)[0]} has no frontal view")
        people = np.unique([identities[row] for row in rows], return_inverse=True)[1]
        return cls(
            views,
            rows,
            np.array([round(abs(yaws[row])) for row in rows]),
            [every[row] for row in rows],
            torch.from_numpy(people),
            frontal,
        )

    def tiny(self, rows: list[int], config: TinyConfig, seed: int) -> torch.Tensor:
        """The views of these rows made tiny, `(N, 3, 16, 16)` in [-1, 1]."""
        records = [self.views[row] for row in rows]
        pixels = torch.stack([decode(record["view"], images.FACE_SIDE) for record in records])
        names = [f"{record['photo_key']}/{record['yaw']:g}" for record in records]
        draws = default_collate([named_tiny(config, seed, name) for name in names])
        return make_tiny(images.from_uint8(pixels), draws)


def resized(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures `(N, 3, S, S)` in [-1, 1] at another side: bicubic, antialiased."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


@torch.inference_mode()
def score(
    pipelines: list[Pipeline], test: ViewSet, judge: FaceEmbedding, config: TinyConfig, seed: int
) -> dict[str, dict[str, Array]]:
    """Every measure of every row, by pipeline; `own` and `other` where it has codes."""
    found: dict[str, dict[str, list[torch.Tensor]]] = {
        one.name: {name: [] for name in (*MEASURES[:2], "vectors", *CODES)} for one in pipelines
    }
    true: list[torch.Tensor] = []
    # Somebody else for each face: the photos half a turn further in the list.
    keys = list(test.frontal)
    stranger = dict(zip(keys, keys[len(keys) // 2 :] + keys[: len(keys) // 2], strict=True))
    for start in tqdm(range(0, len(test.rows), BATCH), unit_scale=BATCH, unit="view"):
        part = slice(start, start + BATCH)
        rows, names = test.rows[part], test.keys[part]
        photos = images.from_uint8(
            torch.stack([decode(test.views[row]["photo"], images.FACE_SIDE) for row in rows])
        )
        true.append(judge(photos))
        tiny = test.tiny(rows, config, seed)
        # Another draw than the row's own: where the view is frontal, it is not the same picture.
        own = test.tiny([test.frontal[name] for name in names], config, seed + 1)
        other = test.tiny([test.frontal[stranger[name]] for name in names], config, seed + 1)
        for one in pipelines:
            fake, scores = one(tiny), found[one.name]
            scores["psnr"].append(metrics.psnr(fake, photos))
            scores["ssim"].append(metrics.ssim(fake, photos))
            scores["vectors"].append(judge(fake))
            codes = one.codes(tiny)
            if codes is not None:
                for name, frontal in zip(CODES, (own, other), strict=True):
                    reference = one.codes(frontal)
                    assert reference is not None
                    scores[name].append(distances(codes, reference))
    return {name: _arrays(scores, torch.cat(true), test) for name, scores in found.items()}


def _arrays(
    scores: dict[str, list[torch.Tensor]], true: torch.Tensor, test: ViewSet
) -> dict[str, Array]:
    joined = {name: torch.cat(values) for name, values in scores.items() if values}
    vectors = joined.pop("vectors")
    _, first = np.unique(np.array(test.keys), return_index=True)
    hits = metrics.rank1(vectors, true[first], test.people, test.people[first])
    joined |= {"identity": metrics.identity_cosine(vectors, true), "rank1": hits.float()}
    return {name: values.numpy() for name, values in joined.items()}


def summarize(test: ViewSet, scores: dict[str, dict[str, Array]]) -> dict[str, Any]:
    """Means by angle, and how far the first pipeline is ahead of each other one in PSNR."""
    first = next(iter(scores))
    angles: dict[str, Any] = {}
    for angle in sorted(set(test.angles.tolist())):
        chosen = test.angles == angle
        keys = np.array(test.keys)[chosen]
        rows: dict[str, Any] = {"views": int(chosen.sum()), "photos": len(set(keys))}
        for name, measures in scores.items():
            rows[name] = {m: round(float(v[chosen].mean()), 4) for m, v in measures.items()}
            if name != first:
                gap = (scores[first]["psnr"] - measures["psnr"])[chosen]
                rows[name]["behind"] = _interval(gap, keys)
        angles[str(angle)] = rows
    return {"angles": angles}


def _interval(gap: Array, keys: Array) -> list[float]:
    """Mean, low, high of a difference; the two sides of a head are one photo."""
    _, photo = np.unique(keys, return_inverse=True)
    means = np.bincount(photo, weights=gap.astype(np.float64)) / np.bincount(photo)
    return [round(value, 3) for value in (float(means.mean()), *metrics.bootstrap_interval(means))]


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
                f"{row['psnr']:.2f}",
                f"{row['ssim']:.3f}",
                f"{row['identity']:.3f}",
                f"{row['rank1']:.1%}",
                f"{ahead:+.2f} [{low:+.2f}, {high:+.2f}]" if "behind" in row else "",
                f"{row['own']:.3g} / {row['other']:.3g}" if "own" in row else "",
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
    pipelines = [Pipeline.parse(text, given.embedding) for text in given.pipeline]
    pipelines.append(Pipeline(BICUBIC))
    names = [one.name for one in pipelines]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"--pipeline {twice[0]} is there twice")
    test = ViewSet.open(given.data, given.split, given.limit)
    judge = FaceEmbedding.load(given.embedding)
    summary = summarize(test, score(pipelines, test, judge, TinyConfig(), given.seed))
    if given.out:
        write_figures(summary, given.out)
    print(table(summary, names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
