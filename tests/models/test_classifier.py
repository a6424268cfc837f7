"""The classifier of attributes."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from face_destyle import (
    AttributeClassifier,
    AttributeClassifierConfig,
    HubModel,
    PictureError,
    WeightsError,
)
from face_destyle.attributes import COUNT, NAMES, excluded_by
from face_destyle.configs import config_from_dict
from tests import drawn
from tests.models.test_fdnn import MEGABYTE, convolutions, half_bytes
from tests.models.test_ifrp import multiply_adds
from tests.models.tester import ModelTester

SMALL = AttributeClassifierConfig(widths=(8, 8, 8, 8), pooled=2)


class TestAttributeClassifier(ModelTester):
    model_class = AttributeClassifier
    small: ClassVar[AttributeClassifierConfig] = SMALL

    def test_one_logit_an_attribute(self, model: AttributeClassifier) -> None:
        assert model(self.pictures()).shape == (3, COUNT)

    @pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 128, 128), (1, 1, 128, 128)])
    def test_another_shape_is_refused(
        self, model: AttributeClassifier, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ValueError, match=r"takes \(N, 3, 128, 128\).*predict\(\)"):
            model(torch.zeros(shape))

    def test_colours_are_seen(self, model: AttributeClassifier) -> None:
        """The same face in other colours, without another edge, is another face."""
        face = self.pictures(1) * 0.4
        for change in ((0.3, 0.3, 0.3), (0.3, 0.0, -0.3)):
            other = face + torch.tensor(change)[None, :, None, None]
            assert (model(other) - model(face)).abs().max() > 0.01

    def test_training_drops_out(self, model: AttributeClassifier) -> None:
        assert not torch.equal(model.train()(self.pictures()), model(self.pictures()))

    def test_the_class_of_the_file(self, model: AttributeClassifier, tmp_path: Path) -> None:
        thresholds = tuple(0.1 + 0.02 * n for n in range(COUNT))
        tuned = AttributeClassifier(replace(SMALL, thresholds=thresholds))
        tuned.save_pretrained(tmp_path)
        loaded = HubModel.from_pretrained(tmp_path)
        assert type(loaded) is AttributeClassifier
        assert loaded.config.thresholds == thresholds
        assert "image-classification" in (tmp_path / "README.md").read_text()


class TestPredict:
    @pytest.fixture
    def model(self) -> AttributeClassifier:
        torch.manual_seed(0)
        return AttributeClassifier(SMALL).eval()

    def test_probabilities_by_name(self, model: AttributeClassifier) -> None:
        found = model.predict(drawn.face(1))
        assert tuple(found) == NAMES
        expected = model(drawn.faces(2)[1:])[0].sigmoid().tolist()
        assert list(found.values()) == pytest.approx(expected, abs=1e-6)

    def test_a_file_of_another_size(self, model: AttributeClassifier, tmp_path: Path) -> None:
        drawn.face(0, 300).save(tmp_path / "face.png")
        assert model.predict(tmp_path / "face.png") == model.predict(drawn.face(0, 300))
        with pytest.raises(PictureError, match="none.png"):
            model.predict(tmp_path / "none.png")

    def test_training_goes_on_as_it_was(self, model: AttributeClassifier) -> None:
        expected = model.predict(drawn.face())
        assert model.train().predict(drawn.face()) == expected
        assert model.training

    def test_half_precision(self, model: AttributeClassifier) -> None:
        exact = model.predict(drawn.face())
        close = model.bfloat16().predict(drawn.face())
        assert list(close.values()) == pytest.approx(list(exact.values()), abs=0.05)


class TestDecide:
    def decide(self, thresholds: dict[str, float], **probabilities: float) -> set[str]:
        config = replace(SMALL, thresholds=tuple(thresholds.get(name, 0.5) for name in NAMES))
        given = {name: probabilities.get(name, 0.1) for name in NAMES}
        vector = AttributeClassifier(config).decide(given)
        assert len(vector) == COUNT and set(vector) <= {0.0, 1.0}
        return {name for name, value in zip(NAMES, vector, strict=True) if value}

    def test_above_its_threshold(self) -> None:
        assert self.decide({}, Smiling=0.7, Young=0.4) == {"Smiling"}
        assert self.decide({"Young": 0.3, "Smiling": 0.8}, Smiling=0.7, Young=0.4) == {"Young"}

    def test_of_two_hair_colours_the_likelier(self) -> None:
        assert self.decide({}, Black_Hair=0.6, Brown_Hair=0.7) == {"Brown_Hair"}
        # 0.2 is further above 0.05 than 0.7 above 0.5.
        assert self.decide({"Gray_Hair": 0.05}, Gray_Hair=0.2, Brown_Hair=0.7) == {"Gray_Hair"}

    def test_certainty_is_no_mistake(self) -> None:
        assert self.decide({}, Bald=1.0, Bangs=1.0, Young=0.0) == {"Bald"}

    def test_never_a_contradiction(self) -> None:
        found = self.decide({}, **dict.fromkeys(NAMES, 0.9))
        assert not any(found.intersection(excluded_by(name)) for name in found)


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"norm": "instance"}, "takes away the colour of hair and skin: use group"),
            ({"thresholds": [0.5]}, "thresholds are 18 probabilities"),
            ({"thresholds": [0.5] * 17 + [1.0]}, "thresholds are 18 probabilities"),
        ],
    )
    def test_a_mistake_is_named(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(WeightsError, match=f"config.json: .*{message}"):
            config_from_dict(AttributeClassifierConfig, fields, "config.json")


class TestDefaults:
    def test_budget(self) -> None:
        model = AttributeClassifier().eval()
        assert half_bytes(model) <= 2 * MEGABYTE
        assert sum(multiply_adds(model).values()) <= 150e6
        assert max(size for _, _, size in convolutions(model)) == 64

    def test_no_layer_looks_at_the_batch_or_takes_colours_away(self) -> None:
        norms = [m for m in AttributeClassifier().modules() if isinstance(m, nn.GroupNorm)]
        assert norms and all(norm.num_groups < norm.num_channels for norm in norms)
        kinds = {type(m) for m in AttributeClassifier().modules()}
        assert nn.BatchNorm2d not in kinds
