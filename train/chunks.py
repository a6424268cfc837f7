"""Files of pairs: read and turned ahead, written whole or not at all; a folder has one purpose."""

import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import datasets
import torch
from datasets import Dataset, DatasetDict, Features, Value
from PIL import Image as PILImage

from face_destyle import images
from face_destyle.errors import UserError
from train.misalign import Misalignment, turn_photo
from train.photos import Photo, attribute_names, read_photos

# A portrait's place among those of its chunk: photo, style, variant.
Place = tuple[int, str, int]


@dataclass(frozen=True)
class Chunk:
    """The photos of one file, before a network has seen them.

    Attributes:
        split: that they are of.
        target: the file.
        columns: of the file.
        photos: those that could be read.
        broken: one line for each of the others.
        pictures: `(N, 3, 128, 128)` uint8 for each variant: the photos, turned where they are.
        alignments: the six numbers of each photo, row by row, for each variant.
    """

    split: str
    target: Path
    columns: Features
    photos: list[Photo]
    broken: list[str]
    pictures: list[torch.Tensor]
    alignments: list[list[list[float]]]


def features(attributes: list[str]) -> Features:
    """The columns of a pair dataset."""
    return Features(
        {
            "portrait": datasets.Image(),
            "photo": datasets.Image(),
            "style": Value("string"),
            "identity": Value("string"),
            "attributes": {name: Value("bool") for name in attributes or ["unknown"]},
            "split": Value("string"),
            "photo_key": Value("string"),
            "variant": Value("int32"),
            "alignment": datasets.Sequence(Value("float32")),
            "margin": Value("int32"),
        }
    )


def row_counts(table: DatasetDict) -> dict[str, int]:
    """How many rows each split has: what tells that a source has changed."""
    return {split: len(table[split]) for split in sorted(table)}


def claim(out: Path, name: str, arguments: object, what: str, rows: object = None) -> None:
    """Write down in `out / name` what the folder is for, or check that it is for the same.

    Args:
        arguments: a dataclass.
        what: the folder will hold, in the plural.
        rows: of what it is made from, by split; another count is another run.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    told = asdict(cast(Any, arguments))
    older = json.dumps(told, indent=2)  # of folders that were begun before rows were written down
    description = older if rows is None else json.dumps({**told, "rows": rows}, indent=2)
    path = out / name
    try:
        if path.is_file():
            if path.read_text() not in (description, older):
                raise UserError(
                    f"{out} holds {what} of another run or of other photos (see {path}): "
                    "choose another --out"
                )
            return
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no {what}: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(description)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error


def read_chunk(
    dataset: Dataset,
    split: str,
    rows: range,
    target: Path,
    misalignments: Sequence[Callable[[str], Misalignment]],
) -> Chunk:
    """Read the photos of one file; `misalignments` says by a photo's key how a variant is turned.

    Where no variant is turned they share one tensor.
    """
    read = list(read_photos(dataset, split, rows))
    photos = [item for item in read if isinstance(item, Photo)]
    broken = [" ".join(str(item).split()) for item in read if not isinstance(item, Photo)]
    drawn = [[draw(photo.key) for photo in photos] for draw in misalignments]
    made: dict[tuple[Misalignment, ...], torch.Tensor] = {}
    for row in map(tuple, drawn) if photos else ():
        if row not in made:
            turned = [_turned(photo, one) for photo, one in zip(photos, row, strict=True)]
            made[row] = images.to_pixels(turned, images.FACE_SIDE)
    return Chunk(
        split,
        target,
        features(attribute_names(dataset)),
        photos,
        broken,
        [made[tuple(row)] for row in drawn if photos],
        [[one.alignment().flatten().tolist() for one in row] for row in drawn],
    )


def _turned(photo: Photo, misalignment: Misalignment) -> PILImage.Image:
    if misalignment == Misalignment():
        return photo.picture
    return turn_photo(photo.context, photo.margin, misalignment)


def one_ahead(tasks: Sequence[Callable[[], Chunk]], pool: ThreadPoolExecutor) -> Iterator[Chunk]:
    """The results, in order; the next is made in `pool` while one is worked on."""
    coming: Future[Chunk] | None = None
    for task in tasks:
        ready, coming = coming, pool.submit(task)
        if ready:
            yield ready.result()
    if coming:
        yield coming.result()


def encode_png(picture: PILImage.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    # Runs alone are looked for: of strokes and noise zlib's search finds nothing more in any time.
    picture.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def write_partial(rows: list[dict[str, Any]], columns: Features, target: Path) -> Path:
    """Write rows beside `target`, as a file that is to be renamed to it when all else is done."""
    # Of no rows at all from_list would take no columns.
    by_column = {name: [row[name] for row in rows] for name in columns}
    partial = target.with_suffix(".partial")
    Dataset.from_dict(by_column, features=columns).to_parquet(str(partial))
    return partial


def write_chunk(
    chunk: Chunk, portraits: dict[Place, Future[bytes]], photos: list[Future[bytes]]
) -> None:
    """Write the rows in the order of `portraits`, complete or not at all.

    It may run in the pool that encodes: what it waits for was handed in before it.
    """
    encoded = [photo.result() for photo in photos]
    rows = [_row(chunk, place, png.result(), encoded) for place, png in portraits.items()]
    partial = write_partial(rows, chunk.columns, chunk.target)
    if chunk.broken:
        skipped_file(chunk.target).write_text("\n".join(chunk.broken) + "\n")
    os.replace(partial, chunk.target)


def _row(chunk: Chunk, place: Place, portrait: bytes, photos: list[bytes]) -> dict[str, Any]:
    index, style, variant = place
    photo = chunk.photos[index]
    return {
        "portrait": {"bytes": portrait},
        "photo": {"bytes": photos[index]},
        "style": style,
        "identity": photo.identity,
        "attributes": photo.attributes,
        "split": chunk.split,
        "photo_key": photo.key,
        "variant": variant,
        "alignment": chunk.alignments[variant][index],
        "margin": photo.margin,
    }


def skipped_file(target: Path) -> Path:
    """Where the broken pictures of a chunk are named, for a run that goes on to report too."""
    return target.with_suffix(".skipped")
