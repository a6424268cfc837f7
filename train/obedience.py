"""Whether recovered faces have the attributes that were asked for, and keep those that were not.

    python -m train.obedience --weights cards/fdnn-afrp --judge CLASSIFIER --data TEST_PAIRS \
        --embedding mobilefacenet_xiaoccer.safetensors --out obedience.json

Obedience, of networks that take attributes: each attribute of each labelled face is asked for as
it is, and flipped, hair of one colour by asking for another. All else is left to the portrait, as a
visitor does who wants one thing changed, or, with `--rest true`, asked for as it is. Counted is how
often the decision of the classifier changes from the one face to the other, in the direction
asked; beside it how often it ends there, changed or not. Of the hair colours the decision is the
one that stands out most.

Preservation, of every network: how often gender and age group are read otherwise in the recovered
face than in the true photo.

Shares have their 95 % intervals (Wilson), for as many independent cases as there are photos: the
portraits of one photo in several styles are not independent.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from face_destyle import AttributeClassifier, FaceModel, images, metrics
from face_destyle.attributes import NAMES, Vector
from face_destyle.errors import UserError
from face_destyle.models.base import weights_file
from train.classify import accuracies, margins, means
from train.console import one_line_errors
from train.data import decode
from train.editing import HAIR_COLOURS, flip, labels
from train.evaluate import TestSet, load_model, seen_styles
from train.figures import judge_sha256, write_figures
from train.frozen import FaceEmbedding, sha256
from train.memory import keep_freed_memory
from train.recipe import recipe_beside, trained_with

BATCH = 32
COLOURS = [NAMES.index(name) for name in HAIR_COLOURS]
KEPT = ("Male", "Young")  # gender and age group
Rest = Literal["open", "true"]  # what is asked for beside the attribute that is flipped


@dataclass(frozen=True)
class Judges:
    """Who decides; neither took part in training.

    Attributes:
        classifier: of the attributes.
        embedding: of the identity.
    """

    classifier: AttributeClassifier
    embedding: FaceEmbedding


def classifier_sha256(weights: str, judge: str) -> str:
    """The hash of the attribute classifier that judges.

    Raises:
        UserError: the weights were trained to please it.
    """
    found = sha256(weights_file(judge))
    if found in trained_with(recipe_beside(weights)):
        raise UserError(f"{weights} was trained with {judge}: judge by another classifier")
    return found


def wilson(share: float, count: int) -> list[float]:
    """The 95 % interval of a share that was found among `count` cases."""
    if not count:
        return [0.0, 1.0]
    z = 1.959964
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return [round((middle - reach) / whole, 4), round((middle + reach) / whole, 4)]


def share_of(hits: np.ndarray, photos: np.ndarray) -> dict[str, Any]:
    """How often something is so, with its interval; None of no cases.

    Args:
        hits: whether it is, `(N,)`.
        photos: the number of each one's photo.
    """
    count = len(np.unique(photos))
    if not count:
        return {"share": None, "interval": None}
    share = float(hits.mean())
    return {"share": round(share, 4), "interval": wilson(share, count)}


@torch.inference_mode()
def recover(
    model: FaceModel, portraits: torch.Tensor, attributes: torch.Tensor | None = None
) -> torch.Tensor:
    """Photos as they are seen, 8 bits a channel: `(N, 3, 128, 128)` in [-1, 1]."""
    found = model(portraits) if attributes is None else model(portraits, attributes)
    return images.from_uint8(images.to_uint8(found.photo))


def read_batches(test: TestSet) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """The places among the rows of a test set, portraits and photos `(N, 3, 128, 128)`."""
    for start in range(0, len(test.rows), BATCH):
        places = list(range(start, min(start + BATCH, len(test.rows))))
        records = [test.pairs[test.rows[place]] for place in places]
        portraits, photos = (
            images.from_uint8(torch.stack([decode(r[c], images.FACE_SIDE) for r in records]))
            for c in ("portrait", "photo")
        )
        yield places, portraits, photos


class Wish(NamedTuple):
    """What is asked for, and the attribute that is to be there or not to be there then."""

    vector: Vector
    name: str
    present: bool


def granted(found: torch.Tensor, wishes: Sequence[Wish]) -> np.ndarray:
    """Whether margins `(N, 18)` show what was wished: `(N,)`.

    A hair colour is there where it stands out most of the four.
    """
    colours = found[:, COLOURS].argmax(1)
    answers = []
    for row, wish in enumerate(wishes):
        place = NAMES.index(wish.name)
        if wish.name in HAIR_COLOURS:
            there = COLOURS[int(colours[row])] == place
        else:
            there = bool(found[row, place] > 0)
        answers.append(there == wish.present)
    return np.array(answers)


def wish_for(labelled: Vector, name: str, turn: int) -> Wish:
    """A face's attributes with one flipped.

    Args:
        labelled: all that is known of the face.
        name: of the attribute.
        turn: which of the other colours hair of the colour `name` gets.
    """
    present = labelled[NAMES.index(name)] == 1
    if present and name in HAIR_COLOURS:
        free = [c for c in HAIR_COLOURS if labelled[NAMES.index(c)] != 1]
        other = free[turn % len(free)] if free else name
        return Wish(flip(labelled, labelled, name, other), other, True)
    return Wish(flip(labelled, labelled, name), name, not present)


def alone(known: torch.Tensor, name: str) -> torch.Tensor:
    """Attributes `(N, 18)` of which one is kept, and all else unknown."""
    kept = torch.full_like(known, math.nan)
    kept[:, NAMES.index(name)] = known[:, NAMES.index(name)]
    return kept


def measure_flips(
    model: FaceModel, test: TestSet, known: torch.Tensor, judges: Judges, rest: Rest = "open"
) -> dict[str, dict[str, np.ndarray]]:
    """For each attribute and flipped portrait: `changed`, `reached`, `cosine`, and its `place`.

    Args:
        model: takes attributes.
        test: the portraits.
        known: their labels, `(rows, 18)`; faces without are left out.
        judges: who decides.
        rest: what is asked for beside the attribute: nothing, or all as it is.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {
        name: {"changed": [], "reached": [], "cosine": [], "place": []} for name in NAMES
    }
    bar = tqdm(total=len(test.rows), unit="portrait", desc="flipping attributes")
    for places, portraits, _ in read_batches(test):
        bar.update(len(places))
        rows = (~known[places].isnan()).all(1).nonzero().squeeze(1)
        if not len(rows):
            continue
        portraits, own = portraits[rows], known[places][rows]
        where = np.array(places)[rows.numpy()]
        for name in NAMES:
            if rest == "open" or name == NAMES[0]:
                asked = alone(own, name) if rest == "open" else own
                plain = recover(model, portraits, asked)
                before, who = margins(judges.classifier, plain), embed(judges, plain)
            wishes = [
                wish_for(tuple(vector.tolist()), name, int(place))
                for vector, place in zip(asked, where, strict=True)
            ]
            edited = recover(model, portraits, torch.tensor([wish.vector for wish in wishes]))
            was = granted(before, wishes)
            now = granted(margins(judges.classifier, edited), wishes)
            row = found[name]
            row["changed"].append(now & ~was)
            row["reached"].append(now)
            row["cosine"].append((who * embed(judges, edited)).sum(1).numpy())
            row["place"].append(where)
    bar.close()
    if not found[NAMES[0]]["place"]:
        raise UserError("no portrait has all 18 attributes: nothing can be flipped")
    return {n: {k: np.concatenate(v) for k, v in row.items()} for n, row in found.items()}


@torch.inference_mode()
def embed(judges: Judges, photos: torch.Tensor) -> torch.Tensor:
    """Unit vectors `(N, 128)` of photos."""
    return judges.embedding(photos)


def summarize_flips(
    test: TestSet, seen: list[str], flips: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Shares for each attribute, their means, the worst; the means of seen and unseen styles."""
    numbers = np.unique(np.array(test.keys, dtype=str), return_inverse=True)[1]
    old = np.array([style in seen for style in test.styles])
    table: dict[str, Any] = {}
    for name, row in flips.items():
        photos = numbers[row["place"]]
        table[name] = {
            "portraits": len(photos),
            "photos": len(np.unique(photos)),
            "changed": share_of(row["changed"], photos),
            "reached": share_of(row["reached"], photos),
            "cosine": round(float(row["cosine"].mean()), 4),
        }
    by_share = {name: row["changed"]["share"] for name, row in table.items()}
    groups = {}
    for group, wanted in (("seen", True), ("unseen", False)):
        parts = [row["changed"][old[row["place"]] == wanted] for row in flips.values()]
        if len(parts[0]):
            groups[group] = round(float(np.mean([part.mean() for part in parts])), 4)
    return {
        "mean_changed": round(float(np.mean(list(by_share.values()))), 4),
        "mean_reached": round(float(np.mean([r["reached"]["share"] for r in table.values()])), 4),
        "mean_cosine": round(float(np.mean([row["cosine"] for row in table.values()])), 4),
        "worst": min(by_share, key=lambda name: by_share[name]),
        "mean_changed_by_styles": groups,
        "attributes": table,
    }


def measure_preservation(
    model: FaceModel, test: TestSet, known: torch.Tensor, judges: Judges
) -> tuple[dict[str, dict[str, np.ndarray]], torch.Tensor]:
    """What is read in recovered faces against true photos; and the margins of the photos.

    Returns:
        For each way to recover (`portrait` alone; `attributes`: with the true ones, where all are
        known): `psnr` in dB, and for gender and age group whether the decision `differs` from
        that on the photo, nan where the way is not open. The margins are `(rows, 18)`.
    """
    ways = ("portrait", "attributes") if model.takes_attributes else ("portrait",)
    names = ("psnr", *KEPT)
    found = {way: {name: np.full(len(test.rows), np.nan) for name in names} for way in ways}
    of_photos = torch.zeros(len(test.rows), len(NAMES))
    bar = tqdm(total=len(test.rows), unit="portrait", desc="recovering")
    for places, portraits, photos in read_batches(test):
        bar.update(len(places))
        of_photos[places] = margins(judges.classifier, photos)
        for way in ways:
            rows = torch.arange(len(places))
            if way == "attributes":
                rows = rows[(~known[places].isnan()).all(1)]
            if not len(rows):
                continue
            where = np.array(places)[rows.numpy()]
            own = known[where] if way == "attributes" else None
            recovered = recover(model, portraits[rows], own)
            found[way]["psnr"][where] = metrics.psnr(recovered, photos[rows]).numpy()
            read = margins(judges.classifier, recovered)
            for name in KEPT:
                column = NAMES.index(name)
                differs = (read[:, column] > 0) != (of_photos[where][:, column] > 0)
                found[way][name][where] = differs.numpy()
    bar.close()
    return found, of_photos


def summarize_preservation(
    test: TestSet, seen: list[str], found: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """For each way, over all, seen and unseen styles and each style: PSNR and what differs.

    `portrait_of_labelled` is the way without attributes on the portraits that have the other too.
    """
    numbers = np.unique(np.array(test.keys, dtype=str), return_inverse=True)[1]
    styles = np.array(test.styles)
    old = np.isin(styles, seen)
    if "attributes" in found:
        both = ~np.isnan(found["attributes"]["psnr"])
        plain = {m: np.where(both, v, np.nan) for m, v in found["portrait"].items()}
        found = found | {"portrait_of_labelled": plain}
    groups = {"all": np.ones_like(old), "seen": old, "unseen": ~old}
    groups |= {style: styles == style for style in dict.fromkeys(test.styles)}
    summary: dict[str, Any] = {}
    for way, values in found.items():
        for group, members in groups.items():
            chosen = members & ~np.isnan(values["psnr"])
            if chosen.any():
                row = {name: share_of(values[name][chosen], numbers[chosen]) for name in KEPT}
                summary.setdefault(way, {})[group] = {
                    "portraits": int(chosen.sum()),
                    "psnr": round(float(values["psnr"][chosen].mean()), 3),
                    "gender_differs": row["Male"],
                    "age_differs": row["Young"],
                }
    return summary


def judge_on_photos(test: TestSet, known: torch.Tensor, found: torch.Tensor) -> dict[str, Any]:
    """How well the classifier reads the true photos, each counted once."""
    _, first = np.unique(np.array(test.keys, dtype=str), return_index=True)
    table = accuracies(found[first], known[first])
    return {"mean": means(table), "attributes": table}


def evaluate(
    weights: str,
    judge: str,
    embedding: str,
    test: TestSet,
    known: torch.Tensor,
    seen: list[str],
    rest: Rest = "open",
) -> dict[str, Any]:
    """The content of the file of figures.

    Raises:
        UserError: the weights were trained with a judge, or take no portraits of pairs; nothing
            is labelled.
    """
    model = load_model(weights)
    hashes = {
        "weights_sha256": sha256(weights_file(weights)),
        "judge_sha256": classifier_sha256(weights, judge),
        "identity_network_sha256": judge_sha256(weights, embedding),
    }
    judges = Judges(AttributeClassifier.from_pretrained(judge), FaceEmbedding.load(embedding))
    kept, of_photos = measure_preservation(model, test, known, judges)
    summary = hashes | {
        "portraits": len(test.rows),
        "photos": len(set(test.keys)),
        "labelled_portraits": int((~known.isnan()).all(1).sum()),
        "judge": judge_on_photos(test, known, of_photos),
        "preservation": summarize_preservation(test, seen, kept),
    }
    if model.takes_attributes:
        flips = measure_flips(model, test, known, judges, rest)
        summary["obedience"] = {"rest": rest} | summarize_flips(test, seen, flips)
    return summary


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown: obedience where there is any, and preservation."""
    lines = []
    if "obedience" in summary:
        obedience = summary["obedience"]
        lines += [
            "| attribute | portraits | changed | 95 % | reached | judge, balanced | cosine |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in obedience["attributes"].items():
            low, high = row["changed"]["interval"]
            balanced = summary["judge"]["attributes"][name]["balanced"]
            lines.append(
                f"| {name} | {row['portraits']} | {row['changed']['share']:.1%} "
                f"| {low:.1%} to {high:.1%} | {row['reached']['share']:.1%} "
                f"| {'' if balanced is None else f'{balanced:.1%}'} | {row['cosine']:.3f} |"
            )
        balanced = summary["judge"]["mean"].get("balanced")
        lines += [
            f"| **mean** | | {obedience['mean_changed']:.1%} | | {obedience['mean_reached']:.1%} "
            f"| {'' if balanced is None else f'{balanced:.1%}'} | {obedience['mean_cosine']:.3f} |",
            "",
        ]
    lines += [
        "| from | portraits of | PSNR (dB) | gender differs | age group differs |",
        "|---|---|---|---|---|",
    ]
    for way, groups in summary["preservation"].items():
        lines += [
            f"| {way} | {group} | {row['psnr']:.2f} | {row['gender_differs']['share']:.1%} "
            f"| {row['age_differs']['share']:.1%} |"
            for group, row in groups.items()
        ]
    return "\n".join(lines)


def main_arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="name, folder or Hub id")
    parser.add_argument("--judge", required=True, help="classifier that took no part in training")
    parser.add_argument("--data", required=True, help="pairs: folder, parquet folder or Hub id")
    parser.add_argument("--embedding", required=True, help="face embedding that took no part")
    parser.add_argument("--split", default="test")
    parser.add_argument("--style", action="append", default=[], help="all where none is given")
    parser.add_argument("--seen", help="comma-separated; else from recipe.yaml beside the weights")
    parser.add_argument("--limit", type=int, default=0, help="photos of each style; 0 for all")
    parser.add_argument(
        "--rest", choices=["open", "true"], default="open", help="asked for beside the flipped one"
    )
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    given = main_arguments().parse_args(argv)
    keep_freed_memory()
    if given.out and not given.out.parent.is_dir():
        raise UserError(f"{given.out} cannot be written: {given.out.parent} is no folder")
    if given.limit < 0:
        raise UserError("--limit starts at 0, which is all")
    seen = seen_styles(given.weights) if given.seen is None else given.seen.split(",")
    test = TestSet.open(given.data, given.split, given.style, given.limit)
    known = labels(test.pairs, given.data)[test.rows]
    summary = evaluate(given.weights, given.judge, given.embedding, test, known, seen, given.rest)
    if given.out:
        write_figures(summary, given.out)
    print(table(summary))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
