"""Pairs as two folders of pictures with the same names: portrait/ and photo/.

They lie in the folder itself, or in one folder a split. The names pair them, so that no order of
two lists can.
"""

from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Image, Value

from face_destyle.errors import UserError

SIDES = ("portrait", "photo")
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
FEATURES = Features({"portrait": Image(), "photo": Image(), "photo_key": Value("string")})


def two_folders(folder: Path) -> dict[str, Path]:
    """The splits of a folder of this form, by name; none where it has another form."""
    if all((folder / side).is_dir() for side in SIDES):
        return {"train": folder}
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return {path.name: path for path in inner if all((path / side).is_dir() for side in SIDES)}


def load_two_folders(folder: Path) -> DatasetDict:
    """The pairs of all splits; `photo_key` is the name that both have.

    Raises:
        UserError: a portrait without photo, a photo without portrait, or two files of one name.
    """
    splits = two_folders(folder)
    return DatasetDict({name: _split(name, path) for name, path in splits.items()})


def _split(name: str, folder: Path) -> Dataset:
    portraits, photos = (_pictures(folder / side) for side in SIDES)
    lonely = sorted(portraits.keys() ^ photos.keys())
    if lonely:
        has, lacks = SIDES if lonely[0] in portraits else SIDES[::-1]
        raise UserError(
            f"{folder / has} has {lonely[0]} and {folder / lacks} has not "
            f"({len(lonely)} such): each portrait needs the photo of its name"
        )
    if not portraits:
        raise UserError(f"{folder / SIDES[0]} holds no pictures")
    keys = sorted(portraits)
    columns = {
        "portrait": [str(portraits[key]) for key in keys],
        "photo": [str(photos[key]) for key in keys],
        "photo_key": [f"{name}-{key}" for key in keys],
    }
    return Dataset.from_dict(columns, features=FEATURES)


def _pictures(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS:
            continue
        if path.stem in found:
            raise UserError(f"{path} and {found[path.stem].name} have one name: keep one of them")
        found[path.stem] = path
    return found
