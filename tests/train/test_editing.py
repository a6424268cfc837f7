"""Attributes in training: what is kept back, what is wrong, what is flipped, and who judges it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from face_destyle import AttributeClassifier, AttributeClassifierConfig, UserError
from face_destyle.attributes import COUNT, NAMES, UNKNOWN, Vector, to_mapping, to_vector
from tests.train import made
from train.augment import AugmentConfig
from train.data import Pairs, Positions, open_pairs, to_batch
from train.editing import (
    Edited,
    ObedienceLoss,
    draw_wishes,
    flip,
    flip_one,
    in_colours_of,
    keep_some,
    labels,
    stated,
    wrong_labels,
)
from train.recipe import AttributesConfig, DataConfig, dump_recipe, load_recipe

BLACK, BLOND, SMILING = (NAMES.index(n) for n in ("Black_Hair", "Blond_Hair", "Smiling"))


def face(text: str) -> Vector:
    """A face of which all is known: what the text names it has, all else not."""
    named = to_vector(text)
    return tuple(0.0 if math.isnan(value) else value for value in named)


def same(one: Any, two: Any) -> bool:
    return torch.equal(*(torch.tensor(vector).nan_to_num(9) for vector in (one, two)))


class TestLabels:
    def test_columns_or_fields_of_one(self, tmp_path: Path) -> None:
        for kind in (False, True):
            folder = made.pairs(tmp_path / str(kind), count=3)
            made_rows(folder, nested=kind)
            found = labels(open_pairs(str(folder), "train"), "x")
            assert found.shape == (6, COUNT)
            assert found[:, SMILING].nan_to_num(9).tolist() == [1, 1, 0, 0, 9, 9]
            assert found[:, BLOND].nan_to_num(9).tolist() == [0, 0, 0, 0, 9, 9]
            assert found[:, BLACK].isnan().all()

    def test_none_at_all(self, tmp_path: Path) -> None:
        assert labels(open_pairs(str(made.pairs(tmp_path)), "train"), "x").isnan().all()

    def test_celebas_own_numbers(self, tmp_path: Path) -> None:
        folder = made.pairs(tmp_path, count=2)
        rewrite(folder, lambda n: {"Smiling": (-1, 1)[n // 2], "Young": (0, 1)[n // 2]})
        found = labels(open_pairs(str(folder), "train"), "x")
        assert found[:, SMILING].tolist() == found[:, -1].tolist() == [0, 0, 1, 1]

    def test_another_value_is_named(self, tmp_path: Path) -> None:
        folder = made.pairs(tmp_path, count=2)
        rewrite(folder, lambda n: {"Smiling": n})
        with pytest.raises(UserError, match=r"^x: Smiling of row 2 is 2; use True, False or null"):
            labels(open_pairs(str(folder), "train"), "x")


def rewrite(folder: Path, columns: Any) -> None:
    """Add `columns(row)` to the rows of a folder of pairs."""
    path = folder / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps(row | columns(number)) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines))


def made_rows(folder: Path, nested: bool) -> None:
    """One face that smiles, one that does not, then faces of which nothing is known."""

    def columns(row: int) -> dict[str, Any]:
        known = {"Smiling": row < 2, "Blond_Hair": False, "Male": row < 2}
        found = known if row < 4 else dict.fromkeys(known)
        return {"attributes": found} if nested else found

    rewrite(folder, columns)


def test_some_are_kept_back() -> None:
    rng = np.random.default_rng(0)
    own = face("Smiling,Male")
    drawn = [keep_some(own, AttributesConfig(0.2, 1.0), rng) for _ in range(2000)]
    known = np.array([[not math.isnan(value) for value in vector] for vector in drawn])
    counts = known.sum(1)
    assert np.mean(counts == 0) == pytest.approx(0.2 + 0.8 / 19, abs=0.03)
    for count in (1, 9, 17, 18):  # every number of known ones alike likely
        assert np.mean(counts == count) == pytest.approx(0.8 / 19, abs=0.02)
    assert known.mean(0) == pytest.approx(0.4, abs=0.05)
    for vector, row in zip(drawn, known, strict=True):
        assert all(value == label for value, label, k in zip(vector, own, row, strict=True) if k)
    assert keep_some(own, AttributesConfig(), rng) == own


def test_wrong_labels_are_as_much_known() -> None:
    asked = to_vector("Smiling,-Young")
    assert same(wrong_labels(asked, face("Young")), to_vector("-Smiling,Young"))
    assert same(wrong_labels(asked, to_vector("-Smiling")), to_vector("-Smiling,-Young"))


def test_labels_that_are_no_different_are_not_wrong() -> None:
    asked = to_vector("Smiling,-Young")
    for other in (face("Smiling,Male"), UNKNOWN):
        assert same(wrong_labels(asked, other), UNKNOWN)
    assert same(wrong_labels(UNKNOWN, face("Male")), UNKNOWN)


class TestFlip:
    def test_one_attribute(self) -> None:
        own = face("Smiling,Male")
        assert flip(own, own, "Smiling") == face("Male")
        assert flip(own, own, "Young") == face("Smiling,Male,Young")

    def test_what_is_unknown_is_asked_for(self) -> None:
        assert same(flip(UNKNOWN, face("Smiling"), "Smiling"), to_vector("-Smiling"))
        assert same(flip(UNKNOWN, face("Male"), "Blond_Hair"), to_vector("Blond_Hair"))

    def test_hair_of_one_colour_gets_another(self) -> None:
        own = face("Black_Hair,Young")
        assert flip(own, own, "Black_Hair", "Blond_Hair") == face("Blond_Hair,Young")
        assert flip(own, own, "Gray_Hair", "Blond_Hair") == face("Gray_Hair,Young")

    def test_every_attribute_alike_often(self) -> None:
        rng = np.random.default_rng(0)
        own = face("Black_Hair,Smiling")
        counts = dict.fromkeys(NAMES, 0)
        for _ in range(3000):
            flipped = flip_one(own, own, AttributesConfig(flip=0.5), rng)
            for name, (before, after) in zip(NAMES, zip(own, flipped, strict=True), strict=True):
                counts[name] += before != after and not math.isnan(after)
        share = 1500 / COUNT
        # Black hair goes with its own turn, with every other colour's, and with baldness.
        assert counts["Black_Hair"] == pytest.approx(5 * share, rel=0.2)
        assert counts["Blond_Hair"] == pytest.approx(share * 4 / 3, rel=0.3)
        for name in ("Smiling", "Young", "Male", "Mustache"):
            assert counts[name] == pytest.approx(share, rel=0.35)

    def test_a_face_of_which_nothing_is_known_is_left_alone(self) -> None:
        wishes = draw_wishes(
            torch.tensor(UNKNOWN),
            torch.tensor(face("Male")),
            AttributesConfig(flip=1.0),
            np.random.default_rng(0),
        )
        assert all(vector.isnan().all() for vector in wishes.values())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.pairs(tmp_path_factory.mktemp("pairs"), count=4)
    made_rows(folder, nested=True)
    return folder


def batches(data: Path, size: int, start: int = 0, **attributes: float) -> list[list[Any]]:
    """The three vectors of every item, row by row."""
    config = DataConfig(attributes=AttributesConfig(**attributes))
    pairs = Pairs(str(data), config, AugmentConfig(), seed=0, side=32)
    loader = torch.utils.data.DataLoader(
        pairs, batch_size=size, sampler=Positions(len(pairs), start, 48, seed=0)
    )
    found: list[list[Any]] = []
    for item in loader:
        batch = to_batch(item, torch.device("cpu"))
        vectors = (batch.attributes, batch.wrong, batch.flipped)
        assert all(v is not None and v.shape == (len(batch.photos), COUNT) for v in vectors)
        found += [list(row) for row in zip(*vectors, strict=True)]  # type: ignore[arg-type]
    return found


def test_batches_do_not_depend_on_their_size_or_on_where_a_run_starts(data: Path) -> None:
    options = {"drop_all": 0.2, "drop_each": 0.5, "flip": 0.5}
    whole = batches(data, 1, **options)
    for other in (batches(data, 8, **options), batches(data, 4, start=16, **options)):
        for one, two in zip(whole[-len(other) :], other, strict=True):
            assert all(
                same(first.tolist(), second.tolist())
                for first, second in zip(one, two, strict=True)
            )
    assert len({str(row) for row in whole}) > 8


def test_a_batch_has_what_the_rows_say(data: Path) -> None:
    whole = batches(data, 4, flip=1.0)
    known = [row for row in whole if not row[0].isnan().all()]
    assert len(known) == 24
    for asked, wrong, flipped in known:
        assert (~asked.isnan()).sum() == 3 and asked[BLOND] == 0
        # The two known faces differ in smile and gender, and are often the same one.
        assert wrong.isnan().all() or wrong[SMILING] == 1 - asked[SMILING]
        named = to_mapping(flipped.tolist())
        assert flipped.isnan().all() or named["Blond_Hair"] or flipped[BLOND] == 0
    assert {bool(wrong.isnan().all()) for _, wrong, _ in known} == {True, False}
    assert {bool(flipped.isnan().all()) for *_, flipped in known} == {True, False}
    assert sum(row[1].isnan().all() and row[2].isnan().all() for row in whole) >= 24


def test_nothing_is_flipped_or_kept_back_by_default(data: Path) -> None:
    for asked, _, flipped in batches(data, 4):
        assert flipped.isnan().all() and (~asked.isnan()).sum() in (0, 3)


def test_the_rows_that_say_anything() -> None:
    vectors = torch.full((3, COUNT), math.nan)
    vectors[1, 4] = 0
    assert stated(vectors).tolist() == [1]
    assert stated(None).tolist() == []


class Reader(AttributeClassifier):
    """Reads what it is told, whatever it sees."""

    model_type = ""

    def __init__(self, logits: torch.Tensor, thresholds: tuple[float, ...] = (0.5,) * COUNT):
        super().__init__(AttributeClassifierConfig(widths=(4,), blocks=(0,), thresholds=thresholds))
        self.logits = logits

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(faces), -1) + 0 * faces.mean()


def edited(asked: str, wished: str, rows: tuple[int, ...] = (1,)) -> Edited:
    photos = torch.zeros(len(rows), 3, 8, 8, requires_grad=True)
    vectors = [torch.tensor([to_vector(text)] * len(rows)) for text in (asked, wished)]
    return Edited(torch.tensor(rows), vectors[0], vectors[1], photos)


class TestObedience:
    fake = torch.zeros(4, 3, 8, 8)

    def parts(self, loss: ObedienceLoss, given: Edited) -> dict[str, float]:
        return {name: value.item() for name, value in loss(given, self.fake).items()}

    def test_what_changed_and_what_is_kept_weigh_the_same(self) -> None:
        logits = torch.zeros(COUNT)
        logits[SMILING] = -2.0
        given = edited("-Smiling,Male,Young", "Smiling,Male,Young")
        parts = self.parts(ObedienceLoss(Reader(logits), 0.5), given)
        assert parts.keys() == {"obedience", "obedience_kept"}
        expected = -torch.tensor(-2.0).sigmoid().log() * 0.5 / 4  # one of four rows is edited
        assert parts["obedience"] == pytest.approx(expected.item())
        assert parts["obedience_kept"] == pytest.approx(math.log(2) * 0.5 / 4)

    def test_an_attribute_that_was_unknown_is_a_change(self) -> None:
        logits = torch.full((COUNT,), 3.0)
        parts = self.parts(ObedienceLoss(Reader(logits), 1.0), edited("", "Smiling"))
        expected = -torch.tensor(3.0).sigmoid().log() / 4
        assert parts["obedience"] == pytest.approx(expected.item())
        assert parts["obedience_kept"] == 0

    def test_it_is_the_threshold_that_counts(self) -> None:
        thresholds = (0.1,) * COUNT
        logits = torch.tensor(thresholds).logit()
        parts = self.parts(ObedienceLoss(Reader(logits, thresholds), 4.0), edited("", "Smiling"))
        assert parts["obedience"] == pytest.approx(math.log(2), abs=1e-5)

    def test_both_faces_shall_be_alike(self) -> None:
        seen = []

        def identity(one: torch.Tensor, two: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append((one, two))
            return {"identity": (one - two).square().mean()}

        fake = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8).requires_grad_()
        loss = ObedienceLoss(Reader(torch.zeros(COUNT)), 1.0, identity)  # type: ignore[arg-type]
        parts = loss(edited("", "Smiling", (1, 3)), fake)
        assert parts["obedience_identity"] == (1 + 9) / 2 * 2 / 4
        assert not seen[0][1].requires_grad and seen[0][0].requires_grad

    def test_what_is_local_is_cheap(self) -> None:
        fake = torch.zeros(4, 3, 8, 8)
        fake[1, 0, 0, 0] = 2.0
        loss = ObedienceLoss(Reader(torch.zeros(COUNT)), 1.0, pixel=3.0)
        parts = loss(edited("", "Smiling"), fake)
        assert parts["obedience_pixel"].item() == pytest.approx(3 * 4 / 192 / 4)
        assert "obedience_pixel" not in self.parts(
            ObedienceLoss(Reader(torch.zeros(COUNT)), 1.0), edited("", "Smiling")
        )

    def test_a_cast_over_the_whole_photo_earns_nothing(self) -> None:
        photos = torch.rand(2, 3, 8, 8)
        cast = photos * torch.tensor([0.5, 1.0, 2.0])[:, None, None] + 0.3
        torch.testing.assert_close(in_colours_of(cast, photos), photos)
        flat = torch.zeros(2, 3, 8, 8, requires_grad=True)
        in_colours_of(flat, photos).square().sum().backward()
        assert flat.grad is not None and flat.grad.isfinite().all()

    def test_the_classifier_is_frozen(self) -> None:
        judge = AttributeClassifier(
            AttributeClassifierConfig(image_size=8, widths=(4,), blocks=(0,))
        )
        given = edited("", "Smiling")
        total = sum(ObedienceLoss(judge.train(), 1.0)(given, self.fake).values())
        assert isinstance(total, torch.Tensor)
        total.backward()
        assert given.photos.grad is not None and given.photos.grad.abs().max() > 0
        assert not judge.training and all(p.grad is None for p in judge.parameters())


def test_a_classifier_is_shared_by_name_alone(tmp_path: Path) -> None:
    loss = {"obedience": 0.1, "obedience_network": "/home/somebody/reader"}
    recipe = load_recipe(made.recipe(tmp_path, tmp_path, loss=loss))
    assert "/home" not in dump_recipe(recipe) and "reader" in dump_recipe(recipe)


def test_the_published_recipe_is_read() -> None:
    recipe = load_recipe(Path(train.__file__).parent / "recipes" / "fdnn-afrp.yaml")
    assert {recipe.model.type, recipe.discriminator.type} == {"afrp", "afrp-discriminator"}
    assert recipe.data.attributes.flip > 0 and recipe.loss.edited > 0
