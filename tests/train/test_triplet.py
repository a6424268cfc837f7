"""Triplets of views: who is in them, what becomes of them, the loss, and a run on them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from face_destyle import TANN, HubModel, images
from face_destyle.errors import UserError
from face_destyle.models.similarity import parameters_of
from tests import drawn
from tests.train import made
from train.data import Batch, Positions
from train.fit import Trainer, fit, main
from train.recipe import DataConfig, ViewsConfig, load_recipe
from train.tiny import TinyConfig
from train.triplet import TripletLoss, Triplets, distances, to_triplets
from train.views import FEATURES

YAWS = (-60.0, -30.0, 0.0, 30.0, 60.0)
ANCHORS, POSITIVES, NEGATIVES = (slice(4 * n, 4 * n + 4) for n in range(3))
STILL = {"angle": 0.0, "scale": [1.0, 1.0], "shift": 0.0}
CLEAN = {"turns": STILL, "soft": 0.0, "noise": 0.0, "jpeg": 0.0}
TINY_TANN = {
    "encoder_widths": [8, 8, 8],
    "encoder_blocks": [0, 0, 0],
    "localisation_widths": [4, 4, 4],
    "localisation_full": 4,
    "code_rank": 6,
    "decoder_widths": [8, 8],
    "coarse_side": 0,
    "decoder_kernels": [3, 3],
    "decoder_blocks": [0, 0],
    "decoder_transformers": [16],
    "tail_width": 8,
}


def head(person: int, yaw: float) -> Image.Image:
    """A drawn face made narrower, as much as the head is turned, and moved to that side."""
    width = round(128 * np.cos(np.radians(yaw)))
    turned = Image.new("RGB", (128, 128), (128, 128, 128))
    narrow = drawn.face(person).resize((width, 128))
    turned.paste(narrow, (128 - width if yaw > 0 else 0, 0))
    return turned


def write_views(folder: Path, people: int = 4, photos: int = 1, split: str = "train") -> Path:
    """The views of so many people, in the layout of train.views."""
    rows = [
        {
            "view": head(photos * person + photo, yaw),
            "photo": drawn.face(photos * person + photo),
            "yaw": yaw,
            "pitch": 0.0,
            "identity": f"p{person}",
            "photo_key": f"{split}-{person}-{photo}",
            "split": split,
        }
        for person in range(people)
        for photo in range(photos)
        for yaw in YAWS
    ]
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(str(folder / f"{split}-0.parquet"))
    return folder


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("views"), photos=2)


def open_triplets(
    folder: Path, mirrored: bool = False, sides: tuple[int, int] = (16, 128), **fields: Any
) -> Triplets:
    data = {name: fields.pop(name) for name in ("split", "limit", "cache") if name in fields}
    config = DataConfig(pairs=str(folder), views=ViewsConfig(use=True, **fields), **data)
    return Triplets(config, mirrored, 0, sides)


def batches(triplets: Triplets, count: int = 4, side: int = 16) -> list[Batch]:
    positions = Positions(len(triplets), 0, len(triplets), 0)
    loader = DataLoader(triplets, batch_size=count, sampler=positions)
    return [to_triplets(item, torch.device("cpu"), side) for item in loader]


def person(photo: torch.Tensor) -> int:
    """Whose photo `(3, 128, 128)` it is, mirrored or not: the person who was drawn."""
    faces = drawn.faces(8)
    away = [min((photo - f).abs().mean(), (photo - f.flip(2)).abs().mean()) for f in faces]
    assert min(away) < 0.01
    return int(np.argmin(away)) // 2


class TestTriplets:
    def test_who_is_in_them(self, views: Path) -> None:
        triplets = open_triplets(views)
        assert len(triplets) == 4 * 2 * 4  # people, photos, turned views
        found = batches(triplets)
        assert len(found) == 8
        pairs = set()
        for batch in found:
            assert batch.triplets
            assert batch.portraits.shape == (12, 3, 16, 16)
            assert batch.photos.shape == (12, 3, 128, 128)
            assert batch.alignment.shape == (12, 2, 3)
            assert batch.portraits.abs().max() <= 1
            assert torch.equal(batch.photos[ANCHORS], batch.photos[POSITIVES])
            for own, other in zip(batch.photos[ANCHORS], batch.photos[NEGATIVES], strict=True):
                pairs.add((person(own), person(other)))
        assert all(own != other for own, other in pairs)
        assert {own for own, _ in pairs} == {other for _, other in pairs} == set(range(4))

    def test_anchors_are_turned_and_the_others_frontal(self, views: Path) -> None:
        tiny = TinyConfig(**{**CLEAN, "turns": replace(TinyConfig().turns, **_fields(STILL))})
        for batch in batches(open_triplets(views, tiny=tiny)):
            small = torch.nn.functional.interpolate(
                batch.photos, size=(16, 16), mode="bicubic", antialias=True
            )
            away = (batch.portraits - small).abs().flatten(1).mean(1)
            assert away[ANCHORS].min() > 0.05
            assert max(away[POSITIVES].max(), away[NEGATIVES].max()) < 0.02

    def test_the_other_person_may_be_turned(self, views: Path) -> None:
        tiny = TinyConfig(**{**CLEAN, "turns": replace(TinyConfig().turns, **_fields(STILL))})
        for batch in batches(open_triplets(views, tiny=tiny, negative="turned")):
            small = torch.nn.functional.interpolate(
                batch.photos, size=(16, 16), mode="bicubic", antialias=True
            )
            away = (batch.portraits - small).abs().flatten(1).mean(1)
            assert min(away[ANCHORS].min(), away[NEGATIVES].min()) > 0.05
            assert away[POSITIVES].max() < 0.02
            for own, other in zip(batch.photos[ANCHORS], batch.photos[NEGATIVES], strict=True):
                assert person(own) != person(other)

    def test_each_is_made_tiny_by_its_own_draw(self, views: Path) -> None:
        (batch, *_) = batches(open_triplets(views))
        angles = parameters_of(batch.alignment)[:, 0]
        assert len(set(angles.tolist())) == 12
        assert angles.abs().max() > 15

    def test_a_half_is_mirrored_view_and_photo(self, views: Path) -> None:
        triplets = open_triplets(views, mirrored=True)
        items = [triplets[epoch, 0] for epoch in range(40)]
        assert 8 < sum(bool(item["mirror"]) for item in items) < 32
        kept, flipped = (
            next(item for item in items if bool(item["mirror"]) is wanted)
            for wanted in (False, True)
        )
        for item in (kept, flipped):
            batch = to_triplets(
                {"draws": _collated(item["draws"]), "mirror": torch.tensor([item["mirror"]])}
                | {name: item[name][None] for name in ("views", "photos")},
                torch.device("cpu"),
                16,
            )
            stored = images.from_uint8(item["photos"])
            assert torch.equal(batch.photos, stored.flip(3) if item is flipped else stored)

    def test_the_same_from_the_same_position(self, views: Path) -> None:
        kept, fresh = open_triplets(views), open_triplets(views, cache=False)
        for one, two in zip(batches(kept), batches(fresh), strict=True):
            assert torch.equal(one.portraits, two.portraits)
            assert torch.equal(one.photos, two.photos)
        assert not torch.equal(kept[0, 0]["draws"]["alignment"], kept[1, 0]["draws"]["alignment"])
        # A photo is kept once, though five views are of it.
        assert len(kept.cache) == 40 + 8

    def test_frontal_ones_alone(self, views: Path) -> None:
        assert len(open_triplets(views, widest=45.0)) == 16
        frontal = open_triplets(views, widest=0.0)
        assert {frontal.keys[row] for row in frontal.rows} == set(frontal.keys)
        assert len(frontal) == 8
        item = frontal[0, 0]
        assert torch.equal(item["views"][0], item["views"][1])

    def test_the_view_itself_as_the_target(self, views: Path) -> None:
        triplets = open_triplets(views, sides=(32, 128), target="view")
        item = triplets[0, 1]
        assert torch.equal(item["views"], item["photos"])
        assert not torch.equal(item["photos"][0], item["photos"][1])

    @pytest.mark.parametrize(
        ("people", "fields", "message"),
        [
            (1, {}, "one person alone; triplets need two"),
            (2, {"widest": 20.0}, "no views of frontal faces within 20 degrees"),
            (2, {"split": "test"}, "has no split test"),
        ],
    )
    def test_what_cannot_be_learnt_from(
        self, tmp_path: Path, people: int, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            open_triplets(write_views(tmp_path, people), **fields)

    def test_pairs_are_no_views(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no picture column view.*make views by train\.views"):
            open_triplets(made.pairs(tmp_path))


class TestLoss:
    CODES = torch.tensor(
        [
            *([0.0, 0.0], [0.0, 0.0]),  # anchors
            *([2.0, 0.0], [1.0, 0.0]),  # positives
            *([0.0, 1.0], [0.0, 3.0]),  # negatives
        ]
    )

    def test_value(self) -> None:
        own, other = (distances(self.CODES[:2], self.CODES[n : n + 2]) for n in (2, 4))
        assert own.tolist() == [2.0, 0.5] and other.tolist() == [0.5, 4.5]
        for symmetric in (False, True):
            assert TripletLoss(1.0, 0.0, symmetric)(self.CODES)["triplet"] == 0.75
            assert TripletLoss(0.1, 5.0, symmetric)(self.CODES)["triplet"] == pytest.approx(0.375)

    def test_the_authors_form_moves_the_anchor_towards_its_own_code_alone(self) -> None:
        codes = self.CODES.clone().requires_grad_()
        TripletLoss(1.0)(codes)["triplet"].backward()
        # (z_a - z_p) * 2 / (N D) where the hinge is active: papers 4.4.
        assert codes.grad.tolist() == [[-1.0, 0.0]] + 5 * [[0.0, 0.0]]

    def test_the_symmetric_form_moves_all_three(self) -> None:
        codes = self.CODES.clone().requires_grad_()
        TripletLoss(1.0, symmetric=True)(codes)["triplet"].backward()
        idle = [0.0, 0.0]
        expected = [[-1.0, 0.5], idle, [1.0, 0.0], idle, [0.0, -0.5], idle]
        assert torch.allclose(codes.grad, torch.tensor(expected))

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_it_draws_together_whom_it_shall(self, symmetric: bool) -> None:
        torch.manual_seed(0)
        codes = torch.randn(30, 8, requires_grad=True)
        loss = TripletLoss(1.0, 0.5, symmetric)
        optimizer = torch.optim.SGD([codes], 4.0)
        first = loss(codes)["triplet"].item()
        for _ in range(60):
            optimizer.zero_grad()
            loss(codes)["triplet"].backward()
            optimizer.step()
        assert loss(codes)["triplet"].item() < 0.2 * first

    def test_a_network_without_a_code(self) -> None:
        with pytest.raises(UserError, match=r"no latent code: set loss\.triplet to 0"):
            TripletLoss()(None)


def recipe_file(folder: Path, views: Path, **sections: dict[str, Any]) -> Path:
    """A recipe of tiny networks on views; `sections` are laid over it."""
    data = {"views": {"use": True}} | sections.pop("data", {})
    fields: dict[str, dict[str, Any]] = {
        "model": {"type": "tann", "config": TINY_TANN},
        "discriminator": {"type": "tann-discriminator", "config": made.DISCRIMINATOR},
        "loss": {"triplet": 0.01, "triplet_margin": 1.0, "alignment": 0.1},
        "train": {"images": 72, "batch_size": 12, "save_every": 36, "sample_every": 36}
        | {"log_every": 12},
    }
    for name, values in sections.items():
        fields[name] = fields[name] | values
    path = made.recipe(folder, views, **fields)
    whole = yaml.safe_load(path.read_text())
    whole["data"] |= data
    path.write_text(yaml.safe_dump(whole))
    return path


def states(weights: Path) -> dict[str, torch.Tensor]:
    inner = HubModel.from_pretrained(weights, subfolder="discriminator").state_dict()
    return HubModel.from_pretrained(weights).state_dict() | {f"d.{k}": v for k, v in inner.items()}


class TestRun:
    def test_six_steps_equal_three_and_three(self, tmp_path: Path, views: Path) -> None:
        recipe = load_recipe(recipe_file(tmp_path, views))
        whole = states(fit(recipe, tmp_path / "whole"))
        fit(recipe, tmp_path / "parts", stop_at=36)
        parts = states(fit(recipe, tmp_path / "parts"))
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())
        lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
        assert len(lines) == 6 and '"triplet"' in lines[0] and '"alignment"' in lines[0]
        grid = Image.open(tmp_path / "whole" / "samples" / "0000000036.png")
        assert grid.size == (8 * 32, 3 * 32)
        assert isinstance(HubModel.from_pretrained(tmp_path / "whole" / "weights"), TANN)

    def test_it_learns_a_few_views(self, tmp_path: Path, views: Path) -> None:
        tiny = {"views": {"use": True, "tiny": CLEAN}}
        train = {"images": 600, "log_every": 60}
        options = {"data": tiny, "train": train, "loss": {"adversarial": 0.0}}
        fit(load_recipe(recipe_file(tmp_path, views, **options)), tmp_path / "run")
        log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        assert json.loads(log[-1])["pixel"] < 0.6 * json.loads(log[0])["pixel"]

    def test_the_triplet_loss_moves_the_encoder(self, tmp_path: Path, views: Path) -> None:
        loss = {"pixel": 0.0, "l1": 1e-9, "adversarial": 0.0, "alignment": 0.0}
        path = recipe_file(tmp_path, views, loss=loss | {"triplet": 1.0, "triplet_symmetric": True})
        trainer = Trainer(load_recipe(path), Accelerator(cpu=True))
        (batch, *_) = batches(open_triplets(views, sides=(16, 32)))
        before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
        assert "triplet" in trainer.step(batch, 0)
        state = trainer.generator.state_dict()
        assert not torch.equal(before["encoder.0.0.conv.weight"], state["encoder.0.0.conv.weight"])

    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"train": {"batch_size": 8}}, "batch_size is 8: views come in triplets"),
            ({"data": {"views": {"use": False}}}, "tann learns from views: set data.views.use"),
        ],
    )
    def test_what_does_not_fit_is_one_line(
        self,
        tmp_path: Path,
        views: Path,
        capsys: pytest.CaptureFixture[str],
        sections: dict[str, Any],
        message: str,
    ) -> None:
        path = recipe_file(tmp_path, views, **sections)
        assert main(["--recipe", str(path), "--out", str(tmp_path / "run")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def _collated(draws: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value[None] for name, value in draws.items()}


def _fields(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
