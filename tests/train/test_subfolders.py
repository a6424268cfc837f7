"""Two folders of pictures with the same names are pairs."""

from pathlib import Path

import pytest
from PIL import ImageOps

from face_destyle import images
from face_destyle.errors import UserError
from tests import drawn
from train.data import open_pairs
from train.subfolders import load_two_folders, two_folders


def pairs(folder: Path, names: tuple[str, ...] = ("b", "a")) -> Path:
    for side in ("portrait", "photo"):
        (folder / side).mkdir(parents=True)
    for seed, name in enumerate(names):
        drawn.face(seed).save(folder / "photo" / f"{name}.jpg")
        ImageOps.invert(drawn.face(seed)).save(folder / "portrait" / f"{name}.png")
    (folder / "photo" / "notes.txt").write_text("not a picture")
    return folder


def test_names_pair_them(tmp_path: Path) -> None:
    table = load_two_folders(pairs(tmp_path))
    assert list(table) == ["train"] and len(table["train"]) == 2
    first = table["train"][0]
    assert first["photo_key"] == "train-a"
    portrait, photo = (images.to_tensor([first[side]], 32) for side in ("portrait", "photo"))
    assert (portrait + photo).abs().mean() < 0.1  # one is the negative of the other


def test_a_folder_a_split(tmp_path: Path) -> None:
    pairs(tmp_path / "train", ("a", "b"))
    pairs(tmp_path / "test", ("c",))
    (tmp_path / "other").mkdir()
    table = load_two_folders(tmp_path)
    assert {name: len(split) for name, split in table.items()} == {"train": 2, "test": 1}
    assert two_folders(tmp_path / "other") == {}


def test_they_are_read_as_every_dataset_of_pairs(tmp_path: Path) -> None:
    opened = open_pairs(str(pairs(tmp_path)), "train")
    assert len(opened) == 2 and opened[0]["photo"]["path"].endswith("a.jpg")


def test_a_lonely_picture_is_named(tmp_path: Path) -> None:
    (pairs(tmp_path) / "photo" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"portrait has a and .*photo has not \(1 such\)"):
        load_two_folders(tmp_path)


def test_one_name_twice_and_no_pictures(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "twice")
    drawn.face(3).save(folder / "photo" / "a.webp")
    with pytest.raises(UserError, match="have one name"):
        load_two_folders(folder)
    with pytest.raises(UserError, match="holds no pictures"):
        load_two_folders(pairs(tmp_path / "empty", ()))
