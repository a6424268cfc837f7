"""Helper networks: their layout, their crop, and what is said where one is missing."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from face_destyle import WeightsError
from face_destyle.faces import FRAME_LANDMARKS
from tests import drawn
from tests.train import made
from train.frozen import (
    TEMPLATE_LANDMARKS,
    FaceEmbedding,
    PerceptualNetwork,
    find_frozen,
)

LAYERS = {
    "relu1_1": (16, 128),
    "relu2_1": (32, 64),
    "relu3_1": (64, 32),
    "relu4_1": (128, 16),
    "relu5_1": (128, 8),
}


def test_the_features_of_the_perceptual_network(tmp_path: Path) -> None:
    network = PerceptualNetwork.load(made.perceptual_network(tmp_path / "vgg.safetensors"))
    found = network(drawn.faces(2), tuple(LAYERS))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (2, width, side, side) for name, (width, side) in LAYERS.items()
    }
    assert all((value >= 0).all() for value in found.values())
    assert list(network(drawn.faces(2), ("relu3_1",))) == ["relu3_1"]
    alone = network(drawn.faces(2), ("relu3_1",))["relu3_1"]
    assert torch.equal(alone, found["relu3_1"])
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_gradients_go_through_the_frozen_network(tmp_path: Path) -> None:
    network = PerceptualNetwork.load(made.perceptual_network(tmp_path / "vgg.safetensors"))
    pictures = drawn.faces(1).requires_grad_()
    network(pictures, ("relu3_1",))["relu3_1"].square().sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0


@pytest.mark.parametrize("variant", ["insightface", "xiaoccer"])
def test_embeddings_are_unit_vectors(tmp_path: Path, variant: str) -> None:
    network = FaceEmbedding.load(made.face_embedding(tmp_path / "face.safetensors", variant))
    assert network.narrow is (variant == "xiaoccer")
    with torch.inference_mode():
        vectors = network(drawn.faces(3))
        again = network(drawn.faces(3)[1:2])
    assert vectors.shape == (3, 128)
    assert (vectors.norm(dim=1) - 1).abs().max() < 1e-5
    assert (again[0] - vectors[1]).abs().max() < 1e-4
    assert (vectors[0] - vectors[1]).abs().max() > 1e-5
    assert not any(weight.requires_grad for weight in network.parameters())


def test_the_warp_puts_the_eyes_of_the_template_on_the_eyes_of_the_frame() -> None:
    grid = FaceEmbedding("xiaoccer").grid
    for (x, y), (left, top) in zip(FRAME_LANDMARKS[:2], TEMPLATE_LANDMARKS[:2], strict=True):
        rows, columns = torch.arange(128.0)[:, None], torch.arange(128.0)[None]
        dot = torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
        seen = F.grid_sample(dot[None, None], grid, align_corners=False)[0, 0]
        weights = seen / seen.sum()
        centre_x = (weights * torch.arange(112.0)[None]).sum().item()
        centre_y = (weights * torch.arange(112.0)[:, None]).sum().item()
        # The five points of a mean face leave a rest of about a pixel.
        assert abs(centre_x - left) < 1.5 and abs(centre_y - top) < 1.5


def test_the_warp_is_no_mirror_and_no_turn() -> None:
    grid = FaceEmbedding("xiaoccer").grid[0]
    right, down = grid[56, 57] - grid[56, 56], grid[57, 56] - grid[56, 56]
    assert right[0] > 0 and right[1].abs() < 0.05 * right[0]
    assert down[1] > 0 and down[0].abs() < 0.05 * down[1]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for source in (tmp_path / "none.safetensors", "./none.safetensors", "none", "org/name"):
        with pytest.raises(WeightsError, match="does not exist: give a face embedding") as raised:
            find_frozen(source, "a face embedding")
        assert "\n" not in str(raised.value)
    with pytest.raises(WeightsError, match="from the Hub; give a face embedding as a path"):
        find_frozen("org/name/file.safetensors", "a face embedding")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 as torch.save begins", bytes(100)])
@pytest.mark.parametrize("network", [FaceEmbedding, PerceptualNetwork])
def test_another_kind_of_file_is_refused(
    network: type[FaceEmbedding | PerceptualNetwork], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged or no safetensors file") as raised:
        network.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    perceptual = made.perceptual_network(tmp_path / "vgg.safetensors")
    with pytest.raises(WeightsError, match="does not fit"):
        FaceEmbedding.load(perceptual)
    embedding = made.face_embedding(tmp_path / "face.safetensors")
    with pytest.raises(WeightsError, match="does not fit"):
        PerceptualNetwork.load(embedding)
