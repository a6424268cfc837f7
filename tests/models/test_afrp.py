"""The face recovery network with attributes, and its discriminator."""

import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from face_destyle import (
    AFRP,
    IFRP,
    AFRPConfig,
    AFRPDiscriminator,
    AFRPDiscriminatorConfig,
    HubModel,
    UserError,
    WeightsError,
)
from face_destyle.attributes import COUNT, NAMES, UNKNOWN, to_vector
from face_destyle.configs import config_from_dict
from face_destyle.models.afrp import encode_attributes, modulated
from face_destyle.models.layers import decoder_levels
from tests import drawn
from tests.models import test_ifrp
from tests.models.test_fdnn import MEGABYTE, convolutions, half_bytes
from tests.models.test_ifrp import multiply_adds
from tests.models.tester import ModelTester

SMALL = AFRPConfig(**dataclasses.asdict(test_ifrp.SMALL), modulation_side=8, relative=False)


def awake(config: AFRPConfig) -> AFRP:
    """A network whose transformers and attributes do something, though it is not trained."""
    torch.manual_seed(1)
    model = AFRP(config).eval()
    model.load_state_dict(test_ifrp.awake(test_ifrp.SMALL).state_dict(), strict=False)
    for name, weight in model.named_parameters():
        if name.startswith(("code.joined", "modulation")):
            nn.init.normal_(weight, std=0.3)
    return model


def vectors(*texts: str) -> torch.Tensor:
    return torch.tensor([to_vector(text) for text in texts])


def photos(model: nn.Module, *given: Any) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(*given).photo
    return out


class Asked(nn.Module):
    """A network that is always asked for the same attributes of three faces."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.register_buffer("attributes", vectors("Smiling", "", "Bald,-Young"))

    def forward(self, pictures: torch.Tensor) -> Any:
        return self.model(pictures, self.attributes)


class TestEncoding:
    def test_values_and_marks(self) -> None:
        attributes = torch.full((2, COUNT), math.nan)
        attributes[0, 0], attributes[0, 1], attributes[1, 2] = 1, 0, 0.75
        codes = encode_attributes(attributes, drawn.faces(2))
        expected = torch.zeros(2, 2 * COUNT)
        expected[0, 0], expected[0, 1], expected[1, 2] = 1, -1, 0.5
        expected[0, COUNT], expected[0, COUNT + 1], expected[1, COUNT + 2] = 1, 1, 1
        assert torch.equal(codes, expected)

    def test_nothing_given_is_nothing_known(self) -> None:
        pictures = drawn.faces(2).double()
        unknown = torch.full((2, COUNT), math.nan)
        assert torch.equal(encode_attributes(None, pictures), encode_attributes(unknown, pictures))
        assert encode_attributes(unknown, pictures).dtype == torch.float64

    @pytest.mark.parametrize("shape", [(COUNT,), (1, COUNT), (2, COUNT - 1), (2, COUNT, 1)])
    def test_another_shape_is_refused(self, shape: tuple[int, ...]) -> None:
        for model in (AFRP(SMALL), AFRPDiscriminator(TestAFRPDiscriminator.small)):
            with pytest.raises(ValueError, match=r"2 pictures are \(2, 18\)") as raised:
                model(drawn.faces(2), torch.zeros(shape))
            assert str(shape) in str(raised.value)


class TestAFRP(ModelTester):
    model_class = AFRP
    small: ClassVar[AFRPConfig] = SMALL

    @pytest.fixture
    def model(self) -> AFRP:
        return awake(SMALL)

    def test_shape_and_range(self, model: AFRP) -> None:
        out = Asked(model)(self.pictures() * 50)
        assert out.photo.shape == (3, 3, 128, 128)
        assert out.photo.abs().max() <= 1
        assert out.alignment.shape == (3, 2, 3)

    def test_training_does_not_clamp(self, model: AFRP) -> None:
        model.head.bias.data.fill_(3)
        assert model(self.pictures()).photo.max() == 1
        assert model.train()(self.pictures()).photo.max() > 1

    def test_another_picture_is_refused(self, model: AFRP) -> None:
        with pytest.raises(ValueError, match=r"AFRP takes \(N, 3, 128, 128\).*recover\(\)"):
            model(torch.zeros(1, 3, 64, 64))

    def test_a_step_under_autocast(self, model: AFRP) -> None:
        exact = Asked(model.train())(self.pictures()).photo
        with torch.autocast("cpu", torch.bfloat16):
            close = Asked(model)(self.pictures()).photo
        assert (close.float() - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.05
        close.float().square().mean().backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
            if name.startswith(("code.joined", "modulation")):
                assert weight.grad.abs().max() > 0, name


class TestAskedAFRP(TestAFRP):
    """The same things of a network that is asked for attributes."""

    def result(self, model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        rows = vectors("Smiling", "Gray_Hair", "Bald,-Young")[: len(pictures)]
        return photos(model, pictures, rows.to(pictures.dtype))

    def test_a_batch_is_its_singles(self, model: AFRP) -> None:  # type: ignore[override]
        pictures, rows = self.pictures().double(), vectors("Smiling", "", "Bald,-Young").double()
        model.double()
        together = photos(model, pictures, rows)
        for number in range(3):
            one = slice(number, number + 1)
            single = photos(model, pictures[one], rows[one])
            assert (together[one] - single).abs().max() < 1e-10

    def test_exports_for_every_batch_size(self, model: AFRP) -> None:
        size = torch.export.Dim("batch", min=1, max=64)
        given = (self.pictures(2), vectors("Smiling", "Bald"))
        whole = torch.export.export(
            PhotoOnly(model), given, dynamic_shapes=({0: size}, {0: size})
        ).module()
        pictures, rows = self.pictures(3), vectors("-Young", "", "Blond_Hair")
        assert (whole(pictures, rows) - photos(model, pictures, rows)).abs().max() < 1e-5

    def test_compiles_without_a_break(self, model: AFRP) -> None:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        pictures, rows = self.pictures(1), vectors("Bald")
        difference = photos(compiled, pictures, rows) - photos(model, pictures, rows)
        assert difference.abs().max() < 1e-5


class PhotoOnly(nn.Module):
    def __init__(self, model: AFRP):
        super().__init__()
        self.model = model

    def forward(self, portraits: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(portraits, attributes).photo
        return out


class TestAttributes:
    @pytest.mark.parametrize(
        "fields",
        [{}, {"modulation": False}, {"bottleneck": False}],
        ids=["both", "bottleneck", "modulation"],
    )
    def test_each_says_yes_no_and_unknown(self, fields: dict[str, bool]) -> None:
        model = awake(replace(SMALL, **fields))
        pictures = drawn.faces(1)
        unknown = photos(model, pictures)
        assert torch.equal(photos(model, pictures, torch.tensor([UNKNOWN])), unknown)
        for number in range(COUNT):
            asked = torch.tensor([UNKNOWN])
            asked[0, number] = 1
            yes = photos(model, pictures, asked)
            asked[0, number] = 0
            no = photos(model, pictures, asked)
            for first, second in ((yes, no), (yes, unknown), (no, unknown)):
                assert (first - second).abs().max() > 1e-3, NAMES[number]

    def test_without_both_they_are_not_seen(self) -> None:
        model = awake(replace(SMALL, bottleneck=False, modulation=False))
        assert set(model.state_dict()) == set(IFRP(test_ifrp.SMALL).state_dict())
        pictures = drawn.faces(1)
        assert torch.equal(photos(model, pictures, vectors("Bald")), photos(model, pictures))

    def test_with_nothing_known_it_is_ifrp(self) -> None:
        model, twin = awake(SMALL), test_ifrp.awake(test_ifrp.SMALL)
        out, expected = model(drawn.faces(2)), twin(drawn.faces(2))
        assert torch.equal(out.photo, expected.photo)
        assert torch.equal(out.alignment, expected.alignment)

    def test_it_starts_from_ifrp(self) -> None:
        twin = test_ifrp.awake(test_ifrp.SMALL)
        before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
        model = AFRP.from_ifrp(twin, modulation_side=8, relative=False)
        assert type(model) is AFRP and model.config == SMALL and not model.training
        pictures = drawn.faces(2)
        assert torch.equal(photos(model, pictures, vectors("Bald", "")), photos(twin, pictures))
        with torch.no_grad():
            model.head.weight.zero_()
        assert all(torch.equal(tensor, before[n]) for n, tensor in twin.state_dict().items())

    def test_what_starts_at_zero_learns(self) -> None:
        model = AFRP.from_ifrp(test_ifrp.awake(test_ifrp.SMALL)).train()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            model(drawn.faces(2), vectors("Bald", "Smiling")).photo.square().sum().backward()
            optimizer.step()
        for name, weight in model.named_parameters():
            if name.startswith(("code.joined", "modulation")):
                assert weight.grad is not None and weight.grad.abs().max() > 0, name

    def test_a_level_is_scaled_and_shifted_after_its_normalization(self) -> None:
        torch.manual_seed(0)
        (level,) = decoder_levels(4, (6,), (3,), (1,), (0,), (False,), "instance")
        features = torch.randn(2, 4, 8, 8)
        mix = nn.Conv2d(3, 12, 1, bias=False)
        assert torch.equal(
            modulated(level, mix, torch.zeros(2, 3, 4, 4), features), level(features)
        )
        placed = torch.randn(2, 3, 1, 1)
        scale, shift = mix(placed).detach().chunk(2, 1)
        seen = []
        level[0].activation.register_forward_pre_hook(lambda la, given: seen.append(given[0] + 0))
        modulated(level, mix, placed.expand(2, 3, 4, 4), features)
        # An instance normalization leaves mean 0 and deviation 1.
        assert torch.allclose(seen[0].mean((2, 3), keepdim=True), shift, atol=1e-5)
        deviation = seen[0].std((2, 3), correction=0, keepdim=True)
        assert torch.allclose(deviation, (1 + scale).abs(), atol=1e-4)

    def test_an_attribute_has_its_place(self) -> None:
        model = awake(replace(SMALL, bottleneck=False)).double()
        row = NAMES.index("Smiling")
        with torch.no_grad():
            model.modulation.places[row].zero_()[:, 0] = 1.0
        pictures = drawn.faces(1).double()
        apart = photos(model, pictures, vectors("Smiling").double()) - photos(model, pictures)
        changed = apart.abs().amax((0, 1, 3))
        assert changed[:16].max() > 1e-3
        assert changed[96:].max() < 1e-3 * changed[:16].max()

    def test_the_saved_network_is_asked_alike(self, tmp_path: Path) -> None:
        model = awake(SMALL)
        model.save_pretrained(tmp_path)
        loaded = AFRP.from_pretrained(tmp_path)
        pictures, rows = drawn.faces(1), vectors("Blond_Hair")
        assert torch.equal(photos(loaded, pictures, rows), photos(model, pictures, rows))

    def test_a_wrong_key_of_the_config_is_named(self) -> None:
        with pytest.raises(WeightsError, match="config.json: unknown key film"):
            config_from_dict(AFRPConfig, {"film": True}, "config.json")
        with pytest.raises(ValueError, match="skip_sizes has 8"):
            replace(SMALL, skip_sizes=(8,))
        with pytest.raises(ValueError, match="code_rank 0: there is no code to join"):
            replace(SMALL, code_rank=0)
        assert replace(SMALL, code_rank=0, bottleneck=False).code_rank == 0


class TestRecover:
    @pytest.fixture
    def model(self) -> AFRP:
        return awake(SMALL)

    def test_every_form(self, model: AFRP, portrait: Image.Image) -> None:
        from face_destyle import images

        given = images.to_tensor([portrait], 128)
        expected = images.to_picture(photos(model, given, vectors("Bald,-Young"))[0])
        vector = to_vector("Bald,-Young")
        for wish in ("Bald,-Young", {"Young": False, "Bald": True}, vector, np.array(vector)):
            assert same(model.recover(portrait, attributes=wish), expected)
        assert not same(model.recover(portrait), expected)

    def test_nothing_asked(self, model: AFRP, portrait: Image.Image) -> None:
        assert same(model.recover(portrait, attributes=""), model.recover(portrait))

    def test_a_list(self, model: AFRP) -> None:
        portraits = [drawn.face(seed) for seed in range(3)]
        together = model.recover(portraits, batch_size=2, attributes="Smiling")
        assert isinstance(together, list)
        for portrait, photo in zip(portraits, together, strict=True):
            assert same(photo, model.recover(portrait, attributes="Smiling"), levels=1)

    def test_a_wrong_name(self, model: AFRP, portrait: Image.Image) -> None:
        with pytest.raises(UserError, match="did you mean Smiling"):
            model.recover(portrait, attributes="Smilng")

    def test_training_goes_on_as_it_was(self, model: AFRP, portrait: Image.Image) -> None:
        expected = model.recover(portrait, attributes="Bald")
        assert not model.training
        assert same(model.train().recover(portrait, attributes="Bald"), expected)
        assert all(module.training for module in model.modules())

    def test_bfloat16(self, model: AFRP, portrait: Image.Image) -> None:
        exact = model.recover(portrait, attributes="Bald")
        assert same(model.bfloat16().recover(portrait, attributes="Bald"), exact, levels=60)

    def test_with_attributes_shares_the_weights(self, model: AFRP, tmp_path: Path) -> None:
        bald = model.with_attributes("Bald")
        assert bald.input_size == 128 and not bald.expects_aligned
        assert next(bald.parameters()) is next(model.parameters())
        with pytest.raises(UserError, match="save the AFRP itself"):
            bald.save_pretrained(tmp_path)
        assert not list(tmp_path.iterdir())


def same(first: Image.Image, second: Image.Image, levels: int = 0) -> bool:
    difference = np.asarray(first).astype(int) - np.asarray(second)
    return bool(np.abs(difference).max() <= levels)


class TestPaper:
    def test_the_full_layer_is_split(self) -> None:
        with torch.device("meta"):
            model = AFRP(AFRPConfig.paper())
        full = [layer for layer in model.code.modules() if isinstance(layer, nn.Linear)]
        sizes = [(layer.in_features, layer.out_features) for layer in full]
        assert sizes == [(2048, 2048), (2048, 2048), (36, 2048)]
        assert not hasattr(model, "modulation")
        assert set(model.skips) == {"32", "16", "8"}
        assert set(model.transformers) == {"64", "32"}


class TestDefaults:
    def test_sizes(self) -> None:
        assert half_bytes(AFRP()) <= 8 * MEGABYTE
        assert half_bytes(AFRPDiscriminator()) <= 2 * MEGABYTE

    def test_work(self) -> None:
        work = sum(multiply_adds(AFRP().eval()).values())
        assert work <= 1.2 * sum(multiply_adds(IFRP().eval()).values())

    def test_no_layer_looks_at_the_batch(self) -> None:
        for model in (AFRP(), AFRPDiscriminator()):
            assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


class TestAFRPDiscriminator(ModelTester):
    model_class = AFRPDiscriminator
    small: ClassVar[AFRPDiscriminatorConfig] = AFRPDiscriminatorConfig(
        widths=(8, 8, 8, 8), full_width=8
    )

    def test_one_logit_a_picture(self, model: AFRPDiscriminator) -> None:
        assert model(self.pictures()).shape == (3,)
        assert model(self.pictures(), torch.zeros(3, COUNT)).shape == (3,)

    def test_every_attribute_is_judged(self, model: AFRPDiscriminator) -> None:
        picture = self.pictures(1)
        with torch.inference_mode():
            unknown = model(picture)
            for number in range(COUNT):
                asked = torch.tensor([UNKNOWN])
                asked[0, number] = 1
                yes = model(picture, asked)
                asked[0, number] = 0
                no = model(picture, asked)
                for first, second in ((yes, no), (yes, unknown), (no, unknown)):
                    assert (first - second).abs() > 1e-5, NAMES[number]

    def test_a_batch_with_attributes_is_its_singles(self, model: AFRPDiscriminator) -> None:
        pictures, rows = self.pictures().double(), vectors("Bald", "", "-Young").double()
        model.double()
        singles = [model(pictures[n : n + 1], rows[n : n + 1]) for n in range(3)]
        assert (model(pictures, rows) - torch.cat(singles)).abs().max() < 1e-10

    @pytest.mark.parametrize("size", [64, 32, 16])
    def test_where_the_planes_come_in(self, size: int) -> None:
        model = AFRPDiscriminator(replace(self.small, join_size=size))
        seen = []
        model.features[model.place].register_forward_hook(
            lambda layer, inputs, out: seen.append(inputs[0])
        )
        model(self.pictures(2), vectors("", "Male"))
        assert seen[0].shape == (2, 8 + 36, size, size)
        planes = seen[0][1, 8:]
        assert torch.equal(planes[NAMES.index("Male")], torch.ones(size, size))
        assert planes.sum() == 2 * size**2
        assert (seen[0][0, 8:] == 0).all()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"join_size": 48}, "join_size is 48; there are maps of 64, 32, 16"),
            ({"join_size": 8}, "join_size is 8; there are maps of 64, 32, 16"),
            ({"norm": "instance"}, "takes away what an attribute adds.*: use group"),
        ],
    )
    def test_what_has_no_place_is_named(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            AFRPDiscriminatorConfig(**fields)

    def test_it_is_a_type_of_its_own(self, model: AFRPDiscriminator, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        assert type(HubModel.from_pretrained(tmp_path)) is AFRPDiscriminator
        with pytest.raises(WeightsError, match="load it with AFRPDiscriminator"):
            AFRP.from_pretrained(tmp_path)

    def test_paper(self) -> None:
        model = AFRPDiscriminator(AFRPDiscriminatorConfig.paper()).eval()
        found = convolutions(model)
        assert found == [(5, 32, 128), (5, 64, 64), (5, 128, 32), (3, 256, 16)]
        assert model.full.in_features == 8 * 8 * 256
        count = sum(weight.numel() for weight in model.parameters())
        # The parent has no marks of being known: 18 planes of 25 weights to 128 channels less.
        assert round((count - 18 * 25 * 128) / 1e6, 1) == 17.4
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
