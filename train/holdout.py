"""A part of a photo dataset: photos to learn from, and photos of other people to test on."""

import io
import os
import random
import shutil
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, DatasetDict, Features, Value
from tqdm import tqdm

from face_destyle.errors import UserError
from train.photos import Photo, attribute_names, open_photos, read_photos
from train.structure import copies, difference_hash

TEST_SPLITS = ("test", "validation")


def count_photos(source: str) -> tuple[int, int]:
    """How many photos there are to learn from, and to test on where there is a split of them."""
    table = open_photos(source)
    train, test = _splits(table)
    return len(table[train]), len(table[test]) if test else 0


def _splits(table: DatasetDict) -> tuple[str, str | None]:
    train = "train" if "train" in table else next(iter(table))
    test = next((name for name in TEST_SPLITS if name in table and name != train), None)
    return train, test


def hold_out(source: str, out: Path, train: int, test: int, seed: int) -> None:
    """Write `train` and `test` photos to `out` as parquet, complete or not at all.

    Nobody is in both, as far as `identity` tells; without a split to test on, people are drawn
    from the photos. Photos that cannot be read, and copies of another, are left out.

    Raises:
        UserError: too few photos.
    """
    table = open_photos(source)
    names = _splits(table)
    if names[1]:
        rows = [_shuffled(table[name], seed, by_people=False) for name in names if name]
    else:
        everyone = _shuffled(table[names[0]], seed, by_people=True)
        rows = [everyone[test:], everyone[:test]]
    chosen = [
        _read(table[name or names[0]], name or names[0], listed, count)
        for name, listed, count in zip(names, rows, (train, test), strict=True)
    ]
    chosen = _apart(*chosen)
    if min(map(len, chosen)) < 1:
        raise UserError(f"{source} has too few different faces: {train} to learn from are wanted")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, photos in zip(("train", "test"), chosen, strict=True):
        _write(photos, attribute_names(table[names[0]]), partial / f"{name}-00000.parquet")
    os.replace(partial, out)


def _shuffled(photos: Dataset, seed: int, by_people: bool) -> list[int]:
    """Rows in a random order; those of one person stay together where that matters."""
    draw = random.Random(seed)
    rows = list(range(len(photos)))
    draw.shuffle(rows)
    if by_people and "identity" in photos.column_names:
        of_row = photos["identity"]
        rank: dict[Any, int] = {}
        for row in rows:
            rank.setdefault(row if of_row[row] is None else str(of_row[row]), len(rank))
        rows.sort(key=lambda row: rank[row if of_row[row] is None else str(of_row[row])])
    return rows


def _read(photos: Dataset, split: str, rows: list[int], count: int) -> list[Photo]:
    """The first `count` of these rows that can be read."""
    found: list[Photo] = []
    for row in rows:
        if len(found) >= count:
            break
        (item,) = read_photos(photos, split, range(row, row + 1))
        if isinstance(item, Photo):
            found.append(item)
        else:
            tqdm.write(f"left out {item}")
    return found


def _apart(train: list[Photo], test: list[Photo]) -> list[list[Photo]]:
    """Without copies, and without anybody in `train` who is in `test`."""
    together = [*test, *train]
    if not together:
        return [train, test]
    hashes = torch.stack([difference_hash(photo.picture) for photo in together])
    later = {two for _, two in copies(hashes)}
    kept = [photo for index, photo in enumerate(together) if index not in later]
    tested = {id(photo) for photo in test}
    people = {photo.identity for photo in test}
    return [
        [photo for photo in kept if id(photo) not in tested and photo.identity not in people],
        [photo for photo in kept if id(photo) in tested],
    ]


def _write(photos: list[Photo], attributes: list[str], path: Path) -> None:
    columns = {
        "image": [{"bytes": _encoded(photo), "path": None} for photo in photos],
        "margin": [photo.margin for photo in photos],
        "identity": [photo.identity for photo in photos],
        **{name: [photo.attributes.get(name) for photo in photos] for name in attributes},
    }
    features = Features(
        {
            "image": datasets.Image(),
            "margin": Value("int32"),
            "identity": Value("string"),
            **{name: Value("bool") for name in attributes},
        }
    )
    Dataset.from_dict(columns, features=features).to_parquet(str(path))


def _encoded(photo: Photo) -> bytes:
    buffer = io.BytesIO()
    photo.context.save(buffer, format="PNG")
    return buffer.getvalue()
