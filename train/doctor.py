"""Look through a dataset of pairs for what would spoil a training.

    python -m train.doctor FOLDER

Told are pictures that cannot be read or that are of other shapes, portraits that show another face
than their photo, copies, people on both sides of a split, and a missing licence. The exit code is
1 where something would spoil the training, 2 where nothing could be looked at.
"""

import argparse
import functools
import hashlib
import random
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from tqdm import tqdm

from face_destyle import images
from face_destyle.errors import PictureError
from train.console import one_line_errors
from train.data import alignments, column, open_pairs
from train.photos import load_table
from train.structure import (
    FEWEST,
    OUTLIER,
    TELLING,
    UNRELATED,
    belonging,
    copies,
    difference_hash,
    luma,
    straightened,
    structure,
)

NAMED = 5  # places that a line names
# A portrait whose shape differs by more than this from its photo's is cut differently.
SHAPE = 0.02
FEW = 0.01  # the share of wrong pairs that a training outlives


@dataclass(frozen=True)
class Finding:
    """Something found.

    Attributes:
        kind: one word for it.
        stops: whether it would spoil the training.
        text: one line that says what, where, and what to do.
    """

    kind: str
    stops: bool
    text: str


@dataclass(frozen=True)
class Look:
    """What is kept of one picture: pixels, luma, difference hash, and the hash of its file."""

    size: tuple[int, int]
    luma: torch.Tensor
    bits: torch.Tensor
    digest: str


@dataclass(frozen=True)
class Split:
    """One split, looked at.

    Attributes:
        name: of the split.
        rows: that were looked at.
        portraits, photos: by row; what could not be read is not there.
        broken: one line for each of these.
        styles, identities, keys: of every row of the split.
        alignments: of every row, `(rows, 2, 3)`.
    """

    name: str
    rows: list[int]
    portraits: dict[int, Look]
    photos: dict[int, Look]
    broken: list[str]
    styles: list[str]
    identities: list[Any]
    keys: list[Any]
    alignments: torch.Tensor

    def place(self, row: int) -> str:
        """What a row is called in a report."""
        return f"{self.name} row {row}"

    def once(self) -> dict[Any, int]:
        """One row for each photo."""
        found: dict[Any, int] = {}
        for row in self.photos:
            found.setdefault(self.keys[row], row)
        return found


def look(content: dict[str, Any]) -> Look:
    """Read a stored picture.

    Raises:
        PictureError: it cannot be read.
    """
    stored = content["bytes"] or content["path"]
    whole = images.load_picture(stored)
    square = images.centre_square(whole)
    data = stored if isinstance(stored, bytes) else Path(stored).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Look(whole.size, luma(square), difference_hash(square), digest)


def read_split(source: str, name: str, sample: int) -> Split:
    """Look at the pictures of a split: all of them, or `sample` rows."""
    pairs = open_pairs(source, name)
    rows = list(range(len(pairs)))
    if sample and sample < len(rows):
        rows = sorted(random.Random(0).sample(rows, sample))
    keys = column(pairs, "photo_key", None)
    keys = [row if key is None else key for row, key in enumerate(keys)]
    # A photo that is there in several styles is read once.
    first = {keys[row]: row for row in reversed(rows)}
    portraits, broken = _read(pairs, "portrait", rows, name)
    singles, more = _read(pairs, "photo", list(first.values()), name)
    photos = {row: singles[first[keys[row]]] for row in rows if first[keys[row]] in singles}
    return Split(
        name,
        rows,
        portraits,
        photos,
        broken + more,
        [str(style) for style in column(pairs, "style", "")],
        column(pairs, "identity", None),
        keys,
        alignments(pairs, source),
    )


def _read(
    pairs: Dataset, name: str, rows: list[int], split: str
) -> tuple[dict[int, Look], list[str]]:
    stored = pairs.select_columns([name])
    found: dict[int, Look] = {}
    broken = []
    with ThreadPoolExecutor() as pool:
        results = pool.map(functools.partial(_try, stored, name), rows)
        what = f"{split} {name}s"
        bar = tqdm(results, total=len(rows), unit="picture", desc=what, disable=None)
        for row, result in zip(rows, bar, strict=True):
            if isinstance(result, Look):
                found[row] = result
            else:
                broken.append(f"{split} row {row}, {name}: {result}")
    return found, broken


def _try(stored: Dataset, name: str, row: int) -> Look | str:
    try:
        return look(stored[row][name])
    except PictureError as error:
        return " ".join(str(error).split())


def named(places: Iterable[str]) -> str:
    """The first few of them, and how many more."""
    listed = list(places)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return f"{', '.join(listed[:NAMED])}{more}"


def unreadable(split: Split) -> list[Finding]:
    """Pictures that cannot be read."""
    if not split.broken:
        return []
    text = f"{len(split.broken)} pictures cannot be read: {named(split.broken)}"
    return [Finding("unreadable", True, text)]


def sizes(split: Split) -> list[Finding]:
    """Portraits cut differently from their photos; small and oblong pictures."""
    both = [row for row in split.rows if row in split.portraits and row in split.photos]
    shapes = {
        row: [look.size[0] / look.size[1] for look in (split.portraits[row], split.photos[row])]
        for row in both
    }
    found = []
    cut = [row for row in both if abs(shapes[row][0] / shapes[row][1] - 1) > SHAPE]
    if cut:
        text = (
            f"{len(cut)} portraits have another shape than their photo, so that the face lies "
            f"elsewhere in its centre square: {named(map(split.place, cut))}"
        )
        found.append(Finding("shape", True, text))
    oblong = [row for row in both if abs(shapes[row][1] - 1) > SHAPE]
    if oblong:
        text = (
            f"{len(oblong)} photos are not square, the centre square is taken: "
            f"{named(map(split.place, oblong))}"
        )
        found.append(Finding("shape", False, text))
    small = [row for row in both if min(split.photos[row].size) < images.FACE_SIDE]
    if small:
        text = (
            f"{len(small)} photos have less than {images.FACE_SIDE} pixels and are enlarged: "
            f"{named(map(split.place, small))}"
        )
        found.append(Finding("small", False, text))
    return found


def mismatched(split: Split) -> list[Finding]:
    """Portraits that show another face than their photo, by the coarse structure of both."""
    once = split.once()
    if len(once) < FEWEST:
        text = f"{split.name} has fewer than {FEWEST} photos: whether the pairs match is not told"
        return [Finding("mismatch", False, text)]
    number = {key: index for index, key in enumerate(once)}
    photos = structure(_stack([split.photos[row] for row in once.values()]))
    found = []
    for style in sorted(set(split.styles)):
        members = [
            row
            for row in split.rows
            if split.styles[row] == style and row in split.portraits and row in split.photos
        ]
        if len(members) < FEWEST:
            continue
        portraits = _stack([split.portraits[row] for row in members])
        own = torch.tensor([number[split.keys[row]] for row in members])
        straight = straightened(portraits, split.alignments[members])
        score, best = belonging(structure(straight), photos, own)
        found += _judged(split, style or "the dataset", members, score, best)
    return found


def _stack(looks: list[Look]) -> torch.Tensor:
    return torch.stack([look.luma for look in looks]).float() / 255


def _judged(
    split: Split, style: str, members: list[int], score: torch.Tensor, best: torch.Tensor
) -> list[Finding]:
    if score.median() < UNRELATED:
        text = (
            f"{split.name}: portraits of {style} have nothing in common with their photos: "
            "are the two listed in the same order?"
        )
        return [Finding("mismatch", True, text)]
    if best.float().mean() < TELLING:
        text = (
            f"{split.name}: portraits of {style} are too unlike their photos to tell which do not "
            "match; give the column alignment where faces are turned"
        )
        return [Finding("mismatch", False, text)]
    chosen = ((score < OUTLIER) & ~best).tolist()
    wrong = [row for row, is_wrong in zip(members, chosen, strict=True) if is_wrong]
    if not wrong:
        return []
    text = (
        f"{len(wrong)} of {len(members)} portraits of {style} seem to show another face than "
        f"their photo: {named(map(split.place, wrong))}"
    )
    return [Finding("mismatch", len(wrong) > FEW * len(members), text)]


def contradictions(split: Split) -> list[Finding]:
    """The same portrait twice: with another photo, or for nothing."""
    rows_of: dict[str, list[int]] = {}
    for row, one in split.portraits.items():
        if row in split.photos:
            rows_of.setdefault(one.digest, []).append(row)
    groups = [rows for rows in rows_of.values() if len(rows) > 1]
    differ = [rows for rows in groups if len({split.photos[row].digest for row in rows}) > 1]
    found = []
    if differ:
        places = (f"{split.place(rows[0])} and {rows[1]}" for rows in differ)
        text = f"{len(differ)} portraits are there with different photos: {named(places)}"
        found.append(Finding("contradiction", True, text))
    same = [rows for rows in groups if rows not in differ]
    if same:
        places = (f"{split.place(rows[0])} and {rows[1]}" for rows in same)
        found.append(Finding("copy", False, f"{len(same)} pairs are there twice: {named(places)}"))
    return found


def copied_photos(splits: list[Split]) -> list[Finding]:
    """Photos that are copies of another: within a split, or, worse, across."""
    places = [(split, row) for split in splits for row in split.once().values()]
    if not places:
        return []
    hashes = torch.stack([split.photos[row].bits for split, row in places])
    across: list[str] = []
    within: list[str] = []
    for one, two in copies(hashes):
        (first, row), (second, other) = places[one], places[two]
        text = f"{first.place(row)} and {second.place(other)}"
        (within if first is second else across).append(text)
    found = []
    if across:
        text = f"{len(across)} photos are on both sides of a split: {named(across)}"
        found.append(Finding("leak", True, text))
    if within:
        text = f"{len(within)} photos are copies of another: {named(within)}"
        found.append(Finding("copy", False, text))
    return found


def shared_people(splits: list[Split]) -> list[Finding]:
    """People on both sides of a split."""
    people = {split.name: {str(i) for i in split.identities if i is not None} for split in splits}
    found = []
    for one, two in combinations(people, 2):
        both = sorted(people[one] & people[two])
        if both:
            text = f"{len(both)} people are in {one} and in {two}: {named(both)}"
            found.append(Finding("leak", True, text))
    if not any(people.values()):
        text = "no column identity: whether people are on both sides of a split is not told"
        found.append(Finding("identity", False, text))
    return found


def licence(source: str, columns: Iterable[str]) -> list[Finding]:
    """Whether a folder says what it may be used for, in its card or in a column."""
    card = Path(source) / "README.md"
    if not Path(source).is_dir() or {"licence", "license"} & set(columns):
        return []
    if card.is_file() and "license" in _front_matter(card.read_text()):
        return []
    text = f"no licence: say it in {card}, as `license:` between two lines of ---"
    return [Finding("licence", False, text)]


def _front_matter(text: str) -> dict[str, Any]:
    parts = text.split("---\n")
    try:
        fields = yaml.safe_load(parts[1]) if text.startswith("---\n") and len(parts) > 2 else {}
    except yaml.YAMLError:
        fields = {}
    return fields if isinstance(fields, dict) else {}


def inspect(source: str, sample: int = 0) -> list[Finding]:
    """Everything found in a dataset of pairs, the worst first.

    Args:
        source: folder, parquet folder or Hub id.
        sample: look at the pictures of so many rows of each split; at all where it is 0.

    Raises:
        UserError: no pairs are there.
    """
    table = load_table(source)
    splits = [read_split(source, name, sample) for name in table]
    found = [
        finding
        for split in splits
        for check in (unreadable, sizes, mismatched, contradictions)
        for finding in check(split)
    ]
    found += copied_photos(splits) + shared_people(splits)
    found += licence(source, next(iter(table.values())).column_names)
    return sorted(found, key=lambda finding: not finding.stops)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 where something stops, 2 on bad arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pairs", metavar="FOLDER", help="pairs: folder, parquet folder or Hub id")
    parser.add_argument("--sample", type=int, default=0, help="rows of each split; 0 for all")
    given = parser.parse_args(argv)
    found = inspect(given.pairs, given.sample)
    for finding in found:
        print(f"{'stop' if finding.stops else 'note'}: {finding.kind}: {finding.text}")  # noqa: T201
    stops = sum(finding.stops for finding in found)
    verdict = f"{stops} would spoil a training" if stops else "nothing would spoil a training"
    print(f"{len(found)} findings, {verdict}")  # noqa: T201
    return 1 if stops else 0


if __name__ == "__main__":
    sys.exit(main())
