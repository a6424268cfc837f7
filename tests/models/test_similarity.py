"""Similarity transforms, and the spatial transformer that finds them."""

import math

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from face_destyle import images
from face_destyle.models.similarity import (
    SimilarityTransformer,
    compose,
    identity,
    invert,
    parameters_of,
    similarity,
    transform,
    warp,
)
from tests import drawn

WIDTHS = (8, 8, 8, 8)


def made(degrees: float, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    """One matrix, from degrees, scale and shift in half sides."""
    return similarity(torch.tensor([[math.radians(degrees), scale, x, y]]))


def several(count: int = 5, turn: float = 45) -> torch.Tensor:
    torch.manual_seed(0)
    spread = torch.tensor([math.radians(turn), 0.2, 0.1, 0.1])
    return similarity(torch.tensor([0.0, 1.0, 0.0, 0.0]) + (torch.rand(count, 4) * 2 - 1) * spread)


def middle(pictures: torch.Tensor, part: float = 0.5) -> torch.Tensor:
    """What no rotation brings to the border."""
    side = pictures.shape[-1]
    edge = int(side * (1 - part) / 2)
    return pictures[..., edge : side - edge, edge : side - edge]


def smooth(count: int = 2) -> torch.Tensor:
    """Faces without the pixel noise that every sampling blurs."""
    return F.avg_pool2d(F.pad(drawn.faces(count), (2, 2, 2, 2), mode="reflect"), 5, 1)


def as_square(matrix: torch.Tensor) -> torch.Tensor:
    row = torch.tensor([0.0, 0.0, 1.0]).expand(len(matrix), 1, 3)
    return torch.cat([matrix, row], 1)


class TestMatrices:
    def test_the_numbers_and_back(self) -> None:
        parameters = torch.tensor([[0.3, 0.9, 0.1, -0.2], [-0.7, 1.2, 0.0, 0.5]])
        found = parameters_of(similarity(parameters), 100)
        wanted = parameters * torch.tensor([180 / math.pi, 1, 50, 50])
        assert torch.allclose(found, wanted, atol=1e-4)

    def test_compose_is_the_product(self) -> None:
        outer, inner = several(5), several(5).flip(0)
        assert torch.allclose(
            as_square(compose(outer, inner)), as_square(outer) @ as_square(inner), atol=1e-6
        )

    def test_invert_undoes_from_both_sides(self) -> None:
        matrix = several()
        nothing = identity(len(matrix), matrix)
        assert torch.allclose(compose(matrix, invert(matrix)), nothing, atol=1e-6)
        assert torch.allclose(compose(invert(matrix), matrix), nothing, atol=1e-6)

    def test_transform_sends_the_points(self) -> None:
        points = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
        found = transform(made(90, 0.8, 0.1, -0.2), points)
        # y points down: a quarter turn takes the right of the frame to the bottom of the input.
        assert torch.allclose(found[0], torch.tensor([[0.1, -0.2], [0.1, 0.2]]), atol=1e-6)

    def test_autocast_leaves_the_geometry_alone(self) -> None:
        matrix, points = several(), torch.tensor([[0.3, 0.7]])
        with torch.autocast("cpu", torch.bfloat16):
            rounded = compose(matrix, matrix), invert(matrix), transform(matrix, points)
        exact = compose(matrix, matrix), invert(matrix), transform(matrix, points)
        assert all(torch.equal(one, other) for one, other in zip(rounded, exact, strict=True))


class TestWarp:
    def test_the_identity_changes_nothing(self) -> None:
        faces = drawn.faces(2)
        assert (warp(faces, identity(2, faces)) - faces).abs().max() < 1e-4

    def test_a_face_that_pillow_turned_clockwise(self) -> None:
        upright = drawn.face()
        turned = upright.rotate(-30, Image.Resampling.BICUBIC)
        back = warp(images.to_tensor([turned], 128), made(30))
        wanted = images.to_tensor([upright], 128)
        error = middle(back - wanted).abs().mean()
        assert error < 0.05
        assert middle(warp(back, made(30)) - wanted).abs().mean() > 4 * error

    def test_a_face_that_pillow_shrank_and_shifted(self) -> None:
        upright = drawn.face()
        canvas = Image.new("RGB", (128, 128))
        # 96 of 128, its corner at (22, 11): the centre is at (70, 59), so 6 right and 5 up.
        canvas.paste(upright.resize((96, 96), Image.Resampling.BICUBIC), (22, 11))
        back = warp(images.to_tensor([canvas], 128), made(0, 0.75, 6 / 64, -5 / 64))
        assert (back - images.to_tensor([upright], 128)).abs().mean() < 0.08

    def test_there_and_back(self) -> None:
        faces, matrix = smooth(5), several()
        again = warp(warp(faces, matrix), invert(matrix))
        assert middle(again - faces).abs().mean() < 0.02
        assert middle(warp(faces, matrix) - faces).abs().mean() > 0.1

    def test_two_warps_are_one(self) -> None:
        faces, outer, inner = smooth(5), several(), several(5, turn=20).flip(0)
        twice = warp(warp(faces, outer), inner)
        assert middle(twice - warp(faces, compose(outer, inner))).abs().mean() < 0.01
        assert middle(twice - warp(faces, compose(inner, outer))).abs().mean() > 0.02

    def test_one_matrix_holds_at_every_size(self) -> None:
        faces, matrix = smooth(5), several()
        large_then_small = F.avg_pool2d(warp(faces, matrix), 4)
        assert middle(large_then_small - warp(F.avg_pool2d(faces, 4), matrix)).abs().mean() < 0.03

    def test_what_lies_outside(self) -> None:
        ones, away = torch.ones(1, 1, 8, 8), made(0, 1, 3, 0)
        assert torch.equal(warp(ones, away), ones)
        assert torch.equal(warp(ones, away, "zeros"), torch.zeros(1, 1, 8, 8))

    def test_half_precision_features_at_exact_places(self) -> None:
        faces, matrix = smooth(5), several()
        close = warp(faces.bfloat16(), matrix)
        assert close.dtype == torch.bfloat16
        # Only the values are rounded, by at most 1 / 256 on the way in and on the way out.
        assert (close.float() - warp(faces, matrix)).abs().max() < 0.01
        with torch.autocast("cpu", torch.bfloat16):
            under_autocast = warp(faces, matrix)
        assert torch.equal(under_autocast, warp(faces, matrix))


class TestSimilarityTransformer:
    @pytest.mark.parametrize("pool", [False, True])
    def test_it_starts_as_the_identity(self, pool: bool) -> None:
        faces = drawn.faces(2, 64)
        aligned, matrix = SimilarityTransformer(3, 64, WIDTHS, 8, pool)(faces)
        assert torch.equal(matrix, identity(2, faces))
        assert (aligned - faces).abs().max() < 1e-4

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_the_matrix_is_never_in_half_precision(self, dtype: torch.dtype) -> None:
        transformer = SimilarityTransformer(3, 32, WIDTHS, 8).to(dtype)
        aligned, matrix = transformer(drawn.faces(1, 32).to(dtype))
        assert aligned.dtype == dtype
        assert matrix.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            assert transformer.float()(drawn.faces(1, 32))[1].dtype == torch.float32

    def test_every_pixel_counts(self) -> None:
        """The full layer sees the whole map: a change in any corner moves the four numbers."""
        transformer = SimilarityTransformer(3, 64, WIDTHS, 8, norm="none").double()
        nn.init.normal_(transformer.last.weight)
        pictures = drawn.faces(1, 64).double().requires_grad_()
        transformer.localise(pictures).abs().sum().backward()
        assert pictures.grad is not None
        assert (pictures.grad.abs().sum(1) > 0).double().mean() > 0.9

    def test_it_learns_to_turn_faces_upright(self) -> None:
        """From the picture alone: nobody tells it the angle."""
        torch.manual_seed(0)
        transformer = SimilarityTransformer(3, 32, (8, 16, 16), 16)
        optimizer = torch.optim.Adam(transformer.parameters(), 0.005)
        upright = F.interpolate(smooth(8), size=32, mode="area")
        errors = []
        for _ in range(80):
            degrees = torch.rand(8) * 50 - 25
            zeros = torch.zeros(8)
            turn = similarity(torch.stack([degrees.deg2rad(), zeros + 1, zeros, zeros], 1))
            aligned, matrix = transformer(warp(upright, invert(turn)))
            optimizer.zero_grad()
            F.mse_loss(middle(aligned, 0.8), middle(upright, 0.8)).backward()
            optimizer.step()
            left = parameters_of(compose(invert(turn), matrix.detach()))[:, 0]
            errors.append(left.abs().mean().item())
        before, after = sum(errors[:5]) / 5, sum(errors[-10:]) / 10
        assert before > 9
        assert after < 5

    def test_the_localisation_networks_of_the_paper(self) -> None:
        counts = []
        for channels, side in ((32, 64), (64, 32), (128, 8)):
            transformer = SimilarityTransformer(
                channels, side, (64, 128, 256, 20), 20, pool=True, norm="none"
            )
            kinds = [type(layer) for layer in transformer.modules()]
            assert kinds.count(nn.MaxPool2d) == (side // 4).bit_length() - 1
            assert kinds.count(nn.Conv2d) == kinds.count(nn.MaxPool2d) + 1
            assert transformer.full.in_features == 20 * 2 * 2
            counts.append(sum(weight.numel() for weight in transformer.parameters()))
        # papers 2.3, layer by layer, with biases
        assert counts == [438_944, 420_448, 28_384]

    @pytest.mark.parametrize(("side", "widths"), [(48, WIDTHS), (4, WIDTHS), (128, WIDTHS)])
    def test_a_size_that_has_no_layers(self, side: int, widths: tuple[int, ...]) -> None:
        message = f"4 localisation widths make transformers at 8, 16, 32, 64, not at {side}"
        with pytest.raises(ValueError, match=message):
            SimilarityTransformer(3, side, widths, 8)
