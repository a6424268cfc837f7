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
from datasets import Dataset, Image, List, Value, load_dataset
from PIL import Image as PILImage
from PIL import ImageOps
from safetensors.torch import save_file

from face_destyle import Stylizer, StylizerConfig, images
from face_destyle.models.similarity import parameters_of
from tests import drawn
from tests.train import made
from train.misalign import MisalignConfig, named_misalignment, turn_photo
from train.photos import Photo, open_photos, read_photos
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
        "alignment": List(Value("float32")),
        "margin": Value("int32"),
    }
    assert pairs["alignment"][:] == [[1, 0, 0, 0, 1, 0]] * 12 and set(pairs["margin"]) == {0}
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
    more = ["--split", "test", "--split", "train", "--turns"]
    arguments += [*more, "--out", str(tmp_path / "two")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, env=environment, timeout=200
    )
    assert {path.name: path.read_text() for path in world.iterdir()} == {"0": "2", "1": "2"}
    assert done.returncode == (1 if broken else 0), done.stderr
    assert done.stderr.count("01.png (train-000001)") == (1 if broken else 0)
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
    assert pair["margin"] == 12


@pytest.fixture(scope="module")
def turned(photos: Path, style: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("turned") / "pairs"
    more = ["--style", f"even={style}", "--turns", "--variants", "2", "--split", "train"]
    assert run(photos, style, out, *more) == 0
    return read(out)


class TestTurns:
    def test_the_photo_is_turned_and_then_stylized(self, turned: Dataset, style: Path) -> None:
        network = Stylizer.from_pretrained(style)
        for row in range(0, len(turned), 4):
            pair = turned[row]
            one = named_misalignment(MisalignConfig(), 0, pair["photo_key"], 0)
            assert pair["alignment"] == one.alignment().flatten().tolist()
            photo = images.to_tensor([turn_photo(pair["photo"], 0, one)], 128)
            with torch.inference_mode():
                painted = images.to_uint8(network(photo))[0].permute(1, 2, 0)
            # Alone or in a batch, a level of rounding may differ.
            away = np.asarray(pair["portrait"]).astype(int) - painted.numpy()
            assert np.abs(away).max() <= 1
            assert np.array_equal(pair["photo"], drawn.face(row // 4))

    def test_every_variant_lies_otherwise_in_all_styles(self, turned: Dataset) -> None:
        poses = [tuple(six) for six in turned["alignment"]]
        assert turned["style"][:4] == ["odd", "odd", "even", "even"]
        assert poses[::4] == poses[2::4] and poses[1::4] == poses[3::4]
        assert len(set(poses)) == 12

    def test_the_strokes_stay_upright(self) -> None:
        keys = [f"train-{row}" for row in range(50)]
        arguments = StylizeArguments("", {}, variants=2, misalign=True)
        strokes = {arguments.stroke(key, "candy", 1) for key in keys}
        assert strokes == {Stroke(scale, 0) for scale in SCALES}
        assert {arguments.stroke(key, "candy", 0) for key in keys} == {Stroke()}

    def test_a_variant_for_each_angle(self, photos: Path, style: Path, tmp_path: Path) -> None:
        out = tmp_path / "pairs"
        assert run(photos, style, out, "--angles", "0,15,30,45", "--split", "train") == 0
        pairs = read(out)
        assert pairs["variant"][:4] == [0, 1, 2, 3] and len(pairs) == 24
        poses = parameters_of(torch.tensor(pairs["alignment"][:]).reshape(-1, 2, 3))
        angles = poses[:, 0].reshape(6, 4)
        assert torch.allclose(angles.abs(), torch.tensor([0.0, 15, 30, 45]).expand(6, 4), atol=1e-3)
        assert {*angles[:, 1:].sign().flatten().tolist()} == {-1, 1}
        assert len({*poses[:, 1].tolist()}) == 24  # the scale is drawn for each

    def test_the_real_surroundings_are_used(self, style: Path, tmp_path: Path) -> None:
        folder = tmp_path / "photos" / "train"
        folder.mkdir(parents=True)
        for name, colour in (("a", "red"), ("b", "blue")):
            ImageOps.expand(drawn.face(), 16, colour).save(folder / f"{name}.png")
        rows = [{"file_name": f"{name}.png", "margin": 16} for name in "ab"]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        read_all = list(
            read_photos(open_photos(str(tmp_path / "photos"))["train"], "train", range(2))
        )
        for photo, pixel in zip(read_all, ((255, 0, 0), (0, 0, 255)), strict=True):
            assert isinstance(photo, Photo)
            assert (photo.margin, photo.context.size) == (16, (160, 160))
            assert photo.context.getpixel((8, 80)) == pixel
            assert np.array_equal(photo.context.crop((16, 16, 144, 144)), photo.picture)
        assert run(tmp_path / "photos", style, tmp_path / "pairs", "--turns", "--seed", "1") == 0
        assert set(read(tmp_path / "pairs")["margin"]) == {16}

    def test_surroundings_of_a_larger_photo_are_scaled_with_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "photos" / "train"
        folder.mkdir(parents=True)
        whole = ImageOps.expand(drawn.face(size=256), 41, "red")
        whole.save(folder / "a.png")
        (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "margin": 41}))
        (photo,) = read_photos(open_photos(str(tmp_path / "photos"))["train"], "train", range(1))
        assert isinstance(photo, Photo)
        assert (photo.margin, photo.context.size) == (20, (168, 168))
        inside = images.to_tensor([photo.context.crop((20, 20, 148, 148))], 128)
        assert made.circle_psnr(inside, images.to_tensor([photo.picture], 128)) > 50

    def test_a_margin_that_leaves_nothing_is_reported(
        self, style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "photos" / "train"
        folder.mkdir(parents=True)
        drawn.face().save(folder / "a.png")
        (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "margin": 64}))
        assert run(tmp_path / "photos", style, tmp_path / "pairs") == 1
        assert "a margin of 64 leaves nothing of 128 x 128 pixels" in capsys.readouterr().err


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
        (["--photos", str(photos), "--style", f"a={style}", "--angles", "0,x"], "--angles 0,x"),
        (["--photos", str(photos), "--style", f"a={style}", "--angles", "-5"], "--angles -5"),
        (
            ["--photos", str(photos), "--style", f"a={style}"]
            + ["--angles", "0,9", "--variants", "2"],
            "leave --variants out",
        ),
    ]
    for arguments, named in cases:
        assert main([*arguments, "--out", str(target)]) == 2, arguments
        assert named in said(capsys)
        assert not target.exists()
    assert run(photos, style, file) == 2
    assert "cannot be written" in said(capsys)


def test_each_photo_is_painted_in_some_of_the_styles(
    photos: Path, style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [part for name in ("even", "prime", "whole") for part in ("--style", f"{name}={style}")]
    for out in ("pairs", "again"):
        assert run(photos, style, tmp_path / out, *more, "--each", "2", "--variants", "2") == 0
    pairs = read(tmp_path / "pairs")
    painted = list(zip(pairs["photo_key"], pairs["variant"], pairs["style"], strict=True))
    places = {(key, variant) for key, variant, _ in painted}
    assert len(painted) == len(set(painted)) == 2 * len(places)
    assert {key for key, _ in places} == {item.key for item in stored(photos)}
    assert {name for _, _, name in painted} == {"odd", "even", "prime", "whole"}
    assert contents(tmp_path / "pairs") == contents(tmp_path / "again")
    capsys.readouterr()
    assert run(photos, style, tmp_path / "third", "--each", "2") == 2
    assert "--each 2: there are 1 styles" in said(capsys)


def stored(photos: Path) -> list[Photo]:
    table = open_photos(str(photos))["train"]
    return list(read_photos(table, "train", range(len(table))))


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


def test_a_run_whose_photos_have_changed_is_another(
    style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = made.photos(tmp_path / "photos", count=2), tmp_path / "pairs"
    assert run(source, style, out) == 0
    path = out / "stylize.json"
    told = json.loads(path.read_text())
    assert told.pop("rows") == {"train": 2}
    source.rename(tmp_path / "before")
    made.photos(source, count=3)
    capsys.readouterr()
    assert run(source, style, out) == 2
    assert "of other photos" in said(capsys)
    # A folder of before rows were written down goes on.
    path.write_text(json.dumps(told, indent=2))
    assert run(source, style, out) == 0
