"""The one table of figures, for our weights and for the rivals.

    python -m train.evaluate --weights cards/fdnn --data TEST_PAIRS
    python -m train.evaluate --weights cards/fdnn --data TEST_PAIRS \
        --embedding mobilefacenet_xiaoccer.safetensors --out cards/fdnn/metrics.json

Every figure is taken on 8-bit RGB in the aligned frame: PSNR on RGB, SSIM (Gaussian 11 x 11,
sigma 1.5) and FSIM on luma, identity as the cosine of face embeddings, and rank-1 retrieval with
the recovered face as the query and all true test photos as the gallery. Without a face embedding
the last two are not measured.

Portraits that are turned (train.stylize --turns, --angles) are given as they are. Of a network
that says how it found them, that is held against the truth, in groups of true angles.

A network of tiny turned faces is measured on the views of train.views, by the angle of the head
and beside bicubic enlargement (train.evaluate_views).
"""

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from face_destyle import FaceModel, images, metrics
from face_destyle.errors import UserError
from train import evaluate_views
from train.console import one_line_errors
from train.data import alignments, column, decode, open_pairs
from train.evaluate_alignment import alignment_errors, alignment_table, summarize_alignment
from train.figures import MEASURES, header, judge_sha256, mean_of, means, told_change, write_figures
from train.frozen import FaceEmbedding
from train.groups import group_figures, people
from train.memory import keep_freed_memory
from train.recipe import recipe_beside
from train.tiny import SIDE

PIXEL_MEASURES = ("psnr", "ssim", "fsim")
BATCH = 32
# Options that say nothing of views.
OF_PAIRS = ("style", "seen", "variants", "margin", "apart", "people")


@dataclass(frozen=True)
class TestSet:
    """The rows of a pair dataset that are evaluated.

    Attributes:
        pairs: the whole split.
        rows: which of it are evaluated; the others are lists in their order.
        styles: of the portraits.
        identities: who it is; the key of the photo where the dataset does not say.
        keys: of the photos; of `stored_key` where the dataset does not say.
        alignments: `(rows, 2, 3)`, frame -> portrait.
    """

    pairs: Dataset
    rows: list[int]
    styles: list[str]
    identities: list[str]
    keys: list[Any]
    alignments: torch.Tensor

    @classmethod
    def open(
        cls,
        source: str,
        split: str,
        styles: list[str],
        limit: int,
        variants: int = 1,
        margin: int = 0,
        apart: bool = False,
    ) -> "TestSet":
        """Open a split.

        Args:
            source: the pair dataset.
            split: of it.
            styles: take these only; all where none is given.
            limit: photos of each style; 0 for all.
            variants: so many of each photo and style.
            margin: take photos only that had so many pixels of real surroundings to turn in.
            apart: take the others instead.

        Raises:
            UserError: nothing is left.
        """
        pairs = open_pairs(source, split)
        names, numbers = column(pairs, "style", "all"), column(pairs, "variant", 0)
        identities, keys = column(pairs, "identity", None), column(pairs, "photo_key", None)
        margins = column(pairs, "margin", 0)
        counts: dict[str, int] = {}
        rows = []
        for row, (name, variant) in enumerate(zip(names, numbers, strict=True)):
            if ((margins[row] or 0) < margin) != apart or (styles and name not in styles):
                continue
            counts[name] = counts.get(name, 0) + (variant == 0)
            if variant < variants and counts[name] <= (limit or len(pairs)):
                rows.append(row)
        missing = sorted(set(styles) - set(names))
        if missing or not rows:
            wanted = missing[0] if missing else split
            kept = f"less than {margin}" if apart else f"{margin} or more"
            narrowed = f" with a margin of {kept}" if margin and not missing else ""
            raise UserError(f"{source} has no pairs of {wanted}{narrowed}")
        keys = [stored_key(pairs, row) if keys[row] is None else keys[row] for row in rows]
        named = [identities[row] for row in rows]
        return cls(
            pairs,
            rows,
            [names[row] for row in rows],
            [str(k if who is None else who) for who, k in zip(named, keys, strict=True)],
            keys,
            alignments(pairs, source)[rows],
        )


def stored_key(pairs: Dataset, row: int) -> Any:
    """What is the same for all pairs of one photo: its path, or its content inside a parquet.

    A path there is a bare name, which photos of several folders may share.
    """
    photo = pairs[row]["photo"]
    return hashlib.sha256(photo["bytes"]).hexdigest() if photo["bytes"] else photo["path"] or row


@torch.inference_mode()
def score(
    model: FaceModel, test: TestSet, embedding: FaceEmbedding | None, name: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Measure every row: `(recovered, as it is)`, each a dict of arrays in their order.

    Of a network that aligns, `recovered` has `angle_error` and `shift_error` too. Without an
    embedding neither has `identity` and `rank1`.
    """
    scores: list[dict[str, Any]] = [{m: [] for m in PIXEL_MEASURES} for _ in range(2)]
    vectors: list[list[torch.Tensor]] = [[], [], []]
    aligned: list[torch.Tensor] = []
    embedded_photos: dict[Any, torch.Tensor] = {}
    for start in tqdm(
        range(0, len(test.rows), BATCH), unit_scale=BATCH, unit="portrait", desc=name
    ):
        rows = test.rows[start : start + BATCH]
        records = [test.pairs[row] for row in rows]
        portraits, photos = (
            images.from_uint8(torch.stack([decode(r[c], images.FACE_SIDE) for r in records]))
            for c in ("portrait", "photo")
        )
        found = model(portraits)
        recovered = images.from_uint8(images.to_uint8(found.photo))
        if found.alignment is not None:
            aligned.append(found.alignment)
        keys = test.keys[start : start + BATCH]
        likeness = feature_similarity((recovered, portraits), photos, keys)
        for kind, fake in enumerate((recovered, portraits)):
            scores[kind]["psnr"].append(metrics.psnr(fake, photos))
            scores[kind]["ssim"].append(metrics.ssim(fake, photos))
            scores[kind]["fsim"].append(likeness[kind])
        if embedding:
            for kind, faces in enumerate((recovered, portraits)):
                vectors[kind].append(embedding(faces))
            vectors[2].append(embed_once(embedding, photos, keys, embedded_photos))
    results = [{m: torch.cat(v).numpy() for m, v in figures.items()} for figures in scores]
    if embedding:
        embedded = [torch.cat(found) for found in vectors]
        for kind in range(2):
            results[kind] |= likeness_of_people(embedded[kind], embedded[2], test)
    errors = alignment_errors(torch.cat(aligned), test.alignments) if aligned else {}
    return results[0] | errors, results[1]


def embed_once(
    embedding: FaceEmbedding,
    photos: torch.Tensor,
    keys: list[Any],
    known: dict[Any, torch.Tensor],
) -> torch.Tensor:
    """Unit vectors `(N, D)` of photos; those in `known` by their keys are taken from there."""
    fresh = {key: row for row, key in enumerate(keys) if key not in known}
    if fresh:
        known |= zip(fresh, embedding(photos[list(fresh.values())]), strict=True)
    return torch.stack([known[key] for key in keys])


def likeness_of_people(
    query: torch.Tensor, true: torch.Tensor, test: TestSet
) -> dict[str, np.ndarray]:
    """`identity` and `rank1` of embedded faces `(N, D)` and their true photos, each `(N,)`."""
    # The gallery holds every photo once, though it is there in several styles.
    _, first = np.unique(np.array(test.keys, dtype=str), return_index=True)
    people = torch.from_numpy(np.unique(test.identities, return_inverse=True)[1])
    hits = metrics.rank1(query, true[first], people, people[first])
    return {
        "identity": metrics.identity_cosine(query, true).numpy(),
        "rank1": hits.float().numpy(),
    }


def feature_similarity(
    fakes: tuple[torch.Tensor, torch.Tensor], photos: torch.Tensor, keys: list[Any]
) -> torch.Tensor:
    """FSIM of two batches with their photos: `(2, N)`. A photo is gone through once."""
    found = torch.empty(2, len(photos))
    for key in dict.fromkeys(keys):
        rows = [row for row, other in enumerate(keys) if other == key]
        both = torch.cat([fake[rows] for fake in fakes])
        found[:, rows] = metrics.fsim(both, photos[rows[:1]]).view(2, -1)
    return found


def summarize(
    test: TestSet, seen: list[str], recovered: dict[str, np.ndarray], as_is: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Means for each style, and over the styles that were and were not trained on."""
    names = np.array(test.styles)
    measured = [m for m in MEASURES if m in recovered]
    styles: dict[str, dict[str, Any]] = {}
    for name in sorted(set(test.styles), key=lambda n: (n not in seen, n)):
        chosen = names == name
        styles[name] = {
            "seen": name in seen,
            "portraits": int(chosen.sum()),
            "recovered": means(recovered, chosen, measured),
            "input": means(as_is, chosen, measured),
        }
    groups = {}
    for group, wanted in (("seen", True), ("unseen", False)):
        members = [row for row in styles.values() if row["seen"] is wanted]
        if members:
            groups[group] = {
                kind: mean_of([row[kind] for row in members]) for kind in ("recovered", "input")
            }
    return {"styles": styles, "means": groups}


def table(summary: dict[str, Any]) -> str:
    """The figures as a Markdown table, input -> recovered; a second one on the alignment.

    What was not measured is "-".
    """
    lines = [
        "| style | | PSNR (dB) | SSIM | FSIM | identity | rank-1 |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(n, "seen" if r["seen"] else "unseen", r) for n, r in summary["styles"].items()]
    rows += [(f"**mean {n}**", "", r) for n, r in summary["means"].items()]
    apart = summary.get("apart", {"means": {}})
    rows += [
        (f"mean {n}, {apart['photos']} photos of less margin", "", r)
        for n, r in apart["means"].items()
    ]
    for name, kind, row in rows:
        cells = told_change(row["input"], row["recovered"], tuple(MEASURES))
        lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join([*lines, *alignment_table(summary.get("alignment", {}))])


def seen_styles(weights: str) -> list[str]:
    """The styles that the recipe beside the weights was trained on.

    Raises:
        UserError: no recipe, or one that does not name them.
    """
    recipe = recipe_beside(weights)
    if not recipe:
        raise UserError(f"{weights} has no recipe.yaml: name the styles it learnt from by --seen")
    styles = (recipe.get("data") or {}).get("styles")
    if not styles:
        raise UserError(f"{weights} was trained on all styles of its pairs: name them by --seen")
    return list(styles)


def load_model(weights: str) -> FaceModel:
    """The network that is evaluated; a UserError where it does not take what pairs hold."""
    model = FaceModel.from_pretrained(weights)
    if model.input_size != images.FACE_SIDE:
        elsewhere = ": train.evaluate measures it on views" if model.input_size == SIDE else ""
        raise UserError(
            f"{weights} takes faces of {model.input_size} pixels, not {images.FACE_SIDE} as the "
            f"portraits of pairs have{elsewhere}"
        )
    return model


def evaluate(
    weights: str,
    data: str,
    embedding: str | None,
    split: str,
    styles: list[str],
    seen: list[str] | None,
    limit: int,
    variants: int = 1,
    margin: int = 0,
    apart: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Evaluate one published folder; returns the content of metrics.json and the raw scores.

    Without an embedding both are without identity and rank-1. With `apart` the means over the
    photos of less margin are there too, in a part of their own.

    Raises:
        UserError: weights, pairs or embedding that cannot be used; styles that are not told.
    """
    model = load_model(weights)
    judged_by = judge_sha256(weights, embedding) if embedding else None
    seen = seen_styles(weights) if seen is None else seen
    test = TestSet.open(data, split, styles, limit, variants, margin)
    judge = FaceEmbedding.load(embedding) if embedding else None
    recovered, as_is = score(model, test, judge, Path(weights).name)
    summary = {
        **header(weights, model, len(set(test.keys)), len(set(test.identities)), judged_by),
        "margin": margin,
        **summarize(test, seen, recovered, as_is),
        **summarize_alignment(test.alignments, recovered),
    }
    if apart:
        others = TestSet.open(data, split, styles, limit, variants, margin, apart=True)
        scores = score(model, others, judge, f"{Path(weights).name}, apart")
        found = summarize(others, seen, *scores)["means"]
        summary["apart"] = {"photos": len(set(others.keys)), "means": found}
    raw = {f"recovered_{m}": values for m, values in recovered.items()} | {
        f"input_{m}": values for m, values in as_is.items()
    }
    return summary, raw | {"style": np.array(test.styles), "photo": np.array(test.keys, dtype=str)}


def evaluate_pairs(given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`evaluate` by the options of the command, with the means of groups of people.

    Raises:
        UserError: as `evaluate`, or of `--people`.
    """
    seen = None if given.seen is None else [name for name in given.seen.split(",") if name]
    if given.people and not given.embedding:
        raise UserError("--people compares identity too: give --embedding")
    groups = people(given.people, given.split) if given.people else {}
    summary, raw = evaluate(
        given.weights,
        given.data,
        given.embedding,
        given.split,
        given.style,
        seen,
        given.limit,
        given.variants,
        given.margin,
        given.apart,
    )
    if given.people:
        known = [name for name, row in summary["styles"].items() if row["seen"]]
        summary["groups"] = group_figures(raw, known, groups)
    return summary, raw


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = _parser()
    given = parser.parse_args(argv)
    keep_freed_memory()
    for path in (given.out, given.scores):
        if path and not path.parent.is_dir():
            raise UserError(f"{path} cannot be written: {path.parent} is no folder")
    if given.variants < 1 or min(given.limit, given.margin) < 0:
        raise UserError("--variants starts at 1, --limit and --margin at 0")
    if given.apart and not given.margin:
        raise UserError("--apart measures the photos of less margin: give --margin")
    model = FaceModel.from_pretrained(given.weights)
    if model.input_size == SIDE:
        of_pairs = [n for n in OF_PAIRS if getattr(given, n) != parser.get_default(n)]
        if of_pairs:
            named = ", ".join(f"--{name}" for name in of_pairs)
            raise UserError(f"{given.weights} is measured on views: leave out {named}")
        summary, raw = evaluate_views.evaluate(
            model, given.weights, given.data, given.embedding, given.split, given.limit
        )
        text = evaluate_views.table(summary)
    else:
        summary, raw = evaluate_pairs(given)
        text = table(summary)
    if given.out:
        write_figures(summary, given.out)
    if given.scores:
        np.savez_compressed(given.scores, **raw)  # type: ignore[arg-type]
    print(text)  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="name, folder or Hub id")
    parser.add_argument(
        "--data", required=True, help="pairs, or views: folder, parquet folder or Hub id"
    )
    parser.add_argument(
        "--embedding",
        help="face embedding that took no part in training (docs/training.md says where one is);\n"
        "without it identity and rank-1 are not measured",
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--style", action="append", default=[], help="all where none is given")
    parser.add_argument("--seen", help="comma-separated; else from recipe.yaml beside the weights")
    parser.add_argument(
        "--limit", type=int, default=0, help="photos, of pairs in each style; 0 for all"
    )
    parser.add_argument("--variants", type=int, default=1, help="of each photo and style")
    parser.add_argument(
        "--margin", type=int, default=0, help="only photos with so much of their surroundings"
    )
    parser.add_argument(
        "--apart", action="store_true", help="measure the photos of less margin too, by themselves"
    )
    parser.add_argument(
        "--people", help="photos of --data with gender and age: means for groups of people too"
    )
    parser.add_argument("--out", type=Path, help="write metrics.json here")
    parser.add_argument("--scores", type=Path, help="write every single score here (.npz)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
