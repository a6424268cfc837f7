"""Train the attribute classifier on photos with CelebA's labels.

    python -m train.classify --photos PHOTOS --out FOLDER --identities even [--stylized PAIRS]

Two classifiers that share no identity come of `--identities even` and `odd`: one helps to train
a network, the other judges it. With `--stylized` portraits are learnt from beside the photos, so
that portraits can be read too. A run takes minutes and is not resumed: it is started again.

A threshold is where the false positives are as frequent, among the faces without the attribute,
as the false negatives among those with it: on the photos of the split `validation`, and on those
of a tenth of the training identities, which are held out, since rare attributes may be missing
among the former.
"""

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import default_collate
from tqdm import tqdm

from face_destyle import AttributeClassifier, AttributeClassifierConfig, images
from face_destyle.attributes import COUNT, NAMES
from face_destyle.errors import UserError
from face_destyle.metrics import equal_error
from face_destyle.models.base import inference, weights_file
from face_destyle.models.similarity import similarity, warp
from train.augment import AugmentConfig, augment, draw, mirror
from train.console import one_line_errors
from train.data import ALIGNED, alignments, column, decode, open_pairs
from train.editing import labels, stated
from train.ema import EMA
from train.figures import write_figures
from train.frozen import sha256
from train.losses import attributes_loss
from train.memory import keep_freed_memory
from train.photos import Photo, open_photos, read_photos
from train.precision import Precision, in_bf16
from train.robust import attacked

Half = Literal["all", "even", "odd"]
# Colours stay what they are: they are among what is to be read.
CHANGES = AugmentConfig(plain=0.2, contrast=0.15, offset=0.15, sharpness=0.4, noise=0.05)
# How far a face may lie from the frame: radians, part of its size, half sides.
ASTRAY = (0.06, 0.06, 0.05, 0.05)
BATCH = 64  # in use


@dataclass(frozen=True)
class ClassifyArguments:
    """The recipe of one classifier."""

    photos: str
    stylized: str = ""  # pairs, of which the portraits are learnt from too
    identities: Half = "all"
    portraits: int = 1  # of each photo, in styles that are drawn
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    heaviest: float = 8.0  # largest weight of a rare answer
    robust: float = 0.0  # length of the changes that it learns to withstand
    held_out: float = 0.1  # part of the training identities that thresholds are set on
    precision: Precision = "auto"
    ema_half_life: int = 5000  # in images
    limit: int = 0  # the first so many labelled photos; 0 for all
    seed: int = 0
    config: AttributeClassifierConfig = AttributeClassifierConfig()


@dataclass(frozen=True)
class Faces:
    """Aligned faces with their labels.

    Attributes:
        pixels: `(N, 3, 128, 128)` uint8.
        labels: `(N, 18)`: 1 with, 0 without, nan unknown.
        identities: who they are.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    identities: list[str]


def half_of(identity: str) -> Half:
    """To which half of mankind somebody belongs, by the name alone."""
    return "odd" if hashlib.sha256(identity.encode()).digest()[-1] % 2 else "even"


def is_held_out(identity: str, share: float) -> bool:
    """Whether somebody is left out of training, by the name alone; in either half as many are."""
    return hashlib.sha256(identity.encode()).digest()[0] < 256 * share


def of_half(identities: list[str], half: Half) -> list[int]:
    """The numbers of those that belong to it."""
    return [n for n, name in enumerate(identities) if half in ("all", half_of(name))]


def read_faces(dataset: Dataset, split: str, half: Half, limit: int = 0) -> Faces:
    """The labelled photos of a split, of one half of the identities.

    Raises:
        UserError: there are none, or a picture is broken.
    """
    known = labels(dataset, split)
    chosen = stated(known).tolist()
    found: list[Photo] = []
    rows: list[int] = []
    for row in tqdm(chosen, unit="photo", desc=f"reading {split}"):
        if limit and len(found) == limit:
            break
        (photo,) = read_photos(dataset, split, range(row, row + 1))
        if not isinstance(photo, Photo):
            raise UserError(" ".join(str(photo).split()))
        if half in ("all", half_of(photo.identity)):
            found.append(photo)
            rows.append(row)
    if not found:
        raise UserError(
            f"the split {split} has no photos with attributes of {half} identities: "
            f"it needs boolean columns such as {NAMES[-1]}"
        )
    pixels = images.to_pixels([photo.picture for photo in found], images.FACE_SIDE)
    return Faces(pixels, known[rows], [photo.identity for photo in found])


def read_portraits(source: str, half: Half, each: int, limit: int, seed: int) -> Faces:
    """Portraits of labelled photos of the split `train`, aligned ones, in styles that are drawn.

    Args:
        source: the pair dataset.
        half: of the identities.
        each: so many of a photo.
        limit: of the photos; 0 for all.
        seed: of the draw.

    Raises:
        UserError: there are none.
    """
    pairs = open_pairs(source, "train")
    known, rng = labels(pairs, source), np.random.default_rng(seed)
    aligned = (alignments(pairs, source) == ALIGNED).flatten(1).all(1)
    keys, people = column(pairs, "photo_key", None), column(pairs, "identity", None)
    names = [str(row if name is None else name) for row, name in enumerate(people)]
    of_photo: dict[Any, list[int]] = {}
    for row in stated(known).tolist():
        if aligned[row] and half in ("all", half_of(names[row])):
            of_photo.setdefault(row if keys[row] is None else keys[row], []).append(row)
    groups = list(of_photo.values())[: limit or None]
    if not groups:
        raise UserError(f"{source} has no aligned portraits with attributes of {half} identities")
    rows = [int(row) for group in groups for row in rng.permutation(group)[:each]]
    bar = tqdm(rows, unit="portrait", desc="reading portraits")
    pixels = torch.stack([decode(pairs[row]["portrait"], images.FACE_SIDE) for row in bar])
    return Faces(pixels, known[rows], [names[row] for row in rows])


def parted(faces: Faces, share: float) -> tuple[Faces, Faces]:
    """Those to learn from, and those that are held out."""
    held = np.array([is_held_out(name, share) for name in faces.identities], bool)
    kept, left = (
        Faces(faces.pixels[rows], faces.labels[rows], [faces.identities[row] for row in rows])
        for rows in (np.flatnonzero(~held), np.flatnonzero(held))
    )
    return kept, left


def joined(first: Faces, second: Faces) -> Faces:
    """Both, one after the other."""
    return Faces(
        torch.cat([first.pixels, second.pixels]),
        torch.cat([first.labels, second.labels]),
        first.identities + second.identities,
    )


def balance(known: torch.Tensor, heaviest: float) -> torch.Tensor:
    """What a "no" and a "yes" to each attribute weigh, `(2, 18)`: both answers as much in sum.

    Args:
        known: labels `(N, 18)`.
        heaviest: no weight is larger, lest a few rare faces are all that is learnt from.
    """
    count = (~known.isnan()).sum(0).clamp(min=1)
    yes = known.nan_to_num().sum(0)
    shares = torch.stack([count - yes, yes]).clamp(min=1) / count
    return (0.5 / shares).clamp(max=heaviest)


def batches(faces: Faces, size: int, epoch: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """An epoch's faces, shuffled and changed a little, with their labels."""
    order = np.random.default_rng((seed, epoch)).permutation(len(faces.pixels))
    for start in range(0, len(order) // size * size or len(order), size):
        rows = order[start : start + size]
        rngs = [np.random.default_rng((seed, epoch, int(row))) for row in rows]
        draws = default_collate([draw(CHANGES, rng) for rng in rngs])
        pictures = mirror(images.from_uint8(faces.pixels[rows]), draws)
        pictures = augment(pictures, pictures, pictures, draws)
        away = np.stack([rng.uniform(-1, 1, 4) * ASTRAY + (0, 1, 0, 0) for rng in rngs])
        matrix = similarity(torch.from_numpy(away.astype(np.float32)))
        yield warp(pictures, matrix), faces.labels[rows]


def train(arguments: ClassifyArguments, faces: Faces) -> AttributeClassifier:
    """A classifier with the averaged weights of a run, in eval mode, its thresholds at a half."""
    torch.manual_seed(arguments.seed)
    network = AttributeClassifier(arguments.config).train()
    average = EMA(network, arguments.ema_half_life)
    weights = balance(faces.labels, arguments.heaviest)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        fused=True,
    )
    size = arguments.batch_size
    steps = arguments.epochs * max(len(faces.pixels) // size, 1)
    # Ten steps are too few for a rise: its end would be its start, and OneCycleLR divides by it.
    rise = 0.1 if steps > 10 else 0.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.learning_rate, total_steps=steps, pct_start=rise
    )

    bf16 = in_bf16(arguments.precision, "cpu")

    def loss_on(pictures: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, bf16):
            logits = network(pictures)
        return attributes_loss(logits.float(), known, weights)

    seen = 0
    with tqdm(total=steps, unit_scale=size, unit="image", desc="training") as bar:
        for epoch in range(arguments.epochs):
            for pictures, known in batches(faces, size, epoch, arguments.seed):
                pictures = attacked(pictures, partial(loss_on, known=known), arguments.robust)
                loss = loss_on(pictures, known)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                seen += len(pictures)
                average.update(network, len(pictures), seen)
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return average.network  # type: ignore[return-value]


def margins(network: AttributeClassifier, pictures: torch.Tensor) -> torch.Tensor:
    """How far above its threshold each attribute is, in logits: `(N, 18)`.

    Args:
        network: the classifier.
        pictures: `(N, 3, 128, 128)`, uint8 or in [-1, 1].
    """
    borders = torch.tensor(network.config.thresholds).logit()
    found = []
    with inference(network):
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            part = images.from_uint8(part) if part.dtype == torch.uint8 else part
            found.append(network(part).float() - borders)
    return torch.cat(found).clone()


def with_thresholds(network: AttributeClassifier, photos: Faces) -> AttributeClassifier:
    """The same weights, with thresholds at equal error; a half where the labels do not say."""
    plain = AttributeClassifier(replace(network.config, thresholds=(0.5,) * COUNT))
    plain.load_state_dict(network.state_dict())
    found = margins(plain, photos.pixels)
    logits = [equal_error(found[:, n], photos.labels[:, n]) for n in range(COUNT)]
    probabilities = torch.tensor(logits, dtype=torch.float64).nan_to_num(0.0).sigmoid()
    thresholds = tuple(probabilities.clamp(1e-6, 1 - 1e-6).tolist())
    tuned = AttributeClassifier(replace(network.config, thresholds=thresholds))
    tuned.load_state_dict(network.state_dict())
    return tuned.eval()


def accuracies(found: torch.Tensor, known: torch.Tensor) -> dict[str, dict[str, Any]]:
    """For each attribute how often margins `(N, 18)` decide as labels `(N, 18)` say.

    Returns:
        `with` and `without`: how many faces there are; `accuracy`; `balanced`: the mean of the
        accuracies among either, None where there are none.
    """
    table = {}
    for place, name in enumerate(NAMES):
        right = (found[:, place] > 0) == (known[:, place] == 1)
        yes, no = right[known[:, place] == 1], right[known[:, place] == 0]
        count = len(yes) + len(no)
        both = bool(len(yes) and len(no))
        table[name] = {
            "with": len(yes),
            "without": len(no),
            "accuracy": round(int(yes.sum() + no.sum()) / count, 4) if count else None,
            "balanced": round((yes.float().mean() + no.float().mean()).item() / 2, 4)
            if both
            else None,
        }
    return table


def means(table: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Over the attributes that have the figure; empty where none has."""
    figures = {}
    for measure in ("accuracy", "balanced"):
        values = [row[measure] for row in table.values() if row[measure] is not None]
        if values:
            figures[measure] = round(float(np.mean(values)), 4)
    return figures


def markdown(metrics: dict[str, Any]) -> str:
    """The accuracies on test photos as a table."""
    lines = [
        "| attribute | threshold | with | without | accuracy | balanced accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in metrics["attributes"].items():
        balanced = "" if row["balanced"] is None else f"{row['balanced']:.1%}"
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        lines.append(
            f"| {name} | {row['threshold']:.3f} | {row['with']} | {row['without']} "
            f"| {accuracy} | {balanced} |"
        )
    whole = metrics["mean"]
    cells = [f"{whole[m]:.1%}" if m in whole else "" for m in ("accuracy", "balanced")]
    lines.append(f"| **mean** | | | | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def classify(arguments: ClassifyArguments, out: Path) -> dict[str, Any]:
    """Train, set thresholds, measure, write the folder; returns the content of metrics.json.

    Raises:
        UserError: the folder is not empty, or there are no labelled photos.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: choose another --out")
    table = open_photos(arguments.photos)
    for split in ("train", "validation", "test"):
        if split not in table:
            raise UserError(f"{arguments.photos} has no split {split}; it has {', '.join(table)}")
    half = arguments.identities
    read = read_faces(table["train"], "train", half, arguments.limit)
    photos, held_out = parted(read, arguments.held_out)
    tuning = joined(read_faces(table["validation"], "validation", "all"), held_out)
    test = read_faces(table["test"], "test", "all")
    faces = photos
    if arguments.stylized:
        portraits = read_portraits(
            arguments.stylized, half, arguments.portraits, arguments.limit, arguments.seed
        )
        faces = joined(photos, parted(portraits, arguments.held_out)[0])
    network = with_thresholds(train(arguments, faces), tuning).half()
    network.save_pretrained(out)
    network = AttributeClassifier.from_pretrained(out)  # figures are those of the file
    known = accuracies(margins(network, test.pixels), test.labels)
    for threshold, row in zip(network.config.thresholds, known.values(), strict=True):
        row["threshold"] = threshold
    metrics = {
        "weights_sha256": sha256(weights_file(str(out))),
        "parameters": sum(p.numel() for p in network.parameters()),
        "identities": half,
        "training": {
            "photos": len(photos.pixels),
            "portraits": len(faces.pixels) - len(photos.pixels),
            "identities": len(set(faces.identities)),
        },
        "held_out_photos": len(held_out.pixels),
        "validation_photos": len(tuning.pixels) - len(held_out.pixels),
        "test_photos": len(test.pixels),
        "mean": means(known),
        "attributes": known,
        "arguments": {
            name: value
            for name, value in asdict(arguments).items()
            if name not in ("photos", "stylized", "config")
        },
    }
    write_figures(metrics, out / "metrics.json")
    return metrics


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    plain = ClassifyArguments("")
    parser.add_argument("--photos", required=True, help="folder, parquet folder or Hub id")
    parser.add_argument("--out", required=True, type=Path, help="a folder that is empty or new")
    parser.add_argument("--stylized", default="", help="pairs, to read portraits too")
    parser.add_argument("--portraits", type=int, default=plain.portraits, help="of each photo")
    parser.add_argument("--identities", choices=["all", "even", "odd"], default="all")
    parser.add_argument("--epochs", type=int, default=plain.epochs)
    parser.add_argument("--batch-size", type=int, default=plain.batch_size)
    parser.add_argument("--precision", choices=get_args(Precision), default=plain.precision)
    parser.add_argument("--learning-rate", type=float, default=plain.learning_rate)
    parser.add_argument(
        "--robust",
        type=float,
        default=plain.robust,
        metavar="LENGTH",
        help="learn to withstand changes of this length, as one vector of numbers in [-1, 1];\n"
        "4 for one that trains a generator",
    )
    parser.add_argument("--limit", type=int, default=0, help="photos to learn from; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(argv))
    keep_freed_memory()
    for name in ("portraits", "epochs", "batch_size"):
        if given[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} starts at 1")
    if not 0 <= given["robust"] < math.inf:
        raise UserError("--robust starts at 0")
    if given["limit"] < 0:
        raise UserError("--limit starts at 0, which is all")
    out = given.pop("out")
    metrics = classify(ClassifyArguments(**given), out)
    print(markdown(metrics))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
