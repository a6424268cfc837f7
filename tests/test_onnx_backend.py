"""Networks in ONNX files: the same photos, in the places of those that torch runs."""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from face_destyle import FDNN, FaceModel, FDNNConfig, UserError, WeightsError, onnx_backend
from face_destyle.onnx_backend import OnnxModel, check_onnx_path, exported, write_onnx
from tests import drawn

SMALL = FDNNConfig(encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, saved."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "small"
    FDNN(SMALL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def file(network: Path) -> Path:
    """The same as ONNX."""
    path = network.parent / "small.onnx"
    write_onnx(FaceModel.from_pretrained(network), path)
    return path


def guided(path: Path, alignment: bool = False) -> Path:
    """A graph with attributes: a photo is the portrait plus the first of them, 0 where unknown."""
    nodes = [
        helper.make_node("Slice", ["attributes", "start", "end", "axis"], ["first"]),
        helper.make_node("IsNaN", ["first"], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", "first"], ["known"]),
        helper.make_node("Unsqueeze", ["known", "axes"], ["plane"]),
        helper.make_node("Add", ["portraits", "plane"], ["photo"]),
    ]
    outputs = [helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["N", 3, 128, 128])]
    if alignment:
        nodes.append(helper.make_node("Identity", ["turn"], ["alignment"]))
        outputs.append(helper.make_tensor_value_info("alignment", TensorProto.FLOAT, [1, 2, 3]))
    integers = {"start": [0], "end": [1], "axis": [1], "axes": [2, 3]}
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in integers.items()
    ]
    constants.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    constants.append(helper.make_tensor("turn", TensorProto.FLOAT, [1, 2, 3], [1, 0, 0, 0, 1, 0]))
    inputs = [
        helper.make_tensor_value_info("portraits", TensorProto.FLOAT, ["N", 3, 128, 128]),
        helper.make_tensor_value_info("attributes", TensorProto.FLOAT, ["N", 18]),
    ]
    graph = helper.make_graph(nodes, "guided", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_the_photos_of_torch(network: Path, file: Path) -> None:
    pictures = [drawn.face(seed) for seed in range(3)]
    expected = FaceModel.from_pretrained(network).recover(pictures)
    photos = OnnxModel(file).recover(pictures)
    for photo, other in zip(photos, expected, strict=True):
        assert np.abs(np.asarray(photo, int) - np.asarray(other, int)).max() <= 1
    assert np.abs(np.asarray(photos[0], int) - np.asarray(photos[1], int)).max() > 1


def test_the_folder_has_the_file_alone(file: Path) -> None:
    assert sorted(path.name for path in file.parent.iterdir()) == ["small", "small.onnx"]


def test_attributes_go_to_a_network_that_takes_them(tmp_path: Path) -> None:
    model = OnnxModel(guided(tmp_path / "guided.onnx"))
    portraits = torch.zeros(2, 3, 128, 128)
    assert model(portraits).photo.unique().tolist() == [0]
    shadow = model.with_attributes("5_o_Clock_Shadow")
    assert shadow(portraits).photo.unique().tolist() == [1]
    assert model(portraits).photo.unique().tolist() == [0]
    assert model(portraits).alignment is None
    assert model.expects_aligned


def test_an_alignment_is_given_on(tmp_path: Path) -> None:
    model = OnnxModel(guided(tmp_path / "guided.onnx", alignment=True))
    assert model(torch.zeros(1, 3, 128, 128)).alignment.tolist() == [[[1, 0, 0], [0, 1, 0]]]
    assert not model.expects_aligned


def test_attributes_where_there_are_none(file: Path) -> None:
    with pytest.raises(UserError, match=r"small\.onnx takes no attributes: leave them out"):
        OnnxModel(file).with_attributes("Smiling")


def test_it_is_not_saved(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save the network that it is of"):
        OnnxModel(file).save_pretrained(tmp_path / "saved")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist: write it with face-destyle export"):
        OnnxModel(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("this is no network")
    with pytest.raises(WeightsError, match=r"text\.onnx is damaged or no ONNX file"):
        OnnxModel(tmp_path / "text.onnx")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "other", [value], [result])
    opset = [helper.make_opsetid("", 18)]
    other = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="holds no recovery network"):
        OnnxModel(tmp_path / "other.onnx")


def test_without_the_runtime_the_error_names_the_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'face-destyle\[onnx\]'"):
        OnnxModel(file)


class TestCache:
    @pytest.fixture(autouse=True)
    def cache(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FaceModel]:
        """An empty cache, and an exporter that notes what it exports; the notes."""
        notes: list[FaceModel] = []

        def export(model: FaceModel, path: Path) -> None:
            notes.append(model)
            path.write_bytes(file.read_bytes())

        folder = tmp_path / "assets"
        folder.mkdir()
        monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda *_, **__: folder)
        monkeypatch.setattr(onnx_backend, "to_onnx", export)
        return notes

    def test_a_network_is_exported_once(
        self, network: Path, cache: list[FaceModel], capsys: pytest.CaptureFixture[str]
    ) -> None:
        first, second = exported(str(network)), exported(str(network))
        assert first == second
        assert len(cache) == 1
        assert capsys.readouterr().err.count("is written as ONNX") == 1
        assert [path.name for path in first.parent.iterdir()] == [first.name]

    def test_other_weights_are_another_file(
        self, network: Path, cache: list[FaceModel], tmp_path: Path
    ) -> None:
        torch.manual_seed(1)
        FDNN(SMALL).save_pretrained(tmp_path / "small")
        assert exported(str(network)) != exported(str(tmp_path / "small"))
        assert len(cache) == 2

    def test_an_onnx_file_is_taken_as_it_is(self, cache: list[FaceModel]) -> None:
        assert exported("some/where.onnx") == Path("some/where.onnx")
        assert cache == []

    def test_an_export_that_fails_leaves_nothing(
        self, network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail(model: FaceModel, path: Path) -> None:
            path.write_bytes(b"half")
            raise UserError("no room")

        monkeypatch.setattr(onnx_backend, "to_onnx", fail)
        with pytest.raises(UserError, match="no room"):
            exported(str(network))
        assert not [path for path in (tmp_path / "assets").rglob("*") if path.is_file()]


def test_where_a_file_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    check_onnx_path(tmp_path / "new.onnx")
    check_onnx_path(tmp_path / "there.onnx", overwrite=True)
    for name, message in (
        ("new.bin", "must end in .onnx"),
        ("there.onnx", "exists; choose another name"),
        ("folder.onnx", "is a folder"),
        ("none/new.onnx", "none is no folder"),
        ("x" * 300 + ".onnx", "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            check_onnx_path(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder.onnx", "there.onnx"]
