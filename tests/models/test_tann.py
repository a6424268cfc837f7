"""The transformative upsampling network, its latent code, and its discriminator."""

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
    TANN,
    FDNNDiscriminator,
    HubModel,
    TANNConfig,
    TANNDiscriminator,
    TANNDiscriminatorConfig,
    WeightsError,
)
from face_destyle.models.similarity import compose, identity, similarity
from tests import drawn
from tests.models.test_fdnn import MEGABYTE, convolutions, half_bytes
from tests.models.tester import ModelTester
from train.graft import take_over

SMALL = TANNConfig(
    encoder_widths=(8, 8, 16),
    transformers=(16, 8),
    skip_sizes=(),
    localisation_widths=(4, 8, 8),
    localisation_full=8,
    code_rank=12,
    decoder_widths=(16, 8, 8, 8),
    tail_width=8,
)
# One for photos of 32 x 32, and the same with levels that make its photo finer.
COARSE = replace(
    SMALL,
    decoder_widths=(16, 8),
    decoder_kernels=(3, 3),
    decoder_blocks=(1, 1),
    decoder_transformers=(16,),
    coarse_side=0,
)
# A corrected map, a full matrix, and the narrow place of a low-rank layer.
CODES = (
    SMALL,
    replace(SMALL, code_rank=0, code_residual=False),
    replace(SMALL, code_residual=False),
)
TURNS = {"16": (math.radians(25), 0.9, 0.1, 0.0), "8": (math.radians(-10), 1.1, 0.0, 0.2)}
# papers 4.2: kernel and channels out of each convolution, and the size it works at
PAPER_ENCODER = [(3, 32, 16), (3, 128, 8), (3, 512, 4)]
PAPER_DECODER = [(1, 256, 2), (3, 128, 4), (3, 256, 8), (3, 512, 16), (3, 256, 32), (5, 128, 64)]
PAPER_TAIL = [(5, 64, 128), (5, 3, 128)]
# papers 4.3
PAPER_DISCRIMINATOR = [(5, 32, 128), (5, 64, 64), (5, 128, 32), (5, 96, 16)]


def awake(config: TANNConfig) -> TANN:
    """A network whose encoder's transformers do a little another thing for each picture."""
    torch.manual_seed(0)
    model = TANN(config)
    for name, layer in model.transformers.items():
        nn.init.normal_(layer.last.weight, std=0.02)
        layer.last.bias.data = torch.tensor(TURNS[name])
    return model.eval()


def multiply_adds(model: nn.Module, side: int) -> dict[int, int]:
    """Of one picture: the work of the convolutions by the side of the map that they give."""
    found: dict[int, int] = {}

    def note(layer: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        work = layer.weight[0].numel() * out[0].numel()
        found[out.shape[-1]] = found.get(out.shape[-1], 0) + work

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        model(torch.zeros(1, 3, side, side))
    return found


class TestTANN(ModelTester):
    model_class = TANN
    small: ClassVar[TANNConfig] = SMALL
    side: ClassVar[int] = 16

    @pytest.fixture
    def model(self) -> TANN:
        return awake(SMALL)

    def test_shape_and_range(self, model: TANN) -> None:
        out = model(self.pictures() * 50)
        assert out.photo.shape == (3, 3, 128, 128)
        assert out.photo.abs().max() <= 1
        assert out.alignment.shape == (3, 2, 3)
        assert out.code.shape == (3, 256)
        assert not model.expects_aligned

    def test_training_does_not_clamp(self, model: TANN) -> None:
        model.head.bias.data.fill_(3)
        assert model(self.pictures()).photo.max() == 1
        assert model.train()(self.pictures()).photo.max() > 1

    def test_another_shape_is_refused(self, model: TANN) -> None:
        with pytest.raises(ValueError, match=r"TANN takes \(N, 3, 16, 16\).*recover\(\)"):
            model(torch.zeros(1, 3, 128, 128))

    def test_a_picture_of_any_size_is_recovered(self, model: TANN) -> None:
        large = model.recover(drawn.face(0, 200))
        assert large.size == (128, 128)
        tiny = drawn.face(0, 200).resize((16, 16), Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(large), np.asarray(model.recover(tiny)))

    def test_a_picture_without_a_face_gives_a_picture(self, model: TANN) -> None:
        for value in (-1.0, 0.0, 1.0):
            out = model(torch.full((1, 3, 16, 16), value))
            for part in (out.photo, out.alignment, out.code):
                assert torch.isfinite(part).all()

    def test_training_is_the_same_alone_and_in_a_batch(self, model: TANN) -> None:
        model.double().train()
        pictures = self.pictures().double()
        singles = [model(one[None]) for one in pictures]
        together = model(pictures)
        for name in ("photo", "alignment", "code"):
            each = torch.cat([getattr(one, name) for one in singles])
            assert (getattr(together, name) - each).abs().max() < 1e-10

    def test_a_step_under_autocast(self, model: TANN) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = model.train()(self.pictures())
        assert out.alignment.dtype == torch.float32
        parts = (out.photo.float(), out.alignment, out.code.float())
        sum(part.square().mean() for part in parts).backward()
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


class TestCode:
    @pytest.mark.parametrize("config", CODES)
    def test_the_photo_is_made_of_the_code_alone(self, config: TANNConfig) -> None:
        model = awake(config)
        pictures = drawn.faces(2, 16)
        out = model(pictures)
        features = model.code.unfold(out.code)
        assert features.shape == (2, 16, 4, 4)
        with torch.inference_mode():
            photo = model.decode(features, {}, model.decoder).clamp(-1, 1)
        assert torch.allclose(photo, out.photo, atol=1e-6)

    @pytest.mark.parametrize(
        ("config", "numbers"), [(CODES[0], 256), (CODES[1], 256), (CODES[2], 12)]
    )
    def test_it_is_as_wide_as_the_map_unless_it_is_replaced(
        self, config: TANNConfig, numbers: int
    ) -> None:
        assert awake(config)(drawn.faces(1, 16)).code.shape == (1, numbers)

    def test_of_a_corrected_map_it_is_the_sum(self) -> None:
        model = awake(SMALL)
        features = torch.randn(2, 16, 4, 4)
        expected = features + model.code.layers(features.flatten(1)).reshape(features.shape)
        with torch.inference_mode():
            assert torch.equal(model.code.unfold(model.code.encode(features)), expected)

    def test_it_knows_how_bright_and_strong_a_photo_is(self) -> None:
        """Which the groups' normalization alone would take away."""
        model = awake(replace(SMALL, transformers=()))
        photo = drawn.faces(1, 16)
        photo = photo - photo.mean()
        for other in (0.5 * photo, photo + 0.3):
            change = model(other).code - model(photo).code
            assert change.norm() > 0.05 * model(photo).code.norm()

    @pytest.mark.parametrize(("sizes", "differ"), [((8,), True), ((), False)])
    def test_skips_only_where_they_are_asked_for(
        self, sizes: tuple[int, ...], differ: bool
    ) -> None:
        model = awake(replace(SMALL, skip_sizes=sizes, skip_width=4))
        features = torch.zeros(2, 16, 4, 4)
        _, round_the_code, _ = model.encode(drawn.faces(2, 16))
        first, second = model.decode(features, round_the_code, model.decoder)
        assert bool((first - second).abs().max() > 1e-3) is differ

    def test_what_goes_round_it_is_upright(self) -> None:
        with pytest.raises(ValueError, match="skip_sizes has 16: it would carry unaligned"):
            replace(SMALL, skip_sizes=(16,))
        config = replace(SMALL, transformers=(16,), skip_sizes=(16, 8), skip_width=4)
        model = awake(config)
        pictures = drawn.faces(1, 16)
        _, round_the_code, _ = model.encode(pictures)
        assert {side: maps.shape[-1] for side, maps in round_the_code.items()} == {16: 16, 8: 8}
        model.transformers["16"].last.bias.data[0] += 0.5
        _, turned, _ = model.encode(pictures)
        for side, maps in round_the_code.items():
            assert (maps - turned[side]).abs().max() > 0.1 * maps.abs().max()


class TestCoarsePhoto:
    def test_a_fresh_network_has_no_other(self) -> None:
        coarse = []
        model = TANN(SMALL).eval()
        model.coarse["16"].register_forward_hook(lambda _, __, out: coarse.append(out))
        photo = model(drawn.faces(2, 16)).photo
        assert coarse[0].shape == (2, 3, 32, 32)
        expected = nn.functional.interpolate(coarse[0], size=(128, 128), mode="bicubic")
        assert torch.equal(photo, expected.clamp(-1, 1))

    def test_both_ends_learn(self) -> None:
        torch.manual_seed(0)
        model = TANN(SMALL).train()
        for _ in range(2):  # what is before the head learns when it has moved
            model.zero_grad()
            model(drawn.faces(2, 16)).photo.square().mean().backward()
            with torch.no_grad():
                for weight in model.head.parameters():
                    weight -= weight.grad
        parts = (model.coarse["16"].tail, model.coarse["16"].head, model.tail, model.head)
        for part in parts:
            assert all(weight.grad.abs().max() > 0 for weight in part.parameters())

    @pytest.mark.parametrize("side", [12, 64])
    def test_where_it_has_no_place(self, side: int) -> None:
        with pytest.raises(ValueError, match=f"coarse_side is {side}.*maps of 8, 16, 32"):
            replace(SMALL, coarse_side=side)

    def test_only_where_it_is_asked_for(self) -> None:
        model = TANN(replace(SMALL, coarse_side=0))
        assert not any("coarse" in name for name in model.state_dict())
        assert model.head.weight.abs().max() > 0

    def test_a_network_for_small_photos_is_its_start(self) -> None:
        small = awake(replace(COARSE, transformers=(16, 8)))
        model = TANN(SMALL).eval()
        assert take_over(model, small) == len(small.state_dict())
        pictures = drawn.faces(2, 16)
        enlarged = nn.functional.interpolate(
            small.raw(pictures).photo, size=(128, 128), mode="bicubic"
        )
        assert torch.allclose(model(pictures).photo, enlarged.clamp(-1, 1), atol=1e-6)
        # Between two of the same form every end is its own.
        other = awake(SMALL)
        nn.init.normal_(other.head.weight)
        assert take_over(model, other) == len(other.state_dict())
        assert torch.equal(model.head.weight, other.head.weight)


class TestAlignment:
    def test_it_starts_as_the_identity(self) -> None:
        pictures = drawn.faces(2, 16)
        out = TANN(SMALL).eval()(pictures)
        assert (out.alignment - identity(2, pictures)).abs().max() < 1e-6

    def test_it_is_of_the_encoder_and_the_first_is_the_outer_one(self) -> None:
        model = TANN(SMALL).eval()
        for name, turn in TURNS.items():
            model.transformers[name].last.bias.data = torch.tensor(turn)
        for layer in model.decoder_transformers.values():
            layer.last.bias.data[0] = 1.0
        first, second = (similarity(torch.tensor([TURNS[name]])) for name in ("16", "8"))
        found = model(drawn.faces(1, 16)).alignment
        assert torch.allclose(found, compose(first, second), atol=1e-6)

    def test_every_transformer_learns(self) -> None:
        torch.manual_seed(0)
        model = TANN(SMALL).train()
        nn.init.normal_(model.head.weight)  # it starts at zero
        out = model(drawn.faces(2, 16)).photo
        (out * torch.arange(float(out[0].numel())).reshape(out[0].shape)).sum().backward()
        layers = [*model.transformers.values(), *model.decoder_transformers.values()]
        assert len(layers) == 4
        for layer in layers:
            assert layer.last.bias.grad.abs().min() > 0

    def test_the_twin_without_transformers(self) -> None:
        model = TANN(replace(SMALL, transformers=(), decoder_transformers=())).eval()
        assert model(drawn.faces(1, 16)).alignment is None
        assert not any("transformer" in name for name in model.state_dict())
        rest = {name for name in TANN(SMALL).state_dict() if "transformers" not in name}
        assert set(model.state_dict()) == rest


class TestPaper:
    def test_layers(self) -> None:
        model = TANN(TANNConfig.paper()).eval()
        assert model.config.photo_size == 128
        eights = [(3, 20, 8), (3, 20, 4)]
        sixteens = [(3, 256, 16), (3, 20, 8), (3, 20, 4)]
        expected = PAPER_ENCODER[:1] + sixteens + PAPER_ENCODER[1:2] + eights + PAPER_ENCODER[2:]
        expected += PAPER_DECODER[:2] + eights + PAPER_DECODER[2:3] + sixteens
        expected += PAPER_DECODER[3:4] + [(3, 20, 32), *sixteens] + PAPER_DECODER[4:] + PAPER_TAIL
        assert convolutions(model, 16) == expected
        kinds = [type(layer) for layer in model.modules()]
        assert kinds.count(nn.BatchNorm2d) == 3 + 6 + 1
        slopes = {n.negative_slope for n in model.encoder.modules() if isinstance(n, nn.LeakyReLU)}
        assert slopes == {0.0}
        assert len(model.skips) == 0

    def test_parameters_and_code(self) -> None:
        model = TANN(TANNConfig.paper()).eval()
        counts: dict[str, int] = {}
        for name, weight in model.named_parameters():
            part = "transformers" if "transformers" in name else "rest"
            counts[part] = counts.get(part, 0) + weight.numel()
        assert round(counts["rest"] / 1e6, 1) == 8.9
        assert 0.9 < counts["transformers"] / 1e6 < 1.15
        assert model(drawn.faces(1, 16)).code.shape == (1, 2048)

    def test_work(self) -> None:
        work = multiply_adds(TANN(TANNConfig.paper()).eval(), 16)
        assert round(sum(work.values()) / 1e9, 1) == 8.6


class TestDefaults:
    def test_sizes(self) -> None:
        assert half_bytes(TANN()) <= 8 * MEGABYTE
        assert half_bytes(TANNDiscriminator()) <= 2 * MEGABYTE
        assert TANNConfig().photo_size == 128

    def test_no_layer_looks_at_the_batch_or_works_at_full_size(self) -> None:
        model = TANN().eval()
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
        assert max(size for _, _, size in convolutions(model, 16)) == 64

    def test_work(self) -> None:
        work = multiply_adds(TANN().eval(), 16)
        assert 550e6 < sum(work.values()) < 650e6
        assert work[32] + work[64] > 0.5 * sum(work.values())


class TestTANNDiscriminator(ModelTester):
    model_class = TANNDiscriminator
    small: ClassVar[TANNDiscriminatorConfig] = TANNDiscriminatorConfig(
        widths=(8, 8, 8, 8), full_width=8
    )

    def test_layers_of_the_paper(self) -> None:
        model = TANNDiscriminator(TANNDiscriminatorConfig.paper()).eval()
        assert convolutions(model) == PAPER_DISCRIMINATOR
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
        assert model.full.in_features == 96 * 8 * 8 and model.full.out_features == 1024

    def test_it_is_a_type_of_its_own(self, model: TANNDiscriminator, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path / "tann")
        assert type(HubModel.from_pretrained(tmp_path / "tann")) is TANNDiscriminator
        FDNNDiscriminator().save_pretrained(tmp_path / "fdnn")
        with pytest.raises(WeightsError, match="load it with FDNNDiscriminator"):
            TANNDiscriminator.from_pretrained(tmp_path / "fdnn")
