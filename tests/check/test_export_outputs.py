"""ONNX: the alignment, and attributes that are part of the network; exports that take long."""

from pathlib import Path

import torch

from face_destyle import AFRP
from face_destyle.attributes import to_vector
from face_destyle.export import to_onnx
from face_destyle.models.similarity import parameters_of
from tests import drawn
from tests.models import test_afrp, test_ifrp
from tests.test_export import assert_the_same, run


def test_what_a_network_has_aligned(tmp_path: Path) -> None:
    model = test_ifrp.awake(test_ifrp.SMALL)
    path = to_onnx(model, tmp_path / "model.onnx")
    for count in (1, 3):
        portraits = drawn.faces(count)
        found = run(path, portraits=portraits)
        assert_the_same(found, model, portraits)
        angle, scale, *_ = parameters_of(torch.from_numpy(found["alignment"]))[0]
        assert angle > 10 and abs(scale - 1) > 0.005


def test_attributes_that_are_set_are_no_input(tmp_path: Path) -> None:
    model: AFRP = test_afrp.awake(test_afrp.SMALL)
    path = to_onnx(model.with_attributes("Bald,-Young"), tmp_path / "model.onnx")
    portraits = drawn.faces(1)
    attributes = torch.tensor([to_vector("Bald,-Young")])
    assert_the_same(run(path, portraits=portraits), model, portraits, attributes)
