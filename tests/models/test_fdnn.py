"""The style removal network and its discriminator."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, FDNNDiscriminatorConfig
from face_destyle.errors import PictureError
from face_destyle.models.layers import JoiningConv2d
from tests import drawn
from tests.models.tester import ModelTester

MEGABYTE = 1_000_000
SMALL = FDNNConfig(
    skip_sizes=(),
    encoder_widths=(8, 8, 16, 16),
    code_rank=4,
    decoder_widths=(16, 8, 8),
    tail_width=8,
)
# papers 2.2: kernel and channels out of each convolution, and the size it works at
PAPER_ENCODER = [(5, 16, 128), (5, 32, 64), (3, 64, 32), (3, 128, 16), (1, 256, 8), (1, 512, 4)]
PAPER_DECODER = [(1, 256, 2), (3, 128, 4), (3, 64, 8), (3, 512, 16), (3, 256, 32), (5, 128, 64)]
PAPER_TAIL = [(5, 64, 128), (5, 3, 128)]


def half_bytes(model: nn.Module) -> int:
    return sum(2 * tensor.numel() for tensor in model.state_dict().values())


def convolutions(model: nn.Module, side: int = 128) -> list[tuple[int, int, int]]:
    """Kernel, channels out and size of the input of each convolution, in the order they run.

    The size is the doubled one where a layer doubles its input itself.
    """
    found: list[tuple[int, int, int]] = []

    def note(layer: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        side = inputs[0].shape[-1] * (1 + getattr(layer, "doubles", False))
        found.append((layer.kernel_size[0], layer.out_channels, side))

    hooks = [
        layer.register_forward_hook(note)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return found


class TestFDNN(ModelTester):
    model_class = FDNN
    small: ClassVar[FDNNConfig] = SMALL

    def test_shape_and_range(self, model: FDNN) -> None:
        out = model(self.pictures() * 50)
        assert out.photo.shape == (3, 3, 128, 128)
        assert out.photo.abs().max() <= 1
        assert out.alignment is None

    def test_training_does_not_clamp(self, model: FDNN) -> None:
        model.head.bias.data.fill_(3)
        assert model(self.pictures()).photo.max() == 1
        assert model.train()(self.pictures()).photo.max() > 1

    @pytest.mark.parametrize(
        "shape", [(1, 3, 64, 64), (1, 3, 128, 130), (1, 1, 128, 128), (3, 128, 128)]
    )
    def test_another_shape_is_refused(self, model: FDNN, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"takes \(N, 3, 128, 128\).*recover\(\)"):
            model(torch.zeros(shape))

    def test_training_is_the_same_alone_and_in_a_batch(self, model: FDNN) -> None:
        model.double().train()
        pictures = self.pictures().double()
        singles = torch.cat([model(one[None]).photo for one in pictures])
        assert (model(pictures).photo - singles).abs().max() < 1e-10

    @pytest.mark.parametrize("config", [SMALL, FDNNConfig.paper()])
    def test_without_skips_there_is_no_way_around_the_code(self, config: FDNNConfig) -> None:
        """Where the full layer says nothing, the photo knows nothing of the portrait."""
        assert not config.skip_sizes
        model = FDNN(config).eval()
        model.code.register_forward_hook(lambda layer, inputs, out: torch.zeros_like(out))
        first, second = self.result(model, self.pictures(2))
        assert torch.allclose(first, second, atol=1e-6)

    @pytest.mark.parametrize("size", [64, 32, 16])
    def test_a_skip_goes_round_the_code(self, size: int) -> None:
        model = FDNN(replace(SMALL, skip_sizes=(size,), skip_width=4)).eval()
        model.code.register_forward_hook(lambda layer, inputs, out: torch.zeros_like(out))
        first, second = self.result(model, self.pictures(2))
        assert (first - second).abs().max() > 1e-3

    def test_a_skip_of_a_size_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"skip_sizes.*24.*64, 32, 16"):
            FDNN(replace(SMALL, skip_sizes=(24,)))

    def test_the_full_layer_sees_everything(self) -> None:
        model = FDNN(FDNNConfig()).eval()
        features = torch.zeros(1, 160, 8, 8, requires_grad=True)
        model.code(features)[0, 0, 0, 0].backward()
        assert features.grad is not None
        assert (features.grad != 0).float().mean() > 0.99


class TestRecover:
    @pytest.fixture
    def model(self) -> FDNN:
        torch.manual_seed(0)
        return FDNN(SMALL).eval()

    @pytest.mark.parametrize("size", [(128, 128), (127, 129), (1, 1), (31, 400), (900, 600)])
    def test_every_size(self, model: FDNN, size: tuple[int, int]) -> None:
        photo = model.recover(drawn.face(size=900).resize(size))
        assert photo.size == (128, 128)
        assert photo.mode == "RGB"

    def test_the_centre_square_is_the_face(self, model: FDNN) -> None:
        wide = Image.new("RGB", (328, 128), "red")
        wide.paste(drawn.face(), (100, 0))
        assert same(model.recover(wide), model.recover(drawn.face()))

    def test_path_bytes_picture_and_array_are_one(self, model: FDNN, portrait_file: Path) -> None:
        expected = model.recover(str(portrait_file))
        with Image.open(portrait_file) as opened:
            array = np.asarray(opened)
            for source in (portrait_file, portrait_file.read_bytes(), opened, array):
                assert same(model.recover(source), expected)

    def test_a_list_gives_a_list_in_its_order(self, model: FDNN) -> None:
        portraits = [drawn.face(seed) for seed in range(5)]
        singles = [model.recover(portrait) for portrait in portraits]
        together = model.recover(portraits, batch_size=2)
        assert isinstance(together, list)
        for one, other in zip(singles, together, strict=True):
            assert same(one, other, levels=1)
        assert not same(singles[0], singles[1], levels=1)
        assert model.recover([]) == []

    def test_tensor_and_picture_agree(self, model: FDNN, portrait: Image.Image) -> None:
        from face_destyle import images

        photo = model(images.to_tensor([portrait], 128)).photo[0].detach()
        assert same(images.to_picture(photo), model.recover(portrait))

    def test_training_goes_on_as_it_was(self, model: FDNN, portrait: Image.Image) -> None:
        expected = model.recover(portrait)
        assert same(model.train().recover(portrait), expected)
        assert model.training

    def test_bfloat16(self, model: FDNN, portrait: Image.Image) -> None:
        exact = model.recover(portrait)
        assert same(model.bfloat16().recover(portrait), exact, levels=24)

    def test_one_bad_picture_of_a_list_is_named(self, model: FDNN, tmp_path: Path) -> None:
        path = drawn.unreadable("text", tmp_path)
        with pytest.raises(PictureError, match=r"text\.png"):
            model.recover([drawn.face(), path])


def same(first: Image.Image, second: Image.Image, levels: int = 0) -> bool:
    difference = np.asarray(first).astype(int) - np.asarray(second)
    return bool(np.abs(difference).max() <= levels)


class TestPaper:
    def test_layers(self) -> None:
        model = FDNN(FDNNConfig.paper()).eval()
        assert convolutions(model) == PAPER_ENCODER + PAPER_DECODER + PAPER_TAIL
        linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == [(2048, 2048)]
        kinds = [type(layer) for layer in model.modules()]
        assert kinds.count(nn.BatchNorm2d) == 13  # after each convolution except the last
        assert kinds.count(nn.MaxPool2d) == 6
        assert [layer.doubles for layer in model.modules() if isinstance(layer, JoiningConv2d)] == [
            False,
            *[True] * 6,
        ]
        slopes = [
            layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)
        ]
        assert slopes == [0.2] * 6 + [0.0] * 7

    def test_parameters(self) -> None:
        count = sum(weight.numel() for weight in FDNN(FDNNConfig.paper()).parameters())
        # The authors' convolutions have biases that their batch normalization takes away again.
        biases = sum(width for _, width, _ in PAPER_ENCODER + PAPER_DECODER + PAPER_TAIL[:1])
        assert biases == 2416
        assert round((count + biases) / 1e6, 2) == 7.48

    def test_shape(self) -> None:
        out = FDNN(FDNNConfig.paper()).eval()(torch.zeros(1, 3, 128, 128))
        assert out.photo.shape == (1, 3, 128, 128)


class TestDefaults:
    def test_sizes(self) -> None:
        assert half_bytes(FDNN()) <= 8 * MEGABYTE
        assert half_bytes(FDNNDiscriminator()) <= 2 * MEGABYTE

    def test_no_layer_looks_at_the_batch(self) -> None:
        for model in (FDNN(), FDNNDiscriminator()):
            assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())

    def test_no_layer_works_at_full_size(self) -> None:
        assert max(size for _, _, size in convolutions(FDNN().eval())) == 64


class TestFDNNDiscriminator(ModelTester):
    model_class = FDNNDiscriminator
    small: ClassVar[FDNNDiscriminatorConfig] = FDNNDiscriminatorConfig(
        widths=(8, 8, 8, 8), full_width=8
    )

    def test_one_logit_a_picture(self, model: FDNNDiscriminator) -> None:
        assert model(self.pictures()).shape == (3,)
        logits = model(self.pictures(6) * 40)
        assert logits.min() < logits.max()

    def test_without_a_full_layer_each_place_is_judged_by_itself(self) -> None:
        model = FDNNDiscriminator(replace(self.small, full_width=0, norm="none")).eval()
        photos = self.pictures()
        changed = photos.clone()
        changed[:, :, :16, :16] *= -1
        one, two = model(photos), model(changed)
        assert one.shape == (3, 8, 8)
        assert not torch.equal(one[:, 0, 0], two[:, 0, 0])
        assert torch.allclose(one[:, 6:, 6:], two[:, 6:, 6:], atol=1e-6)

    def test_paper(self) -> None:
        model = FDNNDiscriminator(FDNNDiscriminatorConfig.paper()).eval()
        widths = [(out, size) for _, out, size in convolutions(model)]
        assert widths == [(32, 128), (64, 64), (128, 32), (96, 16)]
        assert [kernel for kernel, _, _ in convolutions(model)] == [5, 5, 5, 3]
        assert model.full.in_features == 8 * 8 * 96
        assert model.full.out_features == 1024
        count = sum(weight.numel() for weight in model.parameters())
        assert round(count / 1e6, 1) == 6.7
