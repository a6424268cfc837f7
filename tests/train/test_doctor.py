"""Faults that are planted in a good dataset are found, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests import drawn
from tests.train import made
from train import doctor, structure
from train.misalign import Misalignment, turn_photo

PHOTOS = {"train": range(10), "test": range(20, 28)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs without a fault: portraits are negatives."""
    folder = tmp_path_factory.mktemp("good")
    for split, seeds in PHOTOS.items():
        (folder / split).mkdir()
        lines = []
        for seed in seeds:
            photo = drawn.face(seed)
            photo.save(folder / split / f"{seed:02d}-photo.png")
            ImageOps.invert(photo).save(folder / split / f"{seed:02d}.png")
            row = {
                "portrait_file_name": f"{seed:02d}.png",
                "photo_file_name": f"{seed:02d}-photo.png",
                "style": "negative",
                "identity": f"p{seed}",
            }
            lines.append(json.dumps(row))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Faces\n")
    return folder


@pytest.fixture
def pairs(good: Path, tmp_path: Path) -> Path:
    """A copy of them to spoil."""
    return Path(shutil.copytree(good, tmp_path / "pairs"))


def rewrite(folder: Path, split: str, change: Callable[[dict[str, str]], object]) -> None:
    path = folder / split / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("\n".join(map(json.dumps, rows)))


def truncate(folder: Path) -> None:
    path = folder / "train" / "03.png"
    path.write_bytes(path.read_bytes()[:500])


def lose(folder: Path) -> None:
    (folder / "train" / "04-photo.png").unlink()


def swap(folder: Path) -> None:
    one, two = folder / "train" / "01.png", folder / "train" / "08.png"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def shift(folder: Path) -> None:
    """The list of photos starts one too late."""
    names = [f"{seed:02d}-photo.png" for seed in PHOTOS["train"]]
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    rewrite(
        folder, "train", lambda row: row.update(photo_file_name=following[row["photo_file_name"]])
    )


def widen(folder: Path) -> None:
    path = folder / "train" / "05.png"
    with Image.open(path) as picture:
        wide = ImageOps.expand(picture.copy(), (30, 0))
    wide.save(path)


def shrink(folder: Path) -> None:
    for name in ("02.png", "02-photo.png"):
        with Image.open(folder / "train" / name) as picture:
            small = picture.resize((64, 64), Image.Resampling.BOX)
        small.save(folder / "train" / name)


def leak_person(folder: Path) -> None:
    rewrite(folder, "test", lambda row: row.update(identity=row["identity"].replace("p21", "p7")))


def leak_photo(folder: Path) -> None:
    for ending in (".png", "-photo.png"):
        shutil.copy(folder / "train" / f"06{ending}", folder / "test" / f"22{ending}")


def contradict(folder: Path) -> None:
    shutil.copy(folder / "train" / "00.png", folder / "train" / "09.png")


def repeat(folder: Path) -> None:
    for ending in (".png", "-photo.png"):
        shutil.copy(folder / "train" / f"06{ending}", folder / "train" / f"07{ending}")


def hide_licence(folder: Path) -> None:
    (folder / "README.md").unlink()


def nameless(folder: Path) -> None:
    for split in PHOTOS:
        rewrite(folder, split, lambda row: row.pop("identity"))


# The fault, and what is said: its kind, whether it stops, a part of the line.
FAULTS: dict[str, tuple[Callable[[Path], None], set[tuple[str, bool]], str]] = {
    "truncated": (truncate, {("unreadable", True)}, "train row 3, portrait:"),
    "missing": (lose, {("unreadable", True)}, "04-photo.png does not exist"),
    "swapped": (swap, {("mismatch", True)}, "2 of 10 portraits of negative seem to show another"),
    "shifted": (shift, {("mismatch", True)}, "listed in the same order?"),
    "another shape": (widen, {("shape", True)}, "train row 5"),
    "small": (shrink, {("small", False)}, "1 photos have less than 128 pixels"),
    "person": (leak_person, {("leak", True)}, "1 people are in train and in test: p7"),
    "photo": (leak_photo, {("leak", True)}, "train row 6 and test row 2"),
    "contradiction": (
        contradict,
        {("contradiction", True), ("mismatch", True)},
        "train row 0 and 9",
    ),
    "twice": (repeat, {("copy", False)}, "train row 6 and 7"),
    "licence": (hide_licence, {("licence", False)}, "README.md, as `license:`"),
    "identity": (nameless, {("identity", False)}, "no column identity"),
}


def test_nothing_is_found_in_good_pairs(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.inspect(str(good)) == []
    assert doctor.main([str(good)]) == 0
    assert capsys.readouterr().out == "0 findings, nothing would spoil a training\n"


def test_two_styles_of_a_few_photos_pass(tmp_path: Path) -> None:
    found = doctor.inspect(str(made.pairs(tmp_path / "pairs")))
    assert [finding.kind for finding in found if finding.stops] == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(pairs: Path, name: str) -> None:
    plant, expected, said = FAULTS[name]
    plant(pairs)
    found = doctor.inspect(str(pairs))
    assert {(finding.kind, finding.stops) for finding in found} == expected
    assert any(said in finding.text for finding in found), found
    assert all(len(finding.text.splitlines()) == 1 for finding in found)


def test_the_worst_comes_first_and_decides(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hide_licence(pairs)
    assert doctor.main([str(pairs)]) == 0
    capsys.readouterr()
    truncate(pairs)
    assert doctor.main([str(pairs)]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("stop: unreadable: ") and second.startswith("note: licence: ")
    assert last == "2 findings, 1 would spoil a training"


def test_a_sample_still_looks_at_every_identity(pairs: Path) -> None:
    leak_person(pairs)
    truncate(pairs)
    assert ("leak", True) in {(f.kind, f.stops) for f in doctor.inspect(str(pairs), sample=6)}


def test_no_pairs_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([str(tmp_path / "nowhere")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_turned_portraits_are_straightened_first() -> None:
    turns = [Misalignment(angle=25.0 - 5 * seed, x=3.0) for seed in range(10)]
    turned = [turn_photo(drawn.face(seed), 0, turns[seed]) for seed in range(10)]
    photos = torch.stack([structure.luma(drawn.face(seed)) for seed in range(10)]).float() / 255
    portraits = torch.stack([structure.luma(picture) for picture in turned]).float() / 255
    straight = structure.straightened(portraits, torch.stack([one.alignment() for one in turns]))
    own = torch.arange(10)
    found = structure.structure(photos)
    score, best = structure.belonging(structure.structure(straight), found, own)
    as_they_are, _ = structure.belonging(structure.structure(portraits), found, own)
    assert score.median() > as_they_are.median()
    assert best.float().mean() > structure.TELLING


def smooth(seed: int) -> Image.Image:
    """A picture without noise: of that a difference of light is left to chance."""
    cells = np.random.default_rng(seed).integers(20, 200, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((128, 128), Image.Resampling.BICUBIC)


def test_copies_are_known_after_a_change_of_size_and_light() -> None:
    lighter = smooth(0).point(lambda value: min(255, round(value * 1.2)))
    double = lighter.resize((256, 256), Image.Resampling.LANCZOS)
    hashes = torch.stack([structure.difference_hash(p) for p in (smooth(0), smooth(1), double)])
    assert structure.copies(hashes) == [(0, 2)]
    assert structure.copies(hashes, chunk=1) == [(0, 2)]
