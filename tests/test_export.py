"""ONNX: the same photo from another runtime, for every batch size."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.pix2pix import UNet128, UNet128Config
from face_destyle import FDNN, FaceModel, FDNNConfig, UserError
from face_destyle.attributes import UNKNOWN, to_vector
from face_destyle.export import to_onnx
from tests import drawn
from tests.models import test_afrp

SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)


@pytest.mark.parametrize("kind", ["other normalizations", "rival"])
def test_the_same_photo_for_every_batch_size(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model: FaceModel
    if kind == "rival":
        model = UNet128(UNet128Config(width=4)).eval()
    else:
        config = FDNNConfig(norm="batch", decoder_norm="pixel", code_rank=4)
        model = FDNN(replace(config, encoder_widths=(8, 8, 8, 8))).eval()
    path = to_onnx(model, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        portraits = drawn.faces(count)
        (photos,) = session.run(["photo"], {"portraits": portraits.numpy()})
        with torch.inference_mode():
            expected = model(portraits).photo.numpy()
        assert photos.shape == expected.shape
        assert np.abs(photos - expected).max() < 1e-4


def run(path: Path, **inputs: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(inputs)
    names = [entry.name for entry in session.get_outputs()]
    values = {name: tensor.numpy() for name, tensor in inputs.items()}
    return dict(zip(names, session.run(names, values), strict=True))


def assert_the_same(found: dict[str, np.ndarray], model: FaceModel, *inputs: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = model(*inputs)
    assert list(found) == ["photo", "alignment"]
    assert np.abs(found["photo"] - expected.photo.numpy()).max() < 1e-4
    assert np.abs(found["alignment"] - expected.alignment.numpy()).max() < 1e-5


def test_attributes_are_a_second_input(tmp_path: Path) -> None:
    model = test_afrp.awake(test_afrp.SMALL)
    path = to_onnx(model, tmp_path / "model.onnx")
    asked = ["Blond_Hair,Smiling,-Young", "", "Male"]
    for texts in (asked, asked[:1]):
        portraits = drawn.faces(len(texts))
        attributes = torch.tensor([to_vector(text) for text in texts])
        found = run(path, portraits=portraits, attributes=attributes)
        assert_the_same(found, model, portraits, attributes)
        photos = model(portraits).photo.detach().numpy()
        assert np.abs(found["photo"][0] - photos[0]).max() > 0.01
        unknown = torch.tensor([UNKNOWN] * len(texts))
        assert_the_same(run(path, portraits=portraits, attributes=unknown), model, portraits)


def test_a_normalization_is_one_operation_and_the_network_stays_as_it_is(tmp_path: Path) -> None:
    model = FDNN(replace(SMALL, decoder_norm="instance")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = onnx.load(to_onnx(model, tmp_path / "model.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    groups = sum(isinstance(layer, torch.nn.GroupNorm) for layer in model.modules())
    assert kinds.count("InstanceNormalization") == groups
    assert kinds.count("Mul") == 0
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript.*face-destyle\[onnx\]") as raised:
        to_onnx(FDNN(SMALL), tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is no folder"):
        to_onnx(FDNN(SMALL), tmp_path / "none" / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=r"folder\.onnx cannot be written"):
        to_onnx(FDNN(SMALL), tmp_path / "folder.onnx")
