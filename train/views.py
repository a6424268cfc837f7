"""Make training pairs for frontalization: near-frontal photos -> heads turned by known angles.

    python -m train.views --photos PHOTOS --photos FRONTALS --mesh ict_facekit_head.npz --out VIEWS

A photo needs five `landmarks` (eyes, nose tip, mouth corners), and may have the 30 `fiducials` of
CFP. Training photos are seen from angles drawn for each; those of the other splits from the same
angles all, so that figures by angle are of the same photos. A source without splits is divided by
identity. The work is cut into chunks of photos; a chunk is one parquet file, complete or absent,
so a killed run goes on where it was. Under `torchrun` the processes share the chunks; the result
does not depend on how many there are.
"""

import argparse
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict, Features, Image, Value, disable_progress_bars
from PIL import Image as PILImage
from tqdm import tqdm

from face_destyle import images
from face_destyle.errors import PictureError, UserError
from face_destyle.faces import FRAME_EYES
from face_destyle.pasting import similarity
from train.chunks import claim, encode_png, row_counts, write_partial
from train.console import one_line_errors
from train.mesh import FIDUCIALS, FIVE, Array, Fitter, HeadMesh
from train.photos import IMAGE_COLUMNS, open_photos
from train.raster import fold, sample
from train.render import TurnedHead, View

ANGLES = (15, 30, 45, 60, 75, 90)  # to either side
YAW_JITTER = 7.5  # half the distance of the angles: training sees every angle
PITCH_SIGMA, PITCH_LIMIT = 7.0, 15.0
SPLITS = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
# Beyond this the fitted mesh is not that of the face: distances of the eyes.
MAX_RESIDUAL = 0.12

FEATURES = Features(
    {
        "view": Image(),
        "photo": Image(),
        "yaw": Value("float32"),
        "pitch": Value("float32"),
        "identity": Value("string"),
        "photo_key": Value("string"),
        "split": Value("string"),
    }
)


@dataclass(frozen=True)
class ViewsArguments:
    """What a run makes; a folder that holds another run's views is refused.

    Attributes:
        views: of each training photo: one at angle 0, the rest left and right in turn.
        widest: no angle is larger, in degrees.
        frontal: photos whose own yaw is larger are left out, in degrees.
        cover: photos that show less of the aligned square than this part are left out.
    """

    photos: tuple[str, ...]
    mesh: str
    views: int = 5
    widest: float = 90.0
    frontal: float = 12.0
    cover: float = 0.95
    limit: int = 0
    chunk: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Chunk:
    """Rows of one split of one source, and the split and number that their views have."""

    source: int
    table_split: str
    split: str
    number: int
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file; `datasets` takes the split from what stands before the first hyphen."""
        return f"{self.split}-{self.source}-{self.table_split}-{self.number:05d}.parquet"


@dataclass(frozen=True, eq=False)
class FacePhoto:
    """A photo with what it takes to turn its head.

    Attributes:
        picture: RGB, with the margin.
        landmarks: `(P, 2)`, the fiducials where there are any, then the five; its pixels.
        frame: `(2, 3)`, the similarity from its pixels to the frame.
    """

    key: str
    identity: str
    picture: PILImage.Image
    landmarks: Array
    frame: Array


def split_of(identity: str) -> str:
    """The split of a person, from nothing but the name."""
    digest = hashlib.sha256(identity.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SPLITS:
        place -= share
        if place < 0:
            return name
    return SPLITS[-1][0]


def draw_views(arguments: ViewsArguments, key: str, split: str) -> list[View]:
    """Angle 0, then left and right in turn, each angle jittered; every angle beside training."""
    angles = [angle for angle in ANGLES if angle <= arguments.widest]
    if split != "train":
        return [View(float(yaw)) for yaw in sorted([*(-a for a in angles), 0, *angles])]
    digest = hashlib.sha256(f"{arguments.seed}/{key}".encode()).digest()
    draw = random.Random(digest)
    left, right = draw.sample(angles, len(angles)), draw.sample(angles, len(angles))
    views = [View(0.0)]
    for number in range(arguments.views - 1):
        side, angle = (-1, left) if number % 2 else (1, right)
        yaw = angle[number // 2 % len(angle)] + draw.uniform(-YAW_JITTER, YAW_JITTER)
        pitch = max(-PITCH_LIMIT, min(PITCH_LIMIT, draw.gauss(0, PITCH_SIGMA)))
        views.append(View(side * min(yaw, arguments.widest), pitch))
    return views


def read_photo(record: dict[str, Any], key: str) -> FacePhoto:
    """A row of a photo dataset.

    `landmarks` are in pixels of the picture inside its `margin`; where there are `fiducials` too,
    both are in those of the whole picture.

    Raises:
        PictureError: a broken picture, or landmarks that are none.
    """
    column = next(name for name in IMAGE_COLUMNS if name in record)
    content = record[column]
    name = content.get("path") or key
    try:
        picture = images.load_picture(content["bytes"] or content["path"])
        five = np.asarray(record["landmarks"], np.float32).reshape(5, 2)
        fiducials = np.asarray(record.get("fiducials") or (), np.float32).reshape(-1, 2)
        if not np.isfinite(five).all() or np.linalg.norm(five[1] - five[0]) < 1:
            raise ValueError("landmarks that are none")  # no frame can be laid by such eyes
    except (PictureError, ValueError, TypeError) as error:
        raise PictureError(f"{name} ({key}): {error}") from error
    if not len(fiducials):
        five = five + int(record.get("margin") or 0)
    eyes = np.array(FRAME_EYES, np.float32)
    frame = similarity(five[:2], eyes)
    whole = np.eye(2, 3, dtype=np.float32)
    whole[:, 2] = frame[:, 2].round()
    if np.abs(five[:2] + whole[:, 2] - eyes).max() < 0.5:
        frame = whole  # an aligned photo is cut out, not resampled
    identity = record.get("identity")
    identity = key if identity is None else str(identity)
    return FacePhoto(key, identity, picture, np.concatenate([fiducials, five]), frame)


def aligned(photo: FacePhoto) -> tuple[PILImage.Image, float]:
    """The aligned 128 x 128 photo, mirrored at its edges; and how much of it there is, 0 to 1."""
    side = images.FACE_SIDE
    y, x = np.divmod(np.arange(side * side), side)
    points = np.stack([x, y], axis=1).astype(np.float32) - photo.frame[:, 2]
    points = points @ np.linalg.inv(photo.frame[:, :2]).T
    width, height = photo.picture.size
    inside = ((points >= -0.5) & (points <= (width - 0.5, height - 0.5))).all(1)
    folded = np.stack([fold(points[:, 0], 0, width - 1), fold(points[:, 1], 0, height - 1)], 1)
    colours = sample(np.asarray(photo.picture, np.float32), folded)
    pixels = (colours + 0.5).clip(0, 255).astype(np.uint8).reshape(side, side, 3)
    return PILImage.fromarray(pixels), float(inside.mean())


class ViewMaker:
    """Turns rows of photos into rows of views."""

    def __init__(self, arguments: ViewsArguments):
        self.arguments = arguments
        self.mesh = HeadMesh.load(arguments.mesh)
        kinds = ((*FIDUCIALS, *FIVE), FIVE)
        self.fitters = {len(groups): Fitter(self.mesh, groups) for groups in kinds}

    def rows(self, photo: FacePhoto, split: str) -> list[dict[str, Any]] | str:
        """The views of a photo, or in a word or two why there are none."""
        arguments = self.arguments
        target, cover = aligned(photo)
        if cover < arguments.cover:
            return "cut off"
        fitter = self.fitters.get(len(photo.landmarks))
        if fitter is None:
            return "other landmarks"
        try:
            fit = fitter.fit(photo.landmarks)
        except UserError:
            return "no face"
        if abs(fit.yaw) > arguments.frontal:
            return "turned"
        if fit.residual > MAX_RESIDUAL * np.linalg.norm(photo.landmarks[-5] - photo.landmarks[-4]):
            return "no face"
        head = TurnedHead(self.mesh, fit, photo.picture, photo.frame)
        encoded = encode_png(target)
        return [
            {
                "view": {"bytes": encode_png(PILImage.fromarray(head.render(view)))},
                "photo": {"bytes": encoded},
                "yaw": view.yaw,
                "pitch": view.pitch,
                "identity": photo.identity,
                "photo_key": photo.key,
                "split": split,
            }
            for view in draw_views(arguments, photo.key, split)
        ]


def plan(tables: list[DatasetDict], arguments: ViewsArguments) -> Iterator[Chunk]:
    """The chunks, source by source."""
    for source, table in enumerate(tables):
        for table_split, dataset in table.items():
            by_split: dict[str, list[int]] = {}
            # `train` alone is what `datasets` calls a source without splits.
            if list(table) == ["train"] and "identity" in dataset.column_names:
                for row, identity in enumerate(dataset["identity"]):
                    by_split.setdefault(split_of(str(identity)), []).append(row)
            else:
                by_split[table_split] = list(range(len(dataset)))
            for split, rows in sorted(by_split.items()):
                rows = rows[: arguments.limit or None]
                for number, start in enumerate(range(0, len(rows), arguments.chunk)):
                    part = tuple(rows[start : start + arguments.chunk])
                    yield Chunk(source, table_split, split, number, part)


def open_sources(arguments: ViewsArguments) -> list[DatasetDict]:
    """The photo datasets, pictures as bytes.

    Raises:
        UserError: one that cannot be read, or has no landmarks; two of the same name.
    """
    names = Counter(Path(source).name for source in arguments.photos)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        # The keys of photos begin with it: two people would share one.
        raise UserError(f"two sources are named {twice[0]}: rename one, or join them")
    tables = [open_photos(source) for source in arguments.photos]
    for source, table in zip(arguments.photos, tables, strict=True):
        for dataset in table.values():
            if "landmarks" not in dataset.column_names:
                raise UserError(
                    f"{source} has no column landmarks: five points x, y of eyes, nose tip and "
                    "mouth corners are needed"
                )
    return tables


def make_views(arguments: ViewsArguments, out: Path) -> Counter[str]:
    """Make all views that are not there yet.

    Returns:
        How many photos were `used`, and how many were left out why; on every process. Broken
        pictures are counted as `broken`, and named on stderr.
    """
    # Without an accelerator accelerate joins the processes only where it is told of the CPU.
    state = PartialState(cpu=not torch.accelerator.is_available())
    tables = open_sources(arguments)
    maker = ViewMaker(arguments)
    with state.main_process_first():
        claim(out, "views.json", arguments, "views", [row_counts(table) for table in tables])
    disable_progress_bars()  # datasets draws one for each file, over that of the run
    mine = list(plan(tables, arguments))[state.process_index :: state.num_processes]
    reports = []
    total = sum(len(chunk.rows) for chunk in mine)
    with tqdm(total=total, unit="photo", disable=not state.is_local_main_process) as bar:
        for chunk in mine:
            target = out / chunk.name
            if not target.exists():
                _write_chunk(maker, tables[chunk.source][chunk.table_split], chunk, target)
            reports.append(json.loads(target.with_suffix(".json").read_text()))
            bar.update(len(chunk.rows))
    reports = gather_object(reports)
    if state.is_main_process:
        for line in (line for report in reports for line in report["broken"]):
            tqdm.write(f"skipped {line}", file=sys.stderr)
    counts = Counter(broken=sum(len(report["broken"]) for report in reports))
    for report in reports:
        counts.update(report["counts"])
    return counts


def _write_chunk(maker: ViewMaker, dataset: Dataset, chunk: Chunk, target: Path) -> None:
    name = Path(maker.arguments.photos[chunk.source]).name
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    broken = []
    for row in chunk.rows:
        try:
            photo = read_photo(dataset[row], f"{name}-{chunk.table_split}-{row:06d}")
        except PictureError as error:
            broken.append(" ".join(str(error).split()))
            continue
        made = maker.rows(photo, chunk.split)
        counts["used" if isinstance(made, list) else made] += 1
        rows += made if isinstance(made, list) else []
    partial = write_partial(rows, FEATURES, target)
    report = {"counts": counts, "broken": broken}
    target.with_suffix(".json").write_text(json.dumps(report))
    os.replace(partial, target)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 where pictures were broken, 2 on bad arguments."""
    default = ViewsArguments((), "")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--photos", action="append", required=True, help="folder, parquet folder or Hub id"
    )
    parser.add_argument("--mesh", required=True, help="npz of ICT FaceKit: path or org/name/file")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--views", type=int, default=default.views, help="of a training photo")
    parser.add_argument("--widest", type=float, default=default.widest, help="yaw in degrees")
    parser.add_argument("--frontal", type=float, default=default.frontal, help="yaw of a photo")
    parser.add_argument("--cover", type=float, default=default.cover, help="of the aligned square")
    parser.add_argument("--limit", type=int, default=0, help="photos of each split; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(argv))
    out = given.pop("out")
    try:
        arguments = ViewsArguments(**{**given, "photos": tuple(given["photos"])})
        if arguments.views < 1 or arguments.limit < 0:
            raise UserError("--views starts at 1, --limit at 0")
        if not ANGLES[0] <= arguments.widest <= ANGLES[-1]:
            raise UserError(f"--widest lies between {ANGLES[0]} and {ANGLES[-1]} degrees")
        counts = make_views(arguments, out)
        if PartialState().is_main_process:
            tqdm.write(", ".join(f"{number} {what}" for what, number in counts.items() if number))
    finally:
        # The threads of an open process group abort a process that ends.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 1 if counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
