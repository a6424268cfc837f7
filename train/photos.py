"""Photo datasets: a folder, parquet files or a Hub id, brought to one form."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Image, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetsError
from PIL import Image as PILImage

from face_destyle import images
from face_destyle.errors import PictureError, UserError
from train.subfolders import load_two_folders, two_folders

IMAGE_COLUMNS = ("image", "photo")


@dataclass(frozen=True)
class Photo:
    """One aligned face photo.

    Attributes:
        key: `split-row`, the name it is reported by.
        picture: RGB, 128 x 128, the face in the frame.
        identity: who it is; the key where the dataset does not say.
        attributes: every boolean column of the dataset, None where unknown.
        context: `picture` with its real surroundings, `margin` pixels more on every side.
        margin: in pixels of the frame; 0 where the dataset has no surroundings.
    """

    key: str
    picture: PILImage.Image
    identity: str
    attributes: dict[str, bool | None]
    context: PILImage.Image
    margin: int


def load_table(source: str) -> DatasetDict:
    """Load a dataset from a folder of pictures, one of parquet files, or a Hub id.

    A folder of pictures with the folders portrait/ and photo/ in it is one of pairs.

    Raises:
        UserError: nothing there, or nothing that `load_dataset` reads.
    """
    path = Path(source)
    try:
        if path.is_dir() and any(path.rglob("*.parquet")):
            files: dict[str, list[str]] = {}
            for file in sorted(path.rglob("*.parquet")):
                files.setdefault(_split_name(file), []).append(str(file))
            return load_dataset("parquet", data_files=files)
        if path.is_dir() and two_folders(path):
            return load_two_folders(path)
        if path.is_dir():
            return load_dataset("imagefolder", data_dir=source, drop_labels=True)
        if path.exists() or source.startswith((".", "/")):
            raise UserError(f"{source} is no folder: give a folder, parquet files or a Hub id")
        return load_dataset(source)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(f"cannot load {source}: {_reason(error)}") from error


def _split_name(file: Path) -> str:
    """It is train in train.parquet, train-00000-of-00002.parquet, the Hub's train/0000.parquet."""
    name = file.stem.split("-")[0]
    return file.absolute().parent.name if name.isdigit() else name


def _reason(error: Exception) -> str:
    """In one line. `datasets` says only that it failed; the error that stopped it says why."""
    why = error.__cause__ if isinstance(error, DatasetGenerationError) else None
    lines = str(why or error).strip().splitlines()
    return lines[0] if lines else type(why or error).__name__


def open_photos(source: str) -> DatasetDict:
    """A photo dataset with its pictures left as bytes, so that one broken file harms no other.

    Raises:
        UserError: no column with pictures.
    """
    table = load_table(source)
    column = _image_column(next(iter(table.values())), source)
    return table.cast_column(column, Image(decode=False))


def _image_column(dataset: Dataset, source: str) -> str:
    for name in IMAGE_COLUMNS:
        if isinstance(dataset.features.get(name), Image):
            return name
    raise UserError(
        f"{source} has no picture column named image or photo; "
        f"its columns are {', '.join(dataset.column_names)}"
    )


def read_photos(dataset: Dataset, split: str, rows: range) -> Iterator[Photo | PictureError]:
    """Read rows of an opened dataset; a broken picture is yielded as the error that names it."""
    column = _image_column(dataset, split)
    booleans = attribute_names(dataset)
    for row in rows:
        record = dataset[row]
        key = f"{split}-{row:06d}"
        try:
            picture, context, margin = _face(record, column)
        except PictureError as error:
            name = record[column].get("path") or key
            yield PictureError(f"{name} ({key}): {error}")
            continue
        identity = record.get("identity")
        yield Photo(
            key,
            picture,
            key if identity is None else str(identity),
            {name: record[name] for name in booleans},
            context,
            margin,
        )


def attribute_names(dataset: Dataset) -> list[str]:
    """The boolean columns, but for `synthetic`, which is about the picture and not the face."""
    return [
        name
        for name, feature in dataset.features.items()
        if getattr(feature, "dtype", None) == "bool" and name != "synthetic"
    ]


def _face(record: dict[str, Any], column: str) -> tuple[PILImage.Image, PILImage.Image, int]:
    """The face in the frame, the same with its surroundings, and how wide these are."""
    content = record[column]
    whole = images.load_picture(content["bytes"] or content["path"])
    border, side = int(record.get("margin") or 0), images.FACE_SIDE
    inner = min(whole.size) - 2 * border
    if inner < 1:
        width, height = whole.size
        raise PictureError(f"a margin of {border} leaves nothing of {width} x {height} pixels")
    left, top = (whole.width - inner) // 2, (whole.height - inner) // 2
    square = whole.crop((left, top, left + inner, top + inner))
    margin = border * side // inner
    if inner == side:
        right, bottom = left + inner + margin, top + inner + margin
        return square, whole.crop((left - margin, top - margin, right, bottom)), margin
    picture = square.resize((side, side), PILImage.Resampling.LANCZOS)
    if not margin:
        return picture, picture, 0
    reach = margin * inner / side
    box = (left - reach, top - reach, left + inner + reach, top + inner + reach)
    wide = (side + 2 * margin, side + 2 * margin)
    return picture, whole.resize(wide, PILImage.Resampling.LANCZOS, box), margin
