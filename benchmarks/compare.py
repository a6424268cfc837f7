"""The paired difference of two networks on the same portraits.

    python -m train.evaluate --weights cards/fdnn ... --scores ours.npz
    python -m benchmarks.evaluate --weights PIX2PIX ... --scores rival.npz
    python -m benchmarks.compare ours.npz rival.npz --style wave --style mosaic

Of each photo the scores of its portraits in the given styles are averaged; the interval is over
photos, because portraits of the same photo do not vary independently.
"""

import argparse
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_destyle.errors import UserError
from face_destyle.metrics import bootstrap_interval
from train.console import one_line_errors

# Measure, its digits after the point, its unit.
MEASURES = (("psnr", 3, " dB"), ("ssim", 4, ""))

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """Ours minus the rival's: the mean over photos and the 95 % interval of that mean."""

    measure: str
    ours: float
    rival: float
    mean: float
    low: float
    high: float
    photos: int


def read_scores(path: Path) -> dict[str, Array]:
    """The arrays of a file that `train.evaluate --scores` wrote, sorted by style and photo.

    Raises:
        UserError: no such file, another kind of file, or a portrait that is in it twice.
    """
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as scores: {error}") from error
    wanted = ("style", "photo", *(f"recovered_{measure}" for measure, _, _ in MEASURES))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{path} has no {missing[0]}: write it by train.evaluate --scores")
    scores = {name: found[name] for name in wanted}
    order = np.lexsort((scores["photo"], scores["style"]))
    scores = {name: values[order] for name, values in scores.items()}
    same = [scores[name][1:] == scores[name][:-1] for name in ("style", "photo")]
    if np.logical_and(*same).any():
        raise UserError(f"{path} holds a portrait twice")
    return scores


def compare(ours: Path, rival: Path, styles: list[str], common: bool = False) -> list[Difference]:
    """The paired differences, over the given styles, or over all.

    Args:
        ours: scores.
        rival: scores of the other network.
        styles: compare these; all where none is given.
        common: leave out what is in one file alone.

    Raises:
        UserError: a file that holds no scores, files of different portraits, an unknown style.
    """
    first, second = read_scores(ours), read_scores(rival)
    known = sorted(set(first["style"]) | set(second["style"]))
    for style in styles:
        if style not in known:
            raise UserError(f"no scores of the style {style}; there are {', '.join(known)}")
    first, second = _only(first, styles), _only(second, styles)
    if common:
        first, second = _within(first, second), _within(second, first)
    if not len(first["style"]):
        raise UserError(f"{ours} and {rival} have no portrait in common")
    if not all(np.array_equal(first[name], second[name]) for name in ("style", "photo")):
        raise UserError(
            f"{ours} and {rival} are not of the same portraits: "
            "evaluate both with the same --data, --split, --style and --limit, or give --common"
        )
    return [_difference(first, second, measure) for measure, _, _ in MEASURES]


def _only(scores: dict[str, Array], styles: list[str]) -> dict[str, Array]:
    if not styles:
        return scores
    chosen = np.isin(scores["style"], styles)
    return {name: values[chosen] for name, values in scores.items()}


def _within(scores: dict[str, Array], others: dict[str, Array]) -> dict[str, Array]:
    """The rows whose style and photo are among the others'."""
    known = set(zip(others["style"].tolist(), others["photo"].tolist(), strict=True))
    rows = zip(scores["style"].tolist(), scores["photo"].tolist(), strict=True)
    chosen = np.array([row in known for row in rows], dtype=bool)
    return {name: values[chosen] for name, values in scores.items()}


def _difference(first: dict[str, Array], second: dict[str, Array], measure: str) -> Difference:
    ours = _by_photo(first, measure)
    rival = _by_photo(second, measure)
    low, high = bootstrap_interval(ours - rival)
    return Difference(
        measure,
        float(ours.mean()),
        float(rival.mean()),
        float((ours - rival).mean()),
        low,
        high,
        len(ours),
    )


def _by_photo(scores: dict[str, Array], measure: str) -> Array:
    _, photo = np.unique(scores["photo"], return_inverse=True)
    values = scores[f"recovered_{measure}"].astype(np.float64)
    means: Array = np.bincount(photo, weights=values) / np.bincount(photo)
    return means


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where the files cannot be compared."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("ours", type=Path, metavar="OURS.npz")
    parser.add_argument("rival", type=Path, metavar="RIVAL.npz")
    parser.add_argument("--style", action="append", default=[], help="all where none is given")
    parser.add_argument("--common", action="store_true", help="portraits that both files have")
    given = parser.parse_args(argv)
    differences = compare(given.ours, given.rival, given.style, given.common)
    styles = ", ".join(given.style) or "all styles"
    print(f"{styles}; {differences[0].photos} photos; recovered, ours - rival")
    for found, (measure, digits, unit) in zip(differences, MEASURES, strict=True):
        print(
            f"{measure.upper()}: {found.ours:.{digits}f} - {found.rival:.{digits}f} = "
            f"{found.mean:+.{digits}f}{unit}, "
            f"95 % interval [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
