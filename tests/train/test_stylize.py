"""Pairs: the same whatever happens on the way, and nothing left out without a word."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Image, Value, load_dataset
from PIL import Image as PILImage
from PIL import ImageOps
from safetensors.torch import save_file

from face_destyle import Stylizer, StylizerConfig, images
from tests import drawn
from tests.train import made
from train.stylize import (
    SCALES,
    Stroke,
    StylizeArguments,
    draw_stroke,
    load_stylizer,
    main,
    stylize,
    stylize_batch,
)

ROOT = Path(__file__).parents[2]
# What a process of its own runs, which is then killed: one chunk a photo.
ALONE = """
import sys
from pathlib import Path
from train.stylize import StylizeArguments, stylize
photos, style, out = sys.argv[1:]
stylize(StylizeArguments(photos, {"odd": style}, chunk=1), Path(out))
"""
# The command, after each process has written down how many there are.
SHARED = """
import sys
from pathlib import Path
from accelerate import PartialState
from train.stylize import main
state = PartialState(cpu=True)
Path(sys.argv[1], str(state.process_index)).write_text(str(state.num_processes))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.photos(tmp_path_factory.mktemp("photos"))
    return made.photos(folder, count=4, split="test")


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("style")
    Stylizer(StylizerConfig(width=2, blocks=1)).save_pretrained(folder)
    return folder


def run(photos: Path, style: Path, out: Path, *more: str) -> int:
    return main(["--photos", str(photos), "--style", f"odd={style}", "--out", str(out), *more])


def read(out: Path, split: str = "train") -> Dataset:
    files = sorted(str(path) for path in out.glob(f"{split}-*.parquet"))
    return load_dataset("parquet", data_files=files, split="train")


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_columns_and_content(photos: Path, style: Path, tmp_path: Path) -> None:
    assert run(photos, style, tmp_path / "pairs", "--style", f"even={style}") == 0
    assert sorted(contents(tmp_path / "pairs")) == ["test-00000.parquet", "train-00000.parquet"]
    pairs = read(tmp_path / "pairs")
    assert pairs.features == {
        "portrait": Image(),
        "photo": Image(),
        "style": Value("string"),
        "identity": Value("string"),
        "attributes": {"Smiling": Value("bool")},
        "split": Value("string"),
        "photo_key": Value("string"),
        "variant": Value("int32"),
    }
    assert len(pairs) == 12
    assert pairs["style"][:4] == ["odd", "even", "odd", "even"]
    assert pairs["identity"][::4] == ["p0", "p1", "p2"]
    assert [row["Smiling"] for row in pairs["attributes"]][::2] == [True, False] * 3
    assert set(pairs["split"]) == {"train"} and set(pairs["variant"]) == {0}
    assert pairs["photo_key"][::2] == [f"train-{row:06d}" for row in range(6)]
    for row, photo in enumerate(pairs["photo"][::2]):
        assert np.array_equal(photo, drawn.face(row))
    assert len(read(tmp_path / "pairs", "test")) == 8


def test_the_plain_portrait_is_the_networks_own(photos: Path, style: Path, tmp_path: Path) -> None:
    run(photos, style, tmp_path / "pairs", "--split", "train")
    with torch.inference_mode():
        painted = images.to_uint8(Stylizer.from_pretrained(style)(drawn.faces(6)))
    portraits = np.stack([np.asarray(picture) for picture in read(tmp_path / "pairs")["portrait"]])
    assert np.array_equal(portraits, painted.permute(0, 2, 3, 1).numpy())


def test_the_same_twice_but_for_another_seed(photos: Path, style: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "0"), ("second", "0"), ("other", "1")):
        run(photos, style, tmp_path / name, "--variants", "3", "--seed", seed)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert first != other
    one, two = (read(tmp_path / name) for name in ("first", "other"))
    assert one["variant"][:3] == [0, 1, 2]
    plain = [np.array_equal(a, b) for a, b in zip(one["portrait"], two["portrait"], strict=True)]
    assert all(plain[::3]) and not all(plain)


def test_a_killed_run_goes_on_to_the_same_files(style: Path, tmp_path: Path) -> None:
    photos = made.photos(tmp_path / "photos", count=60)
    (photos / "train" / "00.png").write_bytes(b"broken")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = StylizeArguments(str(photos), {"odd": str(style)}, chunk=1)
    skipped = stylize(arguments, whole)
    command = [sys.executable, "-c", ALONE, str(photos), str(style), str(killed)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(contents(killed)) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in killed.glob("*.parquet")}
    assert 3 <= len(before) < 60, "the kill came too early or too late"
    # What was written before the kill is kept, and its broken picture is still reported.
    assert stylize(arguments, killed) == skipped
    assert len(skipped) == 1
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == 60
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("broken", [False, True])
def test_two_processes_give_what_one_gives(style: Path, tmp_path: Path, broken: bool) -> None:
    photos = made.photos(tmp_path / "photos")
    made.photos(photos, count=4, split="test")
    if broken:  # it is the second process that finds it, and both report it
        (photos / "train" / "01.png").write_bytes(b"broken")
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    world = tmp_path / "world"
    world.mkdir()
    arguments = [str(world), "--photos", str(photos), "--style", f"odd={style}"]
    arguments += ["--split", "test", "--split", "train", "--out", str(tmp_path / "two")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, env=environment, timeout=200
    )
    assert {path.name: path.read_text() for path in world.iterdir()} == {"0": "2", "1": "2"}
    assert done.returncode == (1 if broken else 0), done.stderr
    assert done.stderr.count("01.png (train-000001)") == (1 if broken else 0)
    more = ["--split", "test", "--split", "train"]
    assert run(photos, style, tmp_path / "one", *more) == (1 if broken else 0)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) == 2


def test_a_broken_picture_is_named_and_skipped(
    style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = made.photos(tmp_path / "photos", count=4)
    (photos / "train" / "02.png").write_bytes(b"")
    for _ in range(2):  # a run that finds all its files reports it again
        assert run(photos, style, tmp_path / "pairs") == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("skipped")]
        assert "02.png (train-000002)" in line
    keys = read(tmp_path / "pairs")["photo_key"]
    assert list(keys) == ["train-000000", "train-000001", "train-000003"]


def test_the_margin_is_cut_off(style: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    ImageOps.expand(drawn.face(), 12, "red").save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "margin": 12}))
    assert run(tmp_path / "photos", style, tmp_path / "pairs") == 0
    (pair,) = read(tmp_path / "pairs")
    assert np.array_equal(pair["photo"], drawn.face())
    assert pair["identity"] == pair["photo_key"]
    assert pair["attributes"] == {"unknown": None}


def test_the_limit_counts_photos_of_each_split(photos: Path, style: Path, tmp_path: Path) -> None:
    run(photos, style, tmp_path / "pairs", "--limit", "2", "--variants", "2")
    for split in ("train", "test"):
        keys = read(tmp_path / "pairs", split)["photo_key"]
        assert list(keys) == [f"{split}-000000"] * 2 + [f"{split}-000001"] * 2


def test_strokes_are_drawn_from_their_own_name() -> None:
    names = [(f"train-{row:06d}", variant) for row in range(100) for variant in (1, 2)]
    drawn_once = [draw_stroke(0, key, "candy", variant) for key, variant in names]
    assert drawn_once == [draw_stroke(0, key, "candy", variant) for key, variant in names]
    assert {stroke.scale for stroke in drawn_once} == set(SCALES)
    assert {stroke.turn for stroke in drawn_once} == {0, 1, 2, 3}
    assert drawn_once != [draw_stroke(1, key, "candy", variant) for key, variant in names]
    assert drawn_once != [draw_stroke(0, key, "wave", variant) for key, variant in names]
    assert draw_stroke(7, "train-000000", "candy", 0) == Stroke(1.0, 0)


def test_strokes_are_turned_and_scaled() -> None:
    photos = drawn.faces(2)
    sides = []

    class Watched(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            sides.append(pictures.shape[-1])
            return pictures

    for turn in range(4):
        assert torch.equal(stylize_batch(Watched(), photos, Stroke(1.0, turn)), photos)
    for scale in SCALES:
        back = stylize_batch(Watched(), photos, Stroke(scale, 1))
        assert back.shape == photos.shape
        assert (back - photos).abs().mean() < 0.05
    assert sides == [128] * 4 + [96, 128, 160, 192]

    class Striped(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            stripes = torch.arange(pictures.shape[-1]) / pictures.shape[-1] * 2 - 1
            return stripes.expand_as(pictures)  # from left to right

    across = stylize_batch(Striped(), photos, Stroke(1.0, 0))
    assert torch.equal(stylize_batch(Striped(), photos, Stroke(1.0, 1)), across.rot90(-1, (2, 3)))


def test_a_bare_file_in_the_layout_of_johnson(style: Path, tmp_path: Path) -> None:
    network = Stylizer(StylizerConfig(width=4)).eval()
    save_file(network.state_dict(), tmp_path / "johnson_wave.safetensors")
    loaded = load_stylizer(str(tmp_path / "johnson_wave.safetensors"), "wave")
    assert loaded.config == StylizerConfig(width=4, style="wave")
    with torch.inference_mode():
        assert torch.equal(loaded(drawn.faces(1)), network(drawn.faces(1)))


def test_bad_arguments_end_in_one_line(
    photos: Path, style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    empty = tmp_path / "empty"
    empty.mkdir()
    target = tmp_path / "pairs"
    cases = [
        (["--photos", str(photos), "--style", f"a={style}", "--split", "valid"], "valid"),
        (["--photos", str(photos), "--style", "a=nobody"], "nobody"),
        (["--photos", str(photos), "--style", f"a={other}"], "other.safetensors"),
        (["--photos", str(photos), "--style", "candy"], "NAME=WEIGHTS"),
        (["--photos", str(photos)], "--style"),
        (["--photos", str(file), "--style", f"a={style}"], "no folder"),
        (["--photos", str(empty), "--style", f"a={style}"], "empty"),
        (["--photos", str(tmp_path / "none"), "--style", f"a={style}"], "none"),
        (["--photos", str(photos), "--style", f"a={style}", "--variants", "0"], "--variants"),
    ]
    for arguments, named in cases:
        assert main([*arguments, "--out", str(target)]) == 2, arguments
        assert named in said(capsys)
        assert not target.exists()
    assert run(photos, style, file) == 2
    assert "cannot be written" in said(capsys)


def test_a_folder_of_other_pairs_is_refused(
    photos: Path, style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, style, tmp_path / "pairs") == 0
    before = contents(tmp_path / "pairs")
    capsys.readouterr()
    assert run(photos, style, tmp_path / "pairs", "--seed", "1") == 2
    assert "another run" in said(capsys)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    PILImage.new("RGB", (4, 4)).save(occupied / "holiday.png")
    assert run(photos, style, occupied) == 2
    assert "not empty" in said(capsys)
    assert contents(tmp_path / "pairs") == before
    assert [path.name for path in occupied.iterdir()] == ["holiday.png"]
