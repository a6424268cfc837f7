"""How many faces of painted and stylized pictures each finder finds.

    python -m benchmarks.finders --paintings FOLDER --pairs TEST_PAIRS --yunet YUNET.onnx

A face counts as found where both eyes lie within a quarter of their distance of the true ones. Of
paintings these are told by `lm5_xy` in FOLDER/metadata.csv, of test pairs by the column `alignment`
(train.stylize). OpenCV 4 has the cascades; it and OpenCV 5 read different files of YuNet: what the
installed one cannot do is left out.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from PIL import Image

from face_destyle import images
from face_destyle.errors import UserError, WeightsError
from face_destyle.faces import FRAME_EYES, CascadeFinder, Finder, YuNetFinder, has_cascades
from face_destyle.models.similarity import transform
from train.console import one_line_errors
from train.data import alignments, column, decode, open_pairs
from train.figures import write_figures

NEAR = 0.25  # of the distance between the eyes

Case = tuple[Image.Image, npt.NDArray[np.float64]]  # a picture, and its true eyes (2, 2)


def paintings(folder: Path) -> Iterator[Case]:
    """Pictures with their eyes.

    Raises:
        UserError: no metadata.csv with the columns `file` and `lm5_xy`.
    """
    try:
        with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
            told = [(row["file"], row["lm5_xy"]) for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise UserError(f"{folder} has no metadata.csv with file and lm5_xy: {error}") from error
    for name, numbers in told:
        points = np.array(numbers.split(), float).reshape(-1, 2)
        yield images.load_picture(folder / name), points[:2]


def portraits(pairs: Dataset, true: torch.Tensor, style: str, photos: int) -> Iterator[Case]:
    """The portraits of the first photos in one style; `true` alignments are `(rows, 2, 3)`."""
    names = column(pairs, "style", "all")
    rows = list(islice((row for row, name in enumerate(names) if name == style), photos))
    half = images.FACE_SIDE / 2
    frame = (true.new_tensor(FRAME_EYES) + 0.5) / half - 1
    eyes = (transform(true[rows], frame).double().numpy() + 1) * half - 0.5
    for row, own in zip(rows, eyes, strict=True):
        pixels = decode(pairs[row]["portrait"], images.FACE_SIDE)
        yield Image.fromarray(pixels.permute(1, 2, 0).numpy()), own


def measure(finder: Finder, cases: Iterator[Case]) -> dict[str, Any]:
    """How many pictures there are, and in how many the face is found.

    The error is the mean distance of both eyes from the true ones of a found face, in percent of
    the true distance between them; its median over the pictures.
    """
    pictures, errors = 0, []
    for picture, true in cases:
        pictures += 1
        apart = math.dist(*true)
        away = [np.hypot(*(np.array(f.eyes) - true).T) / apart for f in finder(picture)]
        nearest = min(away, key=lambda distances: distances.max(), default=None)
        if nearest is not None and nearest.max() < NEAR:
            errors.append(100 * nearest.mean())
    median = round(float(np.median(errors)), 1) if errors else None
    return {"pictures": pictures, "found": len(errors), "error_percent": median}


def finders(yunet: Path | None) -> dict[str, Finder]:
    """Those that the installed OpenCV has.

    Raises:
        UserError: none.
    """
    found: dict[str, Finder] = {"cascades": CascadeFinder()} if has_cascades() else {}
    if yunet:
        try:
            found["yunet"] = YuNetFinder(yunet)
        except WeightsError as error:
            if not found:
                raise
            print(error, file=sys.stderr)  # noqa: T201
    if not found:
        raise UserError("this OpenCV has no cascades: give --yunet FILE")
    return found


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--paintings", type=Path, help="folder with metadata.csv")
    parser.add_argument("--pairs", help="turned or aligned test pairs")
    parser.add_argument("--photos", type=int, default=25, help="portraits of each style")
    parser.add_argument("--yunet", type=Path, help="its ONNX file")
    parser.add_argument("--out", type=Path, help="write the figures here")
    given = parser.parse_args(argv)
    sets: dict[str, Callable[[], Iterator[Case]]] = {}
    if given.paintings:
        sets["paintings"] = partial(paintings, given.paintings)
    if given.pairs:
        pairs = open_pairs(given.pairs, "test")
        true = alignments(pairs, given.pairs)
        for style in sorted(set(column(pairs, "style", "all"))):
            sets[style] = partial(portraits, pairs, true, style, given.photos)
    if not sets:
        raise UserError("give --paintings, --pairs or both")
    figures = {
        name: {of: measure(finder, cases()) for of, cases in sets.items()}
        for name, finder in finders(given.yunet).items()
    }
    for name, rows in figures.items():
        for of, row in rows.items():
            print(f"{name:9} {of:16} {row['found']} of {row['pictures']}, {row['error_percent']} %")  # noqa: T201
    if given.out:
        write_figures(figures, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
