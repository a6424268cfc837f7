"""Pairs -> batches: the same pictures in the same order, however a run is cut up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader

from face_destyle import UserError, images
from face_destyle.models.similarity import parameters_of, warp
from tests import drawn
from tests.train import made
from train.augment import AugmentConfig
from train.data import ALIGNED, Batch, Pairs, Positions, decode, open_pairs, to_batch
from train.recipe import DataConfig

CHANGES = AugmentConfig(blend=0.5, mix=0.5, noise=0.2, patches=0.5, strokes=0.5, plain=0.2)
PLAIN = AugmentConfig()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.pairs(tmp_path_factory.mktemp("pairs"), splits=("train", "test"))


def open_all(data: Path, changes: AugmentConfig = CHANGES, **config: Any) -> Pairs:
    return Pairs(str(data), DataConfig(**config), changes, seed=0, side=32)


def batches(pairs: Pairs, size: int, start: int = 0, end: int = 24) -> list[torch.Tensor]:
    """Portraits and photos side by side, picture by picture."""
    loader = DataLoader(pairs, batch_size=size, sampler=Positions(len(pairs), start, end, seed=0))
    device = torch.device("cpu")
    made_batches = [to_batch(item, device) for item in loader]
    return [one for batch in made_batches for one in torch.cat([batch.portraits, batch.photos], 3)]


class TestPositions:
    def test_go_on_at_any_image(self) -> None:
        whole = list(Positions(7, 0, 30, seed=3))
        for start in (0, 1, 6, 7, 8, 20, 29):
            assert list(Positions(7, start, 30, seed=3)) == whole[start:]
        assert len(Positions(7, 8, 30, seed=3)) == 22

    def test_every_epoch_has_every_row_once_in_another_order(self) -> None:
        positions = list(Positions(50, 0, 150, seed=0))
        orders = []
        for epoch in range(3):
            part = positions[epoch * 50 : (epoch + 1) * 50]
            assert {e for e, _ in part} == {epoch}
            orders.append([row for _, row in part])
            assert sorted(orders[-1]) == list(range(50))
        assert orders[0] != orders[1] != orders[2]

    def test_another_seed_is_another_order(self) -> None:
        assert list(Positions(50, 0, 50, seed=0)) != list(Positions(50, 0, 50, seed=1))


def test_the_batch_size_does_not_change_a_picture(data: Path) -> None:
    pairs = open_all(data)
    small, large = batches(pairs, 2), batches(pairs, 8)
    assert len(small) == len(large) == 24
    for one, two in zip(small, large, strict=True):
        assert (one - two).abs().max() < 1e-5


def test_a_run_that_goes_on_sees_the_same_pictures(data: Path) -> None:
    pairs = open_all(data)
    whole, rest = batches(pairs, 4), batches(pairs, 4, start=8)
    assert all(torch.equal(one, two) for one, two in zip(whole[8:], rest, strict=True))


def test_the_processes_share_the_batch_of_one(data: Path) -> None:
    positions = BatchSampler(Positions(12, 0, 24, seed=0), 4, drop_last=False)
    whole = list(positions)
    shards = [list(BatchSamplerShard(positions, 2, i, split_batches=True)) for i in (0, 1)]
    assert [one + two for one, two in zip(*shards, strict=True)] == whole


def test_an_item_is_the_pair(data: Path) -> None:
    pairs = open_all(data)
    table = open_pairs(str(data), "train")
    assert len(pairs) == 12
    for row in range(12):
        item = pairs[0, row]
        for name in ("portrait", "photo"):
            assert torch.equal(item[name], decode(table[row][name], 32))
        seconds = [decode(table[sibling]["portrait"], 32) for sibling in (row, row ^ 1)]
        assert any(torch.equal(item["second"], second) for second in seconds)


def test_draws_change_with_the_epoch(data: Path) -> None:
    pairs = open_all(data)
    first, again, later = pairs[0, 5]["draws"], pairs[0, 5]["draws"], pairs[1, 5]["draws"]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["seed"] != later["seed"]


def test_portrait_and_photo_are_mirrored_together(data: Path) -> None:
    pairs = open_all(data, AugmentConfig(), styles=("negative",))
    seen = set()
    for item in DataLoader(pairs, batch_size=1, sampler=Positions(len(pairs), 0, 24, seed=0)):
        batch = to_batch(item, torch.device("cpu"))
        portraits, photos = batch.portraits, batch.photos
        assert (portraits + photos).abs().mean() < 0.02  # it is the negative, not the mirrored one
        seen.add(bool(item["draws"]["mirror"]))
        flipped = bool(item["draws"]["mirror"])
        stored = images.from_uint8(item["photo"])
        assert torch.equal(photos, stored.flip(3) if flipped else stored)
    assert seen == {True, False}


def test_what_is_kept_in_memory_is_what_is_read(data: Path) -> None:
    kept, fresh = batches(open_all(data), 4), batches(open_all(data, cache=False), 4)
    assert all(torch.equal(one, two) for one, two in zip(kept, fresh, strict=True))
    # A photo is kept once, though it belongs to two portraits.
    assert len(open_all(data).cache) == 12 + 6


def test_the_filters(data: Path) -> None:
    table = open_pairs(str(data), "train")
    chosen = open_all(data, styles=("negative",))
    assert {table[row]["style"] for row in chosen.rows} == {"negative"}
    assert len(chosen) == 6
    assert open_all(data, limit=5).rows == [0, 1, 2, 3, 4]
    assert len(open_all(data, split="test")) == 12


def test_variants_are_counted_from_the_plain_one(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    drawn.face().save(folder / "a.png")
    row = {"portrait_file_name": "a.png", "photo_file_name": "a.png"}
    lines = [json.dumps(row | {"variant": variant}) for variant in (0, 1, 2, 0, 1, 2)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert open_all(tmp_path, variants=1).rows == [0, 3]
    assert open_all(tmp_path, variants=2).rows == [0, 1, 3, 4]
    assert len(open_all(tmp_path)) == 6


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.turned_pairs(tmp_path_factory.mktemp("turned"))


def open_turned(folder: Path, changes: AugmentConfig = PLAIN, **config: Any) -> Pairs:
    return Pairs(str(folder), DataConfig(**config), changes, seed=0, side=128)


def whole(pairs: Pairs, epochs: int = 2) -> list[tuple[dict[str, Any], Batch]]:
    """Items and their batches of one."""
    positions = Positions(len(pairs), 0, epochs * len(pairs), seed=0)
    loader = DataLoader(pairs, batch_size=1, sampler=positions)
    return [(item, to_batch(item, torch.device("cpu"))) for item in loader]


def back_psnr(batch: Batch) -> float:
    """How like the photo the portrait is, once its alignment is undone."""
    return made.circle_psnr(warp(batch.portraits, batch.alignment), batch.photos)


class TestTurned:
    def test_nothing_is_turned_by_default(self, data: Path) -> None:
        for _, batch in whole(open_all(data), epochs=1):
            assert torch.equal(batch.alignment + 0.0, ALIGNED[None])

    def test_the_other_draws_stay_as_they_are(self, data: Path) -> None:
        plain, every = open_all(data), open_all(data, turned=1.0)
        for row in range(len(plain)):
            one, two = plain[0, row], every[0, row]
            assert all(np.array_equal(one["draws"][n], two["draws"][n]) for n in one["draws"])
            assert all(torch.equal(one[name], two[name]) for name in ("second", "other"))
            assert not torch.equal(one["turned"], two["turned"])

    def test_an_aligned_portrait_is_turned_anew(self, data: Path) -> None:
        pairs = Pairs(str(data), DataConfig(turned=1.0), PLAIN, seed=0, side=128)
        seen, angles = set(), []
        for item, batch in whole(pairs):
            assert not torch.equal(item["turned"], item["alignment"])
            angles.append(parameters_of(batch.alignment)[0, 0].item())
            seen.add(bool(item["draws"]["mirror"]))
        assert seen == {True, False}
        assert len(set(angles)) == 24 and max(angles) > 30 and min(angles) < -30

    def test_the_chance(self, data: Path) -> None:
        pairs = open_all(data, turned=0.3)
        found = [
            torch.equal(pairs[epoch, row]["turned"], ALIGNED)
            for epoch in range(20)
            for row in range(12)
        ]
        assert np.mean(found) == pytest.approx(0.7, abs=0.1)

    @pytest.mark.parametrize("chance", [0.0, 1.0])
    def test_the_alignment_brings_the_portrait_back(self, turned: Path, chance: float) -> None:
        """Mirrored or not, turned once or twice."""
        pairs = open_turned(turned, styles=("same",), turned=chance)
        mirrors = set()
        for item, batch in whole(pairs):
            assert back_psnr(batch) > 24
            assert made.circle_psnr(batch.portraits, batch.photos) < 22
            mirrors.add(bool(item["draws"]["mirror"]))
            angles = [parameters_of(item[name])[0] for name in ("alignment", "turned")]
            assert (angles[0] - angles[1])[0].abs() <= 9.001
            assert torch.equal(*angles) is (chance == 0)
            assert angles[1][0].abs() <= 45 and 0.8 <= angles[1][1] + 1e-6 <= 1.001
        assert mirrors == {True, False}

    def test_a_turn_of_an_aligned_portrait_is_undone_too(self, tmp_path: Path) -> None:
        folder = tmp_path / "train"
        folder.mkdir()
        drawn.face().save(folder / "a.png")
        row = {"portrait_file_name": "a.png", "photo_file_name": "a.png"}
        (folder / "metadata.jsonl").write_text(json.dumps(row))
        pairs = open_turned(tmp_path, turned=1.0)
        found = whole(pairs, epochs=12)
        assert min(back_psnr(batch) for _, batch in found) > 24
        assert {bool(item["draws"]["mirror"]) for item, _ in found} == {True, False}

    def test_only_portraits_that_lie_alike_are_mixed(self, turned: Path) -> None:
        pairs = open_turned(turned, AugmentConfig(blend=1.0))
        table = open_pairs(str(turned), "train")
        partners = set()
        for epoch in range(6):
            for row in range(len(pairs)):
                second = pairs[epoch, row]["second"]
                alike = [
                    torch.equal(second, decode(table[sibling]["portrait"], 128))
                    for sibling in (row, row ^ 1)
                ]
                assert sum(alike) == 1
                partners.add(alike[0])
        assert partners == {True, False}  # the other style of the same turn is among them

    def test_a_batch_is_turned_as_its_portraits_are_alone(self, data: Path) -> None:
        pairs = open_all(data, turned=0.5)
        small, large = batches(pairs, 1), batches(pairs, 8)
        assert max((one - two).abs().max() for one, two in zip(small, large, strict=True)) < 1e-4

    def test_an_alignment_that_is_none_is_named(self, tmp_path: Path) -> None:
        folder = made.turned_pairs(tmp_path, count=1)
        path = folder / "train" / "metadata.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[2]["alignment"] = [1.0, 0.0]
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(UserError, match="alignment of row 2 is not six numbers"):
            open_turned(folder)


class TestMessages:
    def test_an_unknown_style_is_named(self, data: Path) -> None:
        with pytest.raises(UserError, match=r"no style cubist; it has .*negative"):
            open_all(data, styles=("negative", "cubist"))

    def test_a_missing_split_is_named(self, data: Path) -> None:
        with pytest.raises(UserError, match=r"no split valid; it has .*train"):
            open_all(data, split="valid")

    def test_no_source(self) -> None:
        with pytest.raises(UserError, match=r"--data, or data\.pairs"):
            open_pairs("", "train")

    def test_a_folder_of_pictures_is_told_how_to_be_pairs(self, tmp_path: Path) -> None:
        for kind in ("painted", "true"):  # datasets takes the folders for labels
            (tmp_path / "train" / kind).mkdir(parents=True)
            drawn.face().save(tmp_path / "train" / kind / "a.png")
        with pytest.raises(UserError, match=r"no picture column portrait.*portrait_file_name"):
            open_pairs(str(tmp_path), "train")

    def test_nothing_left(self, data: Path, tmp_path: Path) -> None:
        folder = tmp_path / "train"
        folder.mkdir()
        drawn.face().save(folder / "a.png")
        row = {"portrait_file_name": "a.png", "photo_file_name": "a.png", "variant": 1}
        (folder / "metadata.jsonl").write_text(json.dumps(row))
        with pytest.raises(UserError, match="no pairs of split train are left"):
            open_all(tmp_path, variants=1)
