"""AFRP reads attributes in the portrait, and sees a wish as the difference to them."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from face_destyle.attributes import COUNT, NAMES
from face_destyle.models.afrp import encode_attributes, relative_codes
from tests import drawn
from tests.models.test_afrp import SMALL, awake, photos, vectors


def test_what_is_read_is_not_asked_for() -> None:
    model = awake(replace(SMALL, relative=True))
    pictures = drawn.faces(2)
    assert model.reader.in_features == 4 * 16
    model.train()
    read = model(pictures).attributes
    assert read is not None and read.shape == (2, COUNT)
    F.binary_cross_entropy_with_logits(read, torch.zeros_like(read)).backward()
    grads = [weight.grad for weight in model.reader.parameters()]
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads)
    model.eval()
    assert model(pictures).attributes is None
    with torch.no_grad():
        model.reader.weight.zero_()
        model.reader.bias.fill_(-40.0)
        model.reader.bias[NAMES.index("Smiling")] = 40.0
        for weight in model.code.joined.parameters():
            weight[:, COUNT:] = 0  # which say that something is known, whatever it is
    unknown = photos(model, pictures)
    same = photos(model, pictures, vectors("Smiling,-Bald", "-Male,-Bangs"))
    torch.testing.assert_close(same, unknown)
    assert (photos(model, pictures, vectors("-Smiling", "Male")) - unknown).abs().max() > 1e-3


def test_relative_codes() -> None:
    codes = encode_attributes(vectors("Smiling,-Young", ""), torch.zeros(2, 3, 8, 8))
    read = torch.zeros(2, COUNT)
    smiling, young = NAMES.index("Smiling"), NAMES.index("Young")
    read[:, smiling] = math.log(3)  # three to one: 0.5 between -1 and 1
    found = relative_codes(codes, read)
    assert found[0, smiling] == pytest.approx(0.5) and found[0, young] == -1
    assert not found[1].any()
    assert torch.equal(found[:, COUNT:], codes[:, COUNT:])
