"""The rival has the layers that its authors published."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.pix2pix import Down, PatchGAN, PatchGANConfig, UNet128, UNet128Config, Up
from train.recipe import load_recipe
from train.start import build

ROOT = Path(__file__).parents[2]
# Channels in and out, bias, then what follows the layer: of the released unet_128.
DOWN = [
    (3, 64, True, []),
    (64, 128, False, [nn.BatchNorm2d]),
    (128, 256, False, [nn.BatchNorm2d]),
    (256, 512, False, [nn.BatchNorm2d]),
    (512, 512, False, [nn.BatchNorm2d]),
    (512, 512, False, [nn.BatchNorm2d]),
    (512, 512, True, []),
]
UP = [
    (128, 3, True, []),
    (256, 64, False, [nn.BatchNorm2d]),
    (512, 128, False, [nn.BatchNorm2d]),
    (1024, 256, False, [nn.BatchNorm2d]),
    (1024, 512, False, [nn.BatchNorm2d, nn.Dropout]),
    (1024, 512, False, [nn.BatchNorm2d, nn.Dropout]),
    (512, 512, False, [nn.BatchNorm2d]),
]
PATCH = [
    (6, 64, 2, True),
    (64, 128, 2, False),
    (128, 256, 2, False),
    (256, 512, 1, False),
    (512, 1, 1, True),
]


def parameters(network: nn.Module) -> float:
    """In millions."""
    return sum(weight.numel() for weight in network.parameters()) / 1e6


@pytest.mark.parametrize("side", [2, 8])
@pytest.mark.parametrize("kind", [Down, Up])
def test_a_matrix_product_is_the_convolution(kind: type[Down | Up], side: int) -> None:
    torch.manual_seed(0)
    layer = kind(6, 5, bias=True)
    features = torch.randn(3, 6, side, side)
    trained = layer.train()(features)
    assert torch.allclose(trained, layer.eval()(features), atol=1e-5)
    mean = trained.square().mean()
    (gradient,) = torch.autograd.grad(mean, layer.weight)
    (expected,) = torch.autograd.grad(layer(features).square().mean(), layer.weight)
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_the_layer_table_of_the_generator() -> None:
    network = UNet128()
    assert parameters(network) == pytest.approx(41.83, abs=0.005)
    for blocks, table, kind in (
        (network.down, DOWN, nn.Conv2d),
        (network.up, UP, nn.ConvTranspose2d),
    ):
        for block, (before, after, bias, rest) in zip(blocks, table, strict=True):
            layers = list(block)
            (place,) = [i for i, layer in enumerate(layers) if isinstance(layer, kind)]
            conv = layers[place]
            assert (conv.in_channels, conv.out_channels) == (before, after)
            assert (conv.kernel_size, conv.stride, conv.padding) == ((4, 4), (2, 2), (1, 1))
            assert (conv.bias is not None) is bias
            assert [type(layer) for layer in layers[place + 1 :]] == rest
            active = [nn.LeakyReLU] if kind is nn.Conv2d else [nn.ReLU]
            first = kind is nn.Conv2d and before == 3
            assert [type(layer) for layer in layers[:place]] == ([] if first else active)


def test_the_layer_table_of_the_discriminator() -> None:
    network = PatchGAN()
    assert parameters(network) == pytest.approx(2.77, abs=0.005)
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    for conv, (before, after, stride, bias) in zip(convolutions, PATCH, strict=True):
        assert (conv.in_channels, conv.out_channels) == (before, after)
        assert (conv.kernel_size, conv.stride, conv.padding) == ((4, 4), (stride,) * 2, (1, 1))
        assert (conv.bias is not None) is bias
    norms = [isinstance(layer, nn.BatchNorm2d) for layer in network.layers]
    assert sum(norms) == 3
    slopes = {layer.negative_slope for layer in network.layers if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_shapes_and_range() -> None:
    photo = UNet128(UNet128Config(width=4)).eval()(torch.randn(2, 3, 128, 128)).photo
    assert photo.shape == (2, 3, 128, 128)
    assert photo.abs().max() <= 1
    pictures = torch.zeros(2, 3, 128, 128)
    assert PatchGAN(PatchGANConfig(width=4))(pictures, pictures).shape == (2, 1, 14, 14)


def test_the_skips_reach_the_last_layer() -> None:
    """Without the inner levels the outermost skip still carries the portrait."""
    network = UNet128(UNet128Config(width=4)).eval()
    portraits = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = network(portraits).photo
        network.up[1][1].weight.zero_()
        changed = network(portraits).photo
        other = network(-portraits).photo
    assert not torch.equal(before, changed)
    assert not torch.equal(changed, other)


def test_a_logit_sees_70_pixels_of_portrait_and_photo() -> None:
    torch.manual_seed(0)
    network = PatchGAN(PatchGANConfig(width=4)).eval()
    photos = torch.randn(1, 3, 128, 128, requires_grad=True)
    portraits = torch.randn(1, 3, 128, 128, requires_grad=True)
    network(photos, portraits)[0, 0, 7, 7].backward()
    for pictures in (photos, portraits):
        assert pictures.grad is not None
        rows, columns = pictures.grad[0].abs().sum(0).nonzero(as_tuple=True)
        assert rows.max() - rows.min() + 1 == 70
        assert columns.max() - columns.min() + 1 == 70


def test_fresh_weights_are_as_published() -> None:
    torch.manual_seed(0)
    for network in (UNet128(UNet128Config(width=16)), PatchGAN()):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 5000:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
                assert layer.bias is None or not layer.bias.any()
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert not layer.bias.any()


def test_the_recipe_is_the_published_one() -> None:
    recipe = load_recipe(ROOT / "benchmarks" / "pix2pix.yaml")
    assert isinstance(build(recipe.model), UNet128)
    assert isinstance(build(recipe.discriminator), PatchGAN)
    assert build(recipe.discriminator).conditional
    optimizer, loss = recipe.optimizer, recipe.loss
    assert (optimizer.name, optimizer.learning_rate, optimizer.betas) == (
        "adam",
        2e-4,
        (0.5, 0.999),
    )
    assert (loss.l1, loss.pixel, loss.adversarial, loss.discriminator) == (100, 0, 1, 0.5)
    assert loss.epoch_decay == 1  # the adversarial weight stays
    assert recipe.train.images >= 60_000
    changes = [value for name, value in vars(recipe.augment).items() if name != "mirror"]
    assert recipe.augment.mirror and not any(changes)


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_the_commands_know_the_rival(command: str) -> None:
    code = (
        f"import benchmarks.{command}, sys; from face_destyle.models.base import REGISTRY; "
        "sys.exit('pix2pix-unet128' not in REGISTRY)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
