"""Changes that a classifier falls for: as long as allowed, and worse for it than any others."""

from functools import partial

import pytest
import torch

from face_destyle import AttributeClassifier, AttributeClassifierConfig
from face_destyle.attributes import COUNT
from tests import drawn
from train.losses import attributes_loss
from train.robust import attacked

CONFIG = AttributeClassifierConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), pooled=2, dropout=0.0)


def loss(network: AttributeClassifier, pictures: torch.Tensor) -> torch.Tensor:
    known = (torch.arange(COUNT) % 2).float().expand(len(pictures), COUNT)
    return attributes_loss(network(pictures), known)


@pytest.fixture
def network() -> AttributeClassifier:
    torch.manual_seed(0)
    return AttributeClassifier(CONFIG).eval()


def test_a_change_is_no_longer_than_allowed(network: AttributeClassifier) -> None:
    faces = drawn.faces(3) * 0.5  # far from black and white, where changes are cut off
    changed = attacked(faces, partial(loss, network), 4.0)
    lengths = (changed - faces).flatten(1).norm(dim=1)
    assert changed.shape == faces.shape and not changed.requires_grad
    assert ((lengths > 2) & (lengths < 4.001)).all()


def test_it_is_worse_than_chance(network: AttributeClassifier) -> None:
    faces = drawn.faces(3) * 0.5
    chance = torch.randn_like(faces)
    chance *= 4 / chance.flatten(1).norm(dim=1)[:, None, None, None]
    before, by_chance = loss(network, faces), loss(network, faces + chance)
    found = loss(network, attacked(faces, partial(loss, network), 4.0))
    assert found > before
    assert found - before > 3 * (by_chance - before).abs()


def test_no_reach_no_change(network: AttributeClassifier) -> None:
    faces = drawn.faces(2)
    assert attacked(faces, partial(loss, network), 0.0) is faces


def test_pictures_stay_pictures(network: AttributeClassifier) -> None:
    faces = drawn.faces(2).sign()
    assert attacked(faces, partial(loss, network), 50.0).abs().max() <= 1
