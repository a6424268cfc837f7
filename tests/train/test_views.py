"""Views: the angles and splits that were asked for, and the same whatever happens on the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image, Value, load_dataset

from face_destyle.faces import FRAME_LANDMARKS
from tests import drawn
from tests.train import heads
from train.views import ViewsArguments, draw_views, main, split_of

LANDMARKS = [value for point in FRAME_LANDMARKS for value in point]
MARGIN = 8


def row(seed: int, identity: str, landmarks: list[float] = LANDMARKS) -> dict[str, object]:
    """A drawn face with a margin around it."""
    whole = drawn.face(seed, 128).resize((144, 144))
    whole.paste(drawn.face(seed), (MARGIN, MARGIN))
    return {
        "image": whole,
        "margin": MARGIN,
        "identity": identity,
        "landmarks": landmarks,
    }


def write(folder: Path, rows: list[dict[str, object]], split: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_list(rows).cast_column("image", Image())
    table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heads.mesh(tmp_path_factory.mktemp("mesh") / "head.npz")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write(folder, [row(seed, f"p{seed}") for seed in range(3)])
    return write(folder, [row(9, "q")], "test")


def run(photos: Path, mesh: Path, out: Path, *more: str) -> int:
    return main(["--photos", str(photos), "--mesh", str(mesh), "--out", str(out), *more])


def read(out: Path, split: str) -> Dataset:
    files = sorted(str(path) for path in out.glob(f"{split}-*.parquet"))
    return load_dataset("parquet", data_files=files, split="train")


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def test_columns_and_content(photos: Path, mesh: Path, tmp_path: Path) -> None:
    assert run(photos, mesh, tmp_path / "views") == 0
    views = read(tmp_path / "views", "train")
    assert views.features == {
        "view": Image(),
        "photo": Image(),
        "yaw": Value("float32"),
        "pitch": Value("float32"),
        "identity": Value("string"),
        "photo_key": Value("string"),
        "split": Value("string"),
    }
    assert len(views) == 15
    assert views["identity"][::5] == ["p0", "p1", "p2"]
    assert len(set(views["photo_key"])) == 3
    for seed, (photo, view) in enumerate(zip(views["photo"][::5], views["view"][::5], strict=True)):
        assert np.array_equal(photo, drawn.face(seed))
        difference = np.abs(np.asarray(view, float) - np.asarray(photo)).mean()
        assert view.size == (128, 128) and difference < 5  # angle 0
    turned = np.abs(np.asarray(views["view"][1], float) - np.asarray(views["photo"][1])).mean()
    assert turned > 5
    test = read(tmp_path / "views", "test")
    assert test["yaw"] == [-90, -75, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75, 90]
    assert set(test["split"]) == {"test"} and set(test["pitch"]) == {0}


def test_the_same_twice_and_resumed(photos: Path, mesh: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run(photos, mesh, tmp_path / name, "--views", "2") == 0
    first = contents(tmp_path / "first")
    assert contents(tmp_path / "second") == first and len(first) == 2
    lost, kept = sorted((tmp_path / "second").glob("*.parquet"))
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert run(photos, mesh, tmp_path / "second", "--views", "2") == 0
    assert contents(tmp_path / "second") == first
    assert kept.stat().st_mtime_ns == before
    assert not list((tmp_path / "second").glob("*.partial"))


def test_angles() -> None:
    arguments = ViewsArguments((), "", views=7, widest=60)
    drawn_once = [draw_views(arguments, f"photo-{row}", "train") for row in range(200)]
    assert drawn_once == [draw_views(arguments, f"photo-{row}", "train") for row in range(200)]
    assert drawn_once[0] != drawn_once[1]
    other = ViewsArguments((), "", views=7, widest=60, seed=1)
    assert drawn_once[0] != draw_views(other, "photo-0", "train")
    for views in drawn_once:
        assert len(views) == 7 and views[0].yaw == views[0].pitch == 0
        assert sum(view.yaw > 0 for view in views) == sum(view.yaw < 0 for view in views) == 3
        assert all(7.5 <= abs(view.yaw) <= 60 and abs(view.pitch) <= 15 for view in views[1:])
    yaws = np.array([view.yaw for views in drawn_once for view in views])
    assert np.histogram(np.abs(yaws[yaws != 0]), range(10, 61, 10))[0].min() > 100


def test_a_source_without_splits_is_divided_by_person(mesh: Path, tmp_path: Path) -> None:
    people = [f"person{number}" for number in range(400)]
    counted = {
        split: sum(split_of(name) == split for name in people)
        for split in ("train", "validation", "test")
    }
    assert counted["train"] > 290 and min(counted.values()) > 20
    one_each = [next(p for p in people if split_of(p) == split) for split in counted]
    rows = [row(seed, person) for seed, person in enumerate(one_each * 2)]
    folder = write(tmp_path / "photos", rows)
    assert run(folder, mesh, tmp_path / "views", "--views", "1") == 0
    for split, person in zip(counted, one_each, strict=True):
        views = read(tmp_path / "views", split)
        assert set(views["identity"]) == {person} and set(views["split"]) == {split}
        assert len(set(views["photo_key"])) == 2


def test_photos_that_do_not_serve_are_left_out_and_counted(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = list(LANDMARKS)
    turned[4] += 14
    small = [64 + (value - 64) * 2 for value in LANDMARKS]  # a face that fills the picture
    rows = [row(0, "a"), row(1, "b", turned), row(2, "c", small)]
    rows.append({**row(3, "d"), "landmarks": LANDMARKS[:6]})
    folder = write(tmp_path / "photos", rows)
    write(folder, [row(4, "e")], "test")
    assert run(folder, mesh, tmp_path / "views") == 1
    printed = capsys.readouterr()
    assert "2 used" in printed.out and "1 turned" in printed.out and "1 cut off" in printed.out
    assert "skipped photos-train-000003 (photos-train-000003)" in printed.err
    assert set(read(tmp_path / "views", "train")["identity"]) == {"a"}


def test_bad_arguments_end_in_one_line(
    photos: Path, mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare" / "train"
    bare.mkdir(parents=True)
    drawn.face().save(bare / "a.png")
    text = tmp_path / "text.npz"
    text.write_text("no mesh")
    out = tmp_path / "views"
    cases = [
        (tmp_path / "bare", mesh, (), "landmarks"),
        (tmp_path / "none", mesh, (), "none"),
        (photos, tmp_path / "none.npz", (), "none.npz"),
        (photos, text, (), "no npz file"),
        (photos, mesh, ("--views", "0"), "--views"),
        (photos, mesh, ("--widest", "120"), "--widest"),
    ]
    for source, head, more, said in cases:
        assert run(source, head, out, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not out.exists()
    out.mkdir()
    (out / "holiday.txt").touch()
    assert run(photos, mesh, out) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_folder_of_other_views_is_refused(
    photos: Path, mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, mesh, tmp_path / "views", "--views", "1") == 0
    before = contents(tmp_path / "views")
    assert run(photos, mesh, tmp_path / "views", "--views", "2") == 2
    assert "views of another run" in capsys.readouterr().err
    assert contents(tmp_path / "views") == before


def test_a_run_whose_photos_have_changed_is_another(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "photos", [row(0, "p0")]), tmp_path / "views"
    write(source, [row(9, "q")], "test")
    assert run(source, mesh, out, "--views", "1") == 0
    told = json.loads((out / "views.json").read_text())
    assert told.pop("rows") == [{"test": 1, "train": 1}]
    before = contents(out)
    write(source, [row(1, "p1"), row(0, "p0")])
    capsys.readouterr()
    assert run(source, mesh, out, "--views", "1") == 2
    assert "of other photos" in capsys.readouterr().err
    # A folder of before rows were written down goes on.
    (out / "views.json").write_text(json.dumps(told, indent=2))
    assert run(source, mesh, out, "--views", "1") == 0
    assert contents(out) == before


def test_two_sources_of_one_name_are_refused(
    photos: Path, mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / photos.name, [row(5, "r")])
    assert run(photos, mesh, tmp_path / "views", "--photos", f"{other}/") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"two sources are named {photos.name}" in line
    assert not (tmp_path / "views").exists()


@pytest.mark.parametrize("eye", [LANDMARKS[:2], [float("nan")] * 2, [float("inf"), 50.0]])
def test_landmarks_that_are_none_leave_out_one_photo(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], eye: list[float]
) -> None:
    wrong = [*LANDMARKS[:2], *eye, *LANDMARKS[4:]]
    folder = write(tmp_path / "photos", [row(0, "a", wrong), row(1, "b")])
    write(folder, [row(2, "c")], "test")
    assert run(folder, mesh, tmp_path / "views", "--views", "1") == 1
    printed = capsys.readouterr()
    assert "2 used" in printed.out and "1 broken" in printed.out
    assert "photos-train-000000): landmarks that are none" in printed.err
    assert read(tmp_path / "views", "train")["identity"][:] == ["b"]
