"""Make training pairs of drawings and photos of the same faces, as train.stylize does of photos.

    python -m train.drawings --drawings SKETCHES --out PAIRS --turns --variants 20 --split train

The folder has a metadata.csv with a row a pair: `photo` and `sketch` (files), `identity`,
`repo_split` (training, testing), and where the eyes are in each file: `photo_eyeLx`,
`photo_eyeLy`, `photo_eyeRx`, `photo_eyeRy`, `sketch_eyeLx` and so on, in pixels; L is the eye at
the left of the picture. Both are brought to the frame by their eyes, and turned alike.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from tqdm import tqdm

from face_destyle import images
from face_destyle.errors import PictureError, UserError
from face_destyle.faces import Face
from face_destyle.pasting import compose, crop
from train.chunks import Chunk, Place, claim, encode_png, features, write_chunk
from train.console import one_line_errors
from train.misalign import MisalignConfig, Misalignment, named_misalignment, turn_photo
from train.photos import Photo, attribute_names, open_photos

STYLE = "sketch"
SPLITS = {"training": "train", "testing": "test"}
EYES = ("eyeLx", "eyeLy", "eyeRx", "eyeRy")
MARGIN = 16  # pixels of the frame that are kept around it, to turn in


@dataclass(frozen=True)
class DrawingArguments:
    """What a run makes; a folder that holds another run's pairs is refused."""

    drawings: str
    splits: tuple[str, ...] = ()
    variants: int = 1
    seed: int = 0
    misalign: bool = False
    like: str = ""
    bounds: MisalignConfig = MisalignConfig()

    def misalignment(self, variant: int, key: str) -> Misalignment:
        """How both pictures of a variant of a pair are turned."""
        if not self.misalign:
            return Misalignment()
        return named_misalignment(self.bounds, self.seed, key, variant)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metadata.csv.

    Raises:
        UserError: no such file, a column that is missing, a split that is unknown.
    """
    path = folder / "metadata.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: it says which photo each drawing is of") from error
    needed = ["photo", "sketch", "identity", "repo_split"]
    needed += [f"{kind}_{eye}" for kind in ("photo", "sketch") for eye in EYES]
    missing = [name for name in needed if not rows or rows[0].get(name) is None]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}")
    for row in rows:
        if row["repo_split"] not in SPLITS:
            raise UserError(f"{path}: repo_split is {row['repo_split']}; use {', '.join(SPLITS)}")
    return rows


def aligned(folder: Path, row: dict[str, str], kind: str) -> PILImage.Image:
    """The picture of a row, its face in the frame, with `MARGIN` pixels more on every side.

    Raises:
        PictureError: a picture that cannot be read, eyes that are no numbers; named.
    """
    path = folder / row[kind]
    try:
        left_x, left_y, right_x, right_y = (float(row[f"{kind}_{eye}"]) for eye in EYES)
        picture = images.load_picture(path)
    except (ValueError, PictureError) as error:
        raise PictureError(f"{path}: {error}") from error
    eyes = ((left_x, left_y), (right_x, right_y))
    face = Face((0, 0, picture.width, picture.height), 1.0, eyes)
    side = images.FACE_SIDE + 2 * MARGIN
    # `crop` gives a frame of 128: the wider one is that of a face as much smaller.
    wider = np.array([[side, 0, 0], [0, side, 0]]) / images.FACE_SIDE
    wider[:, 2] = (images.FACE_SIDE - side) / 2 + (side / images.FACE_SIDE - 1) / 2
    return crop(picture, compose(face.matrix, wider), side)


def make_pairs(arguments: DrawingArguments, out: Path) -> list[str]:
    """Make all pairs that are not there yet, one file a split.

    Returns:
        One line for each pair that could not be read, and was skipped.

    Raises:
        UserError: no metadata, a split that is not there, a folder of something else.
    """
    folder = Path(arguments.drawings)
    rows = read_rows(folder)
    present = sorted({SPLITS[row["repo_split"]] for row in rows})
    missing = [split for split in arguments.splits if split not in present]
    if missing:
        raise UserError(f"{folder} has no split {missing[0]}; it has {', '.join(present)}")
    names = _attributes(arguments.like)
    claim(out, "drawings.json", arguments, "pairs")
    broken: list[str] = []
    for split in arguments.splits or present:
        target = out / f"{split}-drawings.parquet"
        if not target.exists():
            chosen = [row for row in rows if SPLITS[row["repo_split"]] == split]
            broken += _make_file(arguments, split, chosen, target, names)
    for line in broken:
        tqdm.write(f"skipped {line}", file=sys.stderr)
    return broken


def _attributes(like: str) -> list[str]:
    """The attribute columns that the pairs of these photos have."""
    return attribute_names(next(iter(open_photos(like).values()))) if like else []


def _make_file(
    arguments: DrawingArguments,
    split: str,
    rows: Sequence[dict[str, str]],
    target: Path,
    names: list[str],
) -> list[str]:
    folder = Path(arguments.drawings)
    photos: list[Photo] = []
    drawings: list[PILImage.Image] = []
    broken = []
    for row in rows:
        try:
            context, drawing = (aligned(folder, row, kind) for kind in ("photo", "sketch"))
        except PictureError as error:
            broken.append(str(error))
            continue
        key = f"{split}-{row['identity']}"
        picture = turn_photo(context, MARGIN, Misalignment())
        unknown = dict.fromkeys(names)
        photos.append(Photo(key, picture, row["identity"], dict(unknown), context, MARGIN))
        drawings.append(drawing)
    drawn = [
        [arguments.misalignment(variant, photo.key) for photo in photos]
        for variant in range(arguments.variants)
    ]
    alignments = [[one.alignment().flatten().tolist() for one in variant] for variant in drawn]
    chunk = Chunk(split, target, features(names), photos, broken, [], alignments)
    with ThreadPoolExecutor() as pool:
        encoded = [pool.submit(encode_png, photo.picture) for photo in photos]
        portraits = {
            _place(index, variant): pool.submit(_turned, drawing, drawn[variant][index])
            for index, drawing in enumerate(drawings)
            for variant in range(arguments.variants)
        }
        write_chunk(chunk, portraits, encoded)
    return broken


def _place(index: int, variant: int) -> Place:
    return index, STYLE, variant


def _turned(drawing: PILImage.Image, misalignment: Misalignment) -> bytes:
    return encode_png(turn_photo(drawing, MARGIN, misalignment))


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 where pairs were skipped, 2 on bad arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--drawings", required=True, help="folder with metadata.csv")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--split", action="append", default=[], help="all where none is given")
    parser.add_argument("--variants", type=int, default=1, help="of each pair; makes sense turned")
    parser.add_argument("--turns", action="store_true", help="turn, shift and scale each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--like",
        default="",
        metavar="PHOTOS",
        help="have the attribute columns of these photos, to be loaded beside pairs of them",
    )
    given = parser.parse_args(argv)
    if given.variants < 1:
        raise UserError("--variants starts at 1")
    arguments = DrawingArguments(
        given.drawings,
        tuple(given.split),
        given.variants,
        given.seed,
        given.turns,
        given.like,
    )
    return 1 if make_pairs(arguments, given.out) else 0


if __name__ == "__main__":
    sys.exit(main())
