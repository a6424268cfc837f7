"""Losses of identity, perception and alignment: their values, and where their gradients go."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from face_destyle import UserError
from face_destyle.models.similarity import identity, similarity
from tests import drawn
from tests.train import made
from train.frozen import FaceEmbedding, PerceptualNetwork
from train.losses import (
    AlignmentLoss,
    IdentityLoss,
    PerceptualLoss,
    details,
    moved,
    softened,
)


@pytest.fixture
def embedding(tmp_path: Path) -> FaceEmbedding:
    return FaceEmbedding.load(made.face_embedding(tmp_path / "face.safetensors"))


@pytest.fixture
def perceptual(tmp_path: Path) -> PerceptualNetwork:
    return PerceptualNetwork.load(made.perceptual_network(tmp_path / "vgg.safetensors"))


class TestIdentityLoss:
    def test_it_is_one_minus_the_cosine(self, embedding: FaceEmbedding) -> None:
        fake, real = drawn.faces(4).split(2)
        parts = IdentityLoss(embedding, 0.5)(fake, real)
        assert list(parts) == ["identity"]
        cosine = F.cosine_similarity(embedding(fake), embedding(real)).mean()
        assert parts["identity"] == pytest.approx(0.5 * (1 - cosine.item()), abs=1e-6)
        assert parts["identity"] > 1e-5

    def test_the_same_face_costs_nothing(self, embedding: FaceEmbedding) -> None:
        real = drawn.faces(2)
        assert IdentityLoss(embedding)(real, real)["identity"].abs() < 1e-6

    def test_the_gradient_goes_to_the_fake_alone(self, embedding: FaceEmbedding) -> None:
        fake, real = (part.clone().requires_grad_() for part in drawn.faces(4).split(2))
        IdentityLoss(embedding)(fake, real)["identity"].backward()
        assert fake.grad is not None and fake.grad.abs().sum() > 0
        assert real.grad is None
        assert all(weight.grad is None for weight in embedding.parameters())
        assert not embedding.training


class TestPerceptualLoss:
    def test_one_part_a_layer(self, perceptual: PerceptualNetwork) -> None:
        fake, real = drawn.faces(4).split(2)
        layers = {"relu2_1": 0.5, "relu3_2": 2.0}
        parts = PerceptualLoss(perceptual, layers, weight=3.0)(fake, real)
        assert list(parts) == ["perceptual_relu2_1", "perceptual_relu3_2"]
        for name, weight in layers.items():
            first, second = (perceptual(x, (name,))[name] for x in (fake, real))
            wanted = 3 * weight * (first - second).square().mean()
            assert torch.allclose(parts[f"perceptual_{name}"], wanted)
            assert wanted > 0

    def test_the_layer_of_the_paper_is_the_default(self, perceptual: PerceptualNetwork) -> None:
        real = drawn.faces(1)
        assert PerceptualLoss(perceptual)(real, real) == {"perceptual_relu3_2": 0.0}

    def test_the_gradient_goes_to_the_fake_alone(self, perceptual: PerceptualNetwork) -> None:
        fake, real = (part.clone().requires_grad_() for part in drawn.faces(2).split(1))
        PerceptualLoss(perceptual)(fake, real)["perceptual_relu3_2"].backward()
        assert fake.grad is not None and fake.grad.abs().sum() > 0
        assert real.grad is None

    @pytest.mark.parametrize("name", ["relu6_1", "relu3", "conv3_2", "relu32", ""])
    def test_an_unknown_layer(self, perceptual: PerceptualNetwork, name: str) -> None:
        with pytest.raises(UserError, match=r"unknown; use relu1_1, .*relu5_1") as raised:
            PerceptualLoss(perceptual, {name: 1.0})
        assert "\n" not in str(raised.value)

    def test_a_weight_that_is_no_number(self, perceptual: PerceptualNetwork) -> None:
        fields: dict[str, Any] = {"relu3_2": "high"}
        with pytest.raises(UserError, match="relu3_2 has weight 'high': give a number"):
            PerceptualLoss(perceptual, fields)


class TestAlignmentLoss:
    def test_a_shift_costs_its_square(self) -> None:
        true = identity(2, torch.zeros(1))
        shift = similarity(torch.tensor([[0.0, 1.0, 0.3, -0.4]])).expand(2, 2, 3)
        assert AlignmentLoss(2.0)(shift, true)["alignment"] == pytest.approx(2 * 0.25)
        assert AlignmentLoss()(true, true) == {"alignment": 0.0}

    def test_a_turn_costs_what_it_moves(self) -> None:
        true = similarity(torch.tensor([[0.7, 0.8, 0.1, 0.0]]))
        found = similarity(torch.tensor([[0.8, 0.8, 0.1, 0.0]]))
        # A chord of 2 sin(0.05) times the radius; the mean square radius of 5 x 5 cells of the
        # frame is 0.64, and the face is 0.8 times as large in the input.
        wanted = (2 * torch.tensor(0.05).sin()) ** 2 * 0.64 * 0.64
        assert AlignmentLoss()(found, true)["alignment"] == pytest.approx(wanted.item(), rel=1e-4)

    def test_the_gradient_points_to_the_truth(self) -> None:
        numbers = torch.tensor([[0.2, 1.1, -0.1, 0.1]], requires_grad=True)
        AlignmentLoss()(similarity(numbers), identity(1, numbers))["alignment"].backward()
        assert numbers.grad is not None
        assert torch.equal(numbers.grad.sign(), torch.tensor([[1.0, 1.0, -1.0, 1.0]]))

    def test_a_network_without_transformers(self) -> None:
        with pytest.raises(UserError, match=r"set loss\.alignment to 0") as raised:
            AlignmentLoss()(None, identity(1, torch.zeros(1)))
        assert "\n" not in str(raised.value)


class TestMovingView:
    def test_real_and_fake_are_moved_alike_and_by_no_more_than_the_reach(self) -> None:
        ramp = torch.arange(32.0).expand(1, 1, 32, 32)
        places = torch.cat([ramp, ramp.mT], 1)  # of each pixel: its column and its row
        found = set()
        for step in range(0, 160, 16):
            view = moved(places, 3, step)
            assert view.shape == places.shape
            assert torch.equal(view, moved(places, 3, step))
            across, down = (view[0, :, 16, 16] - places[0, :, 16, 16]).tolist()
            assert max(abs(across), abs(down)) <= 3
            assert torch.equal(
                view[..., 4:-4, 4:-4] - places[..., 4:-4, 4:-4],
                torch.tensor([across, down])[None, :, None, None].expand(1, 2, 24, 24),
            )
            found.add((across, down))
        assert len(found) > 4

    def test_without_a_reach_nothing_moves(self) -> None:
        pictures = drawn.faces(2)
        assert moved(pictures, 0, 16) is pictures


class TestSoftening:
    def test_a_point_becomes_a_gaussian_of_the_same_light(self) -> None:
        picture = torch.zeros(1, 2, 31, 31)
        picture[0, 0, 15, 15] = 1
        found = softened(picture, 1.5)
        assert found.shape == picture.shape
        assert found[0, 0].sum().item() == pytest.approx(1)
        places = torch.arange(31.0) - 15
        for row in (found[0, 0].sum(0), found[0, 0].sum(1)):
            assert (row * places**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.02)
        assert not found[0, 1].any()

    def test_dots_vanish_and_faces_stay(self) -> None:
        dots = torch.ones(1, 3, 32, 32)
        dots[..., ::2] = -1
        assert softened(dots, 1)[..., 4:-4, 4:-4].abs().max() < 0.02
        level = torch.full((1, 3, 32, 32), 0.7)
        assert torch.allclose(softened(level, 1), level)

    def test_without_a_sigma_nothing_changes(self) -> None:
        pictures = drawn.faces(2)
        assert softened(pictures, 0) is pictures


class TestDetails:
    def test_what_a_small_photo_shows_is_left_out(self) -> None:
        level = torch.full((1, 3, 64, 64), 0.7)
        wave = torch.linspace(0, 2 * torch.pi, 64).sin().expand(1, 3, 64, 64)
        for coarse in (level, wave):
            assert details(coarse)[..., 8:-8, 8:-8].abs().max() < 0.02

    def test_what_it_does_not_show_stays(self) -> None:
        fine = torch.ones(1, 3, 64, 64)
        fine[..., ::2] = -1
        found = details(fine)
        assert found.shape == fine.shape
        assert (found - fine)[..., 8:-8, 8:-8].abs().max() < 0.1
