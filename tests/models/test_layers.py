"""The convolution blocks that the studies share."""

import pytest
import torch
import torch.nn.functional as F

from face_destyle.models.layers import (
    Doubling,
    JoiningBlock,
    JoiningConv2d,
    PixelNorm,
    decoder_levels,
    normalization,
    spreading,
)


def written_out(
    conv: JoiningConv2d, features: torch.Tensor, beside: torch.Tensor | None
) -> torch.Tensor:
    """What a `JoiningConv2d` stands for."""
    if conv.doubles:
        features = F.interpolate(features, scale_factor=2, mode="nearest")
    if beside is not None:
        features = torch.cat([features, beside], 1)
    return F.conv2d(features, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2)


class TestJoiningConv2d:
    @pytest.mark.parametrize("kernel", [1, 3, 5])
    @pytest.mark.parametrize("more", [0, 3])
    @pytest.mark.parametrize("doubles", [False, True])
    def test_it_doubles_joins_and_convolves(self, kernel: int, more: int, doubles: bool) -> None:
        torch.manual_seed(0)
        conv = JoiningConv2d(4 + more, 5, kernel, doubles)
        side = 6 if doubles else 12
        features = torch.randn(2, 4, side, side, requires_grad=True)
        beside = torch.randn(2, more, 12, 12, requires_grad=True) if more else None
        learns = [features, conv.weight, conv.bias, *([] if beside is None else [beside])]
        assert conv(features, beside).shape == (2, 5, 12, 12)
        gradients = []
        for out in (conv(features, beside), written_out(conv, features, beside)):
            gradients.append((out, *torch.autograd.grad(out.square().sum(), learns)))
        for ours, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)

    def test_it_keeps_the_precision_of_autocast(self) -> None:
        conv = JoiningConv2d(6, 5, 3, doubles=True)
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(torch.randn(1, 4, 4, 4), torch.randn(1, 2, 8, 8))
        assert out.dtype == torch.bfloat16

    def test_each_place_of_the_kernel_meets_a_number_four_times(self) -> None:
        for kernel in (1, 3, 5):
            assert torch.equal(spreading(kernel).sum(1), torch.full((kernel**2,), 4.0))

    def test_the_weights_are_those_of_a_convolution(self) -> None:
        assert list(JoiningConv2d(6, 5, 3, doubles=True).state_dict()) == ["weight", "bias"]


class TestPixelNorm:
    def test_the_channels_of_each_place_have_a_power_of_one(self) -> None:
        norm = PixelNorm(3)
        features = torch.randn(2, 3, 4, 4) * 50
        assert torch.allclose(norm(features).square().mean(1), torch.ones(2, 4, 4), atol=1e-4)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
            norm.bias.copy_(torch.tensor([0.0, 0.5, -1.0]))
        scaled = norm(features)
        plain = PixelNorm(3)(features)
        assert torch.allclose(scaled[:, 2], plain[:, 2] * 3 - 1, atol=1e-5)

    def test_a_spike_changes_no_other_place(self) -> None:
        features = torch.randn(1, 8, 6, 6)
        spiked = features.clone()
        spiked[0, :, 3, 3] *= 1000
        for kind, alone in (("pixel", True), ("instance", False)):
            norm = normalization(kind, 8)  # type: ignore[arg-type]
            away = (norm(spiked) - norm(features)).abs().amax(1)[0]
            away[3, 3] = 0
            assert (away.max() == 0) == alone

    def test_nothing_becomes_no_nan(self) -> None:
        features = torch.zeros(1, 4, 2, 2, requires_grad=True)
        PixelNorm(4)(features).sum().backward()
        assert features.grad is not None and features.grad.isfinite().all()


class TestDecoderLevels:
    def test_the_sides(self) -> None:
        levels = decoder_levels(4, (6, 5), (3, 1), (1, 0), (2, 0), (False, True), norm="instance")
        first = levels[0](torch.randn(2, 4, 8, 8))
        assert first.shape == (2, 6, 8, 8)
        assert levels[1](first, torch.randn(2, 2, 16, 16)).shape == (2, 5, 16, 16)

    def test_a_block_without_normalization_has_a_bias(self) -> None:
        assert JoiningBlock(2, 3, 3, True, norm="none").conv.bias is not None
        assert JoiningBlock(2, 3, 3, True, norm="group").conv.bias is None


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_doubling_keeps_the_precision(precision: torch.dtype) -> None:
    features = torch.arange(8.0, dtype=precision).reshape(1, 2, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        doubled = Doubling()(features)
    assert doubled.dtype == precision
    assert torch.equal(doubled[..., ::2, 1::2], features)
