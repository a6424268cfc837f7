"""Real photos of turned heads: the face made of 16 x 16 pixels beside the person's frontal photo.

    python -m benchmarks.two_stage_real --data VIEWS --stretch 1.3333 \
        --embedding EMBEDDING.safetensors --pipeline tann=cards/fdnn-tann --grid real.png

The folder has a metadata.csv with `file`, `identity`, `pose` (front, left, right) and five
landmarks (`lmx_eyeL`, `lmy_eyeL`, ... in pixels of the file). A person who was seen from the front
and from a side takes part; the side is laid upright by its landmarks, as train.views does, and
reduced. `as it is` is that square before it was reduced. No pipeline has seen such photos.
"""

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.two_stage import parse_pipeline
from face_destyle import images, metrics
from face_destyle.errors import PictureError, UserError
from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.pasting import invert, similarity
from train.console import one_line_errors
from train.evaluate_views import BATCH, BICUBIC, Pipeline, resized
from train.figures import write_figures
from train.frozen import FaceEmbedding
from train.tiny import SIDE

POINTS = ("eyeL", "eyeR", "nose", "mouthL", "mouthR")
SIDES = ("left", "right")
AS_IS = "as it is"
EDGE = images.FACE_SIDE


@dataclass(frozen=True)
class Heads:
    """Turned heads and the frontal faces of the same people.

    Attributes:
        turned: `(N, 3, 128, 128)` in [-1, 1], upright.
        poses: of them, of `SIDES`.
        people: whose they are, rows of `frontal`.
        frontal: `(M, 3, 128, 128)`, one a person.
    """

    turned: torch.Tensor
    poses: list[str]
    people: torch.Tensor
    frontal: torch.Tensor

    @classmethod
    def read(cls, folder: Path, stretch: float) -> "Heads":
        """Read a folder; `stretch` is how many times wider its pictures are to be made.

        Raises:
            UserError: no metadata.csv with these columns, or nobody seen from both.
            PictureError: a picture that cannot be read, or landmarks that are none.
        """
        path = folder / "metadata.csv"
        try:
            rows = list(csv.DictReader(path.open(newline="")))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        columns = ["file", "identity", "pose", *(f"lm{a}_{p}" for p in POINTS for a in "xy")]
        missing = [name for name in columns if not rows or name not in rows[0]]
        if missing:
            raise UserError(f"{path} has no column {missing[0]}")
        fronts: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["pose"] == "front":
                fronts.setdefault(row["identity"], row)
        sides = [row for row in rows if row["pose"] in SIDES and row["identity"] in fronts]
        if not sides:
            raise UserError(f"{path}: nobody is seen from the front and from a side")
        people = list(dict.fromkeys(row["identity"] for row in sides))
        return cls(
            images.to_tensor([upright(folder, row, stretch) for row in sides], images.FACE_SIDE),
            [row["pose"] for row in sides],
            torch.tensor([people.index(row["identity"]) for row in sides]),
            images.to_tensor(
                [upright(folder, fronts[one], stretch) for one in people], images.FACE_SIDE
            ),
        )


def upright(folder: Path, row: dict[str, str], stretch: float) -> Image.Image:
    """The face of a row of metadata.csv in the frame, RGB, 128 x 128.

    The similarity is the one that brings the landmarks nearest to those of the frame, as in
    train.render; fitted the other way round it would make a turned head too large.

    Raises:
        PictureError: a picture that cannot be read, or landmarks that are none.
    """
    picture = images.load_picture(folder / row["file"])
    picture = picture.resize(
        (round(picture.width * stretch), picture.height), Image.Resampling.BICUBIC
    )
    points = np.array([[float(row[f"lm{axis}_{name}"]) for axis in "xy"] for name in POINTS])
    if not np.isfinite(points).all() or not np.ptp(points, axis=0).any():
        raise PictureError(f"{folder / row['file']}: landmarks that are none")
    points[:, 0] *= stretch
    # The frame of a turned head may reach beyond the picture: its edges go on.
    edges = ((EDGE, EDGE), (EDGE, EDGE), (0, 0))
    picture = Image.fromarray(np.pad(np.asarray(picture), edges, "edge"))
    points += EDGE
    frame = np.array(FRAME_LANDMARKS, np.float32)
    back = invert(similarity(points.astype(np.float32), frame)).ravel().tolist()
    size = (images.FACE_SIDE, images.FACE_SIDE)
    return picture.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)


@torch.inference_mode()
def recover_all(pipelines: list[Pipeline], heads: Heads) -> dict[str, torch.Tensor]:
    """What each pipeline makes of the heads, `(N, 3, 128, 128)`; and they as they are."""
    tiny = resized(heads.turned, SIDE)
    found = {one.name: torch.cat([one(part) for part in tiny.split(BATCH)]) for one in pipelines}
    return found | {AS_IS: heads.turned}


@torch.inference_mode()
def summarize(
    heads: Heads, found: dict[str, torch.Tensor], judge: FaceEmbedding
) -> dict[str, dict[str, Any]]:
    """Identity cosine to the person's frontal photo, and rank-1 among all of them, by pose."""
    true = torch.cat([judge(part) for part in heads.frontal.split(BATCH)])
    numbers = torch.arange(len(true))
    summary: dict[str, dict[str, Any]] = {}
    for name, fakes in found.items():
        vectors = torch.cat([judge(part) for part in fakes.split(BATCH)])
        cosine = metrics.identity_cosine(vectors, true[heads.people])
        hits = metrics.rank1(vectors, true, heads.people, numbers).float()
        summary[name] = {}
        for pose in SIDES:
            chosen = torch.tensor([one == pose for one in heads.poses])
            if chosen.any():
                summary[name][pose] = {
                    "photos": int(chosen.sum()),
                    "identity": round(float(cosine[chosen].mean()), 4),
                    "rank1": round(float(hits[chosen].mean()), 4),
                }
    return summary


def grid(heads: Heads, found: dict[str, torch.Tensor], columns: int) -> Image.Image:
    """Rows: what the networks see, what each pipeline makes of it, the frontal photo."""
    seen = torch.nn.functional.interpolate(
        resized(heads.turned, SIDE), size=(images.FACE_SIDE,) * 2, mode="nearest"
    )
    rows = [seen, *found.values(), heads.frontal[heads.people]]
    return images.to_picture(torch.cat([torch.cat(list(row[:columns]), 2) for row in rows], 1))


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="folder with metadata.csv")
    parser.add_argument("--stretch", type=float, default=1.0, help="of its pictures, sideways")
    parser.add_argument("--embedding", required=True, help="that took no part in training")
    parser.add_argument(
        "--pipeline", action="append", required=True, metavar="NAME=WEIGHTS[,WEIGHTS]"
    )
    parser.add_argument("--grid", type=Path, metavar="FILE.png")
    parser.add_argument("--columns", type=int, default=16, help="heads in the grid")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    given = parser.parse_args(argv)
    if given.stretch <= 0 or given.columns < 1:
        raise UserError("--stretch is above 0, --columns starts at 1")
    for path in (given.out, given.grid):
        if path and not path.parent.is_dir():
            raise UserError(f"{path} cannot be written: {path.parent} is no folder")
    pipelines = [parse_pipeline(text, given.embedding)[0] for text in given.pipeline]
    heads = Heads.read(given.data, given.stretch)
    found = recover_all([*pipelines, Pipeline(BICUBIC)], heads)
    summary = summarize(heads, found, FaceEmbedding.load(given.embedding))
    if given.out:
        write_figures(summary, given.out)
    if given.grid:
        grid(heads, found, given.columns).save(given.grid)
    for name, poses in summary.items():
        for pose, row in poses.items():
            print(
                f"{name}, {pose}: identity {row['identity']:.3f}, rank-1 {row['rank1']:.1%} "
                f"({row['photos']} photos)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
