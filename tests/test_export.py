"""ONNX: the same photo from another runtime, for every batch size."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.pix2pix import UNet128, UNet128Config
from face_destyle import AFRP, FDNN, FaceModel, FDNNConfig, UserError
from face_destyle.attributes import UNKNOWN, to_vector
from face_destyle.export import to_onnx
from face_destyle.models.ifrp import IFRPConfig
from face_destyle.models.similarity import parameters_of
from tests import drawn
from tests.models import test_afrp, test_ifrp, test_tann

SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)
BLOCKS = ("encoder_blocks", "decoder_blocks")
Config = TypeVar("Config", bound=IFRPConfig)


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


def shallow(config: Config) -> Config:
    """One layer a level: the exporter traces every operation, and a residual block has seven."""
    blocks = {name: (0,) * len(getattr(config, name)) for name in BLOCKS}
    return replace(config, **blocks)


@pytest.mark.parametrize("kind", ["ifrp", "tann"])
def test_what_a_network_has_aligned(tmp_path: Path, kind: str) -> None:
    model: FaceModel
    if kind == "ifrp":
        model = test_ifrp.awake(shallow(test_ifrp.SMALL))
    else:  # one transformer, as by default: two small turns may cancel in the scale
        model = test_tann.awake(replace(shallow(test_tann.SMALL), transformers=(16,)))
    path = to_onnx(model, tmp_path / "model.onnx")
    for count in (1, 3):
        portraits = drawn.faces(count, model.input_size)
        found = run(path, portraits=portraits)
        assert_the_same(found, model, portraits)
        angle, scale, *_ = parameters_of(torch.from_numpy(found["alignment"]))[0]
        assert angle > 10 and abs(scale - 1) > 0.005


@pytest.fixture
def asked() -> AFRP:
    """A network whose attributes change its photos."""
    return test_afrp.awake(shallow(test_afrp.SMALL))


def test_attributes_are_a_second_input(asked: AFRP, tmp_path: Path) -> None:
    path = to_onnx(asked, tmp_path / "model.onnx")
    wishes = ["Blond_Hair,Smiling,-Young", "", "Male"]
    for texts in (wishes, wishes[:1]):
        portraits = drawn.faces(len(texts))
        attributes = torch.tensor([to_vector(text) for text in texts])
        found = run(path, portraits=portraits, attributes=attributes)
        assert_the_same(found, asked, portraits, attributes)
        photos = asked(portraits).photo.detach().numpy()
        assert np.abs(found["photo"][0] - photos[0]).max() > 0.01
        unknown = torch.tensor([UNKNOWN] * len(texts))
        assert_the_same(run(path, portraits=portraits, attributes=unknown), asked, portraits)


def test_attributes_that_are_set_are_no_input(asked: AFRP, tmp_path: Path) -> None:
    path = to_onnx(asked.with_attributes("Bald,-Young"), tmp_path / "model.onnx")
    portraits = drawn.faces(1)
    attributes = torch.tensor([to_vector("Bald,-Young")])
    assert_the_same(run(path, portraits=portraits), asked, portraits, attributes)


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
