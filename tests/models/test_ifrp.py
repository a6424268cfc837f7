"""The style removal network with spatial transformers, and its discriminator."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from face_destyle import (
    FDNN,
    IFRP,
    FDNNDiscriminator,
    FDNNDiscriminatorConfig,
    HubModel,
    IFRPConfig,
    IFRPDiscriminator,
    WeightsError,
)
from face_destyle.configs import config_from_dict
from face_destyle.models.similarity import compose, identity, parameters_of, similarity, warp
from tests import drawn
from tests.models.test_fdnn import (
    MEGABYTE,
    PAPER_DECODER,
    PAPER_ENCODER,
    PAPER_TAIL,
    convolutions,
    half_bytes,
)
from tests.models.tester import ModelTester

SMALL = IFRPConfig(
    encoder_widths=(8, 8, 16, 16),
    localisation_widths=(4, 8, 8, 8),
    localisation_full=8,
    code_rank=4,
    decoder_widths=(16, 8, 8),
    skip_width=4,
    tail_width=8,
)
TURNS = {"64": (math.radians(25), 0.9, 0.1, 0.0), "32": (math.radians(-10), 1.1, 0.0, 0.2)}


def awake(config: IFRPConfig) -> IFRP:
    """A network whose transformers do something, a little another thing for each portrait.

    A little, because random features differ from pixel to pixel: sampling them elsewhere
    enlarges the rounding of the four numbers.
    """
    torch.manual_seed(0)
    model = IFRP(config)
    for name, layer in model.transformers.items():
        nn.init.normal_(layer.last.weight, std=0.02)
        layer.last.bias.data = torch.tensor(TURNS[name])
    return model.eval()


def multiply_adds(model: nn.Module) -> dict[str, int]:
    """Of one picture, by the first part of the layers' names."""
    found: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(layer: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            each = layer.weight[0].numel()
            found[name] = found.get(name, 0) + each * out[0].numel()

        return hook

    hooks = [
        layer.register_forward_hook(note(name.split(".")[0]))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 3, 128, 128))
    for hook in hooks:
        hook.remove()
    return found


class TestIFRP(ModelTester):
    model_class = IFRP
    small: ClassVar[IFRPConfig] = SMALL

    @pytest.fixture
    def model(self) -> IFRP:
        return awake(SMALL)

    def test_shape_and_range(self, model: IFRP) -> None:
        out = model(self.pictures() * 50)
        assert out.photo.shape == (3, 3, 128, 128)
        assert out.photo.abs().max() <= 1
        assert out.alignment.shape == (3, 2, 3)
        assert not model.expects_aligned

    def test_training_does_not_clamp(self, model: IFRP) -> None:
        model.head.bias.data.fill_(3)
        assert model(self.pictures()).photo.max() == 1
        assert model.train()(self.pictures()).photo.max() > 1

    def test_another_shape_is_refused(self, model: IFRP) -> None:
        with pytest.raises(ValueError, match=r"IFRP takes \(N, 3, 128, 128\).*recover\(\)"):
            model(torch.zeros(1, 3, 64, 64))

    def test_a_picture_without_a_face_gives_a_picture(self, model: IFRP) -> None:
        for value in (-1.0, 0.0, 1.0):
            out = model(torch.full((1, 3, 128, 128), value))
            assert torch.isfinite(out.photo).all() and torch.isfinite(out.alignment).all()

    def test_training_is_the_same_alone_and_in_a_batch(self, model: IFRP) -> None:
        model.double().train()
        pictures = self.pictures().double()
        singles = [model(one[None]) for one in pictures]
        together = model(pictures)
        for name in ("photo", "alignment"):
            each = torch.cat([getattr(one, name) for one in singles])
            assert (getattr(together, name) - each).abs().max() < 1e-10

    def test_the_saved_alignment_is_the_same(self, model: IFRP, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = IFRP.from_pretrained(tmp_path)
        with torch.inference_mode():
            pictures = self.pictures()
            assert torch.equal(loaded(pictures).alignment, model(pictures).alignment)

    def test_a_step_under_autocast(self, model: IFRP) -> None:
        exact = model.train()(self.pictures())
        with torch.autocast("cpu", torch.bfloat16):
            close = model(self.pictures())
        assert close.alignment.dtype == torch.float32
        assert (close.alignment - exact.alignment).abs().max() < 0.03
        (close.photo.float().square().mean() + close.alignment.square().mean()).backward()
        gradients = [weight.grad for weight in model.parameters()]
        assert all(part is not None and torch.isfinite(part).all() for part in gradients)


class TestAlignment:
    def test_it_starts_as_the_identity(self) -> None:
        pictures = drawn.faces(2)
        out = IFRP(SMALL).eval()(pictures)
        assert (out.alignment - identity(2, pictures)).abs().max() < 1e-6

    def test_it_is_what_was_done_to_the_features(self) -> None:
        """Levels that leave the picture alone: the two warps are then the warp returned."""
        model = awake(replace(SMALL, encoder_widths=(3, 3, 16, 16)))
        model.shuffle_in = nn.AvgPool2d(2)
        model.encoder[0] = nn.Identity()
        model.encoder[1] = nn.AvgPool2d(2)
        found = []
        for name in ("64", "32"):
            model.transformers[name].register_forward_hook(lambda la, i, out: found.append(out))
        pictures = F.avg_pool2d(drawn.faces(3), 5, 1, 2)
        with torch.inference_mode():
            alignment = model(pictures).alignment
        (_, first), (features, second) = found

        def error(matrix: torch.Tensor) -> float:
            once = F.avg_pool2d(warp(pictures, matrix), 4)
            return (once - features)[..., 8:24, 8:24].abs().mean().item()

        assert error(alignment) < 0.04
        assert error(compose(second, first)) > 1.5 * error(alignment)
        assert error(identity(3, pictures)) > 3 * error(alignment)

    def test_the_first_transformer_is_the_outer_one(self) -> None:
        model = IFRP(SMALL).eval()
        for name, turn in TURNS.items():
            model.transformers[name].last.bias.data = torch.tensor(turn)
        first, second = (similarity(torch.tensor([TURNS[name]])) for name in ("64", "32"))
        found = model(drawn.faces(1)).alignment
        assert torch.allclose(found, compose(first, second), atol=1e-6)
        angle, scale = parameters_of(found)[0, :2].tolist()
        assert angle == pytest.approx(15, abs=1e-3)
        assert scale == pytest.approx(0.99, abs=1e-5)

    @pytest.mark.parametrize("part", ["photo", "alignment"])
    def test_both_transformers_learn(self, part: str) -> None:
        torch.manual_seed(0)
        model = IFRP(SMALL).train()
        out = getattr(model(drawn.faces(2)), part)
        (out * torch.arange(float(out[0].numel())).reshape(out[0].shape)).sum().backward()
        for layer in model.transformers.values():
            assert layer.last.weight.grad.abs().max() > 0
            assert layer.last.bias.grad.abs().min() > 0

    def test_nothing_goes_round_the_transformers(self) -> None:
        """Where the last of them shows nothing, the photo knows nothing of the portrait."""
        model = awake(SMALL)

        def blank(layer: nn.Module, inputs: Any, out: Any) -> Any:
            return torch.zeros_like(out[0]), out[1]

        model.transformers["32"].register_forward_hook(blank)
        first, second = model(drawn.faces(2)).photo
        assert torch.allclose(first, second, atol=1e-6)

    @pytest.mark.parametrize(("sizes", "differ"), [((32,), True), ((16,), True), ((), False)])
    def test_skips_go_round_the_code(self, sizes: tuple[int, ...], differ: bool) -> None:
        model = awake(replace(SMALL, skip_sizes=sizes))
        model.code.register_forward_hook(lambda layer, inputs, out: torch.zeros_like(out))
        first, second = model(drawn.faces(2)).photo
        assert bool((first - second).abs().max() > 1e-3) is differ

    def test_one_transformer(self) -> None:
        model = awake(replace(SMALL, transformers=(32,)))
        seen = []
        model.transformers["32"].register_forward_hook(lambda layer, i, out: seen.append(out[1]))
        assert torch.equal(model(drawn.faces(2)).alignment, seen[0])

    def test_the_twin_without_transformers(self) -> None:
        model = IFRP(replace(SMALL, transformers=())).eval()
        assert model(drawn.faces(1)).alignment is None
        assert not any("transformer" in name for name in model.state_dict())
        rest = {name for name in IFRP(SMALL).state_dict() if "transformers" not in name}
        assert set(model.state_dict()) == rest


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"transformers": (48,)}, "transformers has 48; there are maps of 8, 16, 32, 64"),
            ({"transformers": (64, 128)}, "transformers has 128; there are maps of 8, 16, 32, 64"),
            ({"decoder_transformers": (8,)}, "has 8; there are maps of 16, 32, 64"),
            ({"skip_sizes": (8,)}, "skip_sizes has 8; there are maps of 16, 32, 64"),
            ({"skip_sizes": (64, 32)}, "skip_sizes has 64: it would carry unaligned features"),
            ({"transformers": (16,)}, "round the transformer at 16; leave it out"),
            ({"localisation_widths": (8, 8)}, "make transformers at 8, 16, not at 64"),
            ({"localisation_widths": ()}, "make transformers at no size, not at 64"),
        ],
    )
    def test_what_has_no_place_is_named(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **fields)
        with pytest.raises(WeightsError, match=f"config.json: .*{message}") as raised:
            config_from_dict(IFRPConfig, fields, "config.json")
        assert "\n" not in str(raised.value)

    def test_a_skip_at_the_size_of_the_last_transformer_comes_after_it(self) -> None:
        assert IFRPConfig(transformers=(64, 32), skip_sizes=(32,)).skip_sizes == (32,)
        assert IFRPConfig(transformers=(), skip_sizes=(64, 32)).skip_sizes == (64, 32)


class TestPaper:
    def test_layers(self) -> None:
        model = IFRP(IFRPConfig.paper()).eval()
        local = [(3, 64, 64), (3, 128, 32), (3, 256, 16), (3, 20, 8), (3, 20, 4)]
        expected = PAPER_ENCODER[:2] + local
        expected += PAPER_ENCODER[2:3] + [(3, 128, 32), (3, 256, 16), (3, 20, 8), (3, 20, 4)]
        expected += PAPER_ENCODER[3:] + PAPER_DECODER[:2] + [(3, 20, 8), (3, 20, 4)]
        expected += PAPER_DECODER[2:] + PAPER_TAIL
        assert convolutions(model) == expected
        kinds = [type(layer) for layer in model.modules()]
        assert kinds.count(nn.BatchNorm2d) == 13  # none in the localisation networks
        assert kinds.count(nn.MaxPool2d) == 6 + 4 + 3 + 1
        assert len(model.skips) == 0

    def test_parameters(self) -> None:
        counts: dict[str, int] = {}
        for name, weight in IFRP(IFRPConfig.paper()).named_parameters():
            part = "transformers" if "transformers" in name else "rest"
            counts[part] = counts.get(part, 0) + weight.numel()
        # The authors' convolutions have biases that their batch normalization takes away again.
        biases = sum(width for _, width, _ in PAPER_ENCODER + PAPER_DECODER + PAPER_TAIL[:1])
        assert round((counts["rest"] + biases) / 1e6, 2) == 7.48
        assert round(counts["transformers"] / 1e6, 2) == 0.89
        assert round(sum(counts.values()) / 1e6, 1) == 8.4

    def test_work(self) -> None:
        model = IFRP(IFRPConfig.paper()).eval()
        assert round(sum(multiply_adds(model).values()) / 1e9, 1) == 8.6

    def test_the_transformer_of_the_decoder_is_not_returned(self) -> None:
        model = IFRP(IFRPConfig.paper()).eval()
        model.decoder_transformers["8"].last.bias.data[0] = 1.0
        pictures = drawn.faces(1)
        assert torch.equal(model(pictures).alignment, identity(1, pictures))


class TestDefaults:
    def test_sizes(self) -> None:
        assert half_bytes(IFRP()) <= 8 * MEGABYTE
        assert half_bytes(IFRPDiscriminator()) <= 2 * MEGABYTE

    def test_no_layer_looks_at_the_batch_or_works_at_full_size(self) -> None:
        model = IFRP().eval()
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
        assert max(size for _, _, size in convolutions(model)) == 64

    def test_what_transformers_cost(self) -> None:
        work = multiply_adds(IFRP().eval())
        assert 0 < work["transformers"] <= 0.15 * sum(work.values())
        assert sum(work.values()) <= 1.3 * sum(multiply_adds(FDNN().eval()).values())


class TestIFRPDiscriminator(ModelTester):
    model_class = IFRPDiscriminator
    small: ClassVar[FDNNDiscriminatorConfig] = FDNNDiscriminatorConfig(
        widths=(8, 8, 8, 8), full_width=8
    )

    def test_it_is_a_type_of_its_own(self, model: IFRPDiscriminator, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path / "ifrp")
        assert type(HubModel.from_pretrained(tmp_path / "ifrp")) is IFRPDiscriminator
        FDNNDiscriminator(self.small).save_pretrained(tmp_path / "fdnn")
        with pytest.raises(WeightsError, match="load it with FDNNDiscriminator"):
            IFRPDiscriminator.from_pretrained(tmp_path / "fdnn")
