"""The published networks as ONNX: the photos of torch, from the command line too."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from face_destyle import FaceModel
from face_destyle.attributes import to_vector
from face_destyle.cli import main
from face_destyle.export import to_onnx
from tests import drawn

NAMES = ("fdnn", "fdnn-ifrp", "fdnn-ifrp-protocol", "fdnn-afrp", "fdnn-tann")


@pytest.mark.parametrize("name", NAMES)
def test_the_published_networks_are_the_same_in_onnx(name: str, tmp_path: Path) -> None:
    model = FaceModel.from_pretrained(name)
    path = to_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [entry.name for entry in session.get_outputs()]
    for count in (1, 2, 5):
        inputs = [drawn.faces(count, model.input_size)]
        if model.takes_attributes:
            wishes = ["Smiling,-Young", "", "Bald", "Male", "Blond_Hair"][:count]
            inputs.append(torch.tensor([to_vector(wish) for wish in wishes]))
        names = [entry.name for entry in session.get_inputs()]
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        found = dict(zip(outputs, session.run(outputs, given), strict=True))
        with torch.inference_mode():
            expected = model(*inputs)
        assert found["photo"].shape == (count, 3, 128, 128)
        assert np.abs(found["photo"] - expected.photo.numpy()).max() < 1e-4
        assert ("alignment" in found) == (not model.expects_aligned)
        if expected.alignment is not None:
            assert np.abs(found["alignment"] - expected.alignment.numpy()).max() < 1e-4


def test_recover_by_onnx_gives_the_photo_of_torch(
    here: Path, portrait_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda *_, **__: here)
    photos = []
    for backend in ("torch", "onnx"):
        command = ["recover", str(portrait_file), "--model", "fdnn-ifrp", "-o", f"{backend}.png"]
        assert main([*command, "--backend", backend]) == 0
        with Image.open(f"{backend}.png") as photo:
            photos.append(np.asarray(photo, int))
    assert np.abs(photos[0] - photos[1]).max() <= 1
    assert len(list(here.glob("*.onnx"))) == 1
