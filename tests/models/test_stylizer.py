"""The style network."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from face_destyle import Stylizer, StylizerConfig, published
from tests import drawn
from tests.models.tester import ModelTester

# The layer table of the fast-neural-style release with 16 filters: c9s1-16, d32, d64,
# five R64, u32, u16, c9s1-3.
CONVOLUTIONS = {
    "conv1": (16, 3, 9, 9),
    "conv2": (32, 16, 3, 3),
    "conv3": (64, 32, 3, 3),
    "up1": (64, 32, 3, 3),  # a transposed convolution: in, out
    "up2": (32, 16, 3, 3),
    "out": (3, 16, 9, 9),
}
NORMS = {"in1": 16, "in2": 32, "in3": 64, "in4": 32, "in5": 16}
STYLES = [name for name in published.WEIGHTS if name.startswith("style-")]


def table() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(5):
        for half in (1, 2):
            shapes[f"res.{block}.conv{half}.weight"] = (64, 64, 3, 3)
            shapes[f"res.{block}.conv{half}.bias"] = (64,)
            shapes[f"res.{block}.in{half}.weight"] = shapes[f"res.{block}.in{half}.bias"] = (64,)
    for name, shape in CONVOLUTIONS.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = (shape[1] if name.startswith("up") else shape[0],)
    for name, channels in NORMS.items():
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)
    return shapes


class TestStylizer(ModelTester):
    model_class = Stylizer
    small: ClassVar[StylizerConfig] = StylizerConfig(width=4, blocks=2, style="none")
    side: ClassVar[int] = 64

    def test_layer_table(self) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in Stylizer().state_dict().items()}
        assert found == table()

    def test_normalization_is_that_of_single_channels(self, model: Stylizer) -> None:
        features = torch.randn(2, 4, 8, 8)
        expected = torch.nn.functional.instance_norm(features)
        assert torch.allclose(model.in1(features), expected, atol=1e-5)

    @pytest.mark.parametrize("size", [(44, 44), (128, 128), (64, 100), (132, 48)])
    def test_shape_and_range(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        photos = torch.rand(2, 3, *size) * 2 - 1
        for blocks in (5, 1):
            portraits = self.result(Stylizer(StylizerConfig(blocks=blocks)).eval(), photos)
            assert portraits.shape == photos.shape
            assert portraits.abs().max() <= 1

    @pytest.mark.parametrize("size", [(40, 128), (128, 126), (1, 1), (130, 128)])
    def test_wrong_sides_are_refused(self, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="multiples of 4 and above 40"):
            Stylizer()(torch.zeros(1, 3, *size))

    def test_takes_blue_green_red_less_the_mean(self, model: Stylizer) -> None:
        taken: list[torch.Tensor] = []
        model.conv1.register_forward_pre_hook(lambda layer, inputs: taken.append(inputs[0]))
        red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
        self.result(model, red)
        expected = torch.tensor([-103.939, -116.779, 255 - 123.68])
        assert torch.allclose(taken[0][0, :, 0, 0], expected, atol=1e-3)

    def test_gives_red_green_blue(self) -> None:
        """A painter that paints nothing leaves the mean colour, in RGB."""
        model = Stylizer(self.small)
        model.out.weight.data.zero_()
        model.out.bias.data.zero_()
        colour = (self.result(model, self.pictures(1))[0, :, 0, 0] + 1) * 127.5
        assert torch.allclose(colour, torch.tensor([123.68, 116.779, 103.939]), atol=1e-3)

    @pytest.mark.parametrize("size", [64, 128])
    def test_stylize_a_picture(self, model: Stylizer, size: int) -> None:
        portrait = model.stylize(drawn.face(size=200), size)
        assert portrait.size == (size, size)
        assert np.array_equal(
            np.asarray(portrait), np.asarray(model.stylize(drawn.face(size=200), size))
        )


@pytest.mark.parametrize("name", STYLES)
def test_the_published_ones_load(name: str, portrait_file: Path) -> None:
    model = Stylizer.from_pretrained(name)
    assert name == f"style-{model.config.style}"
    portrait = np.asarray(model.stylize(portrait_file)).astype(int)
    with Image.open(portrait_file) as opened:
        assert np.abs(portrait - np.asarray(opened)).mean() > 1
