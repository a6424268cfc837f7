"""What every network must do; a test class a network inherits it and says how it is made."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from face_destyle import HubModel, WeightsError
from tests import drawn


class ModelTester:
    """Inherit, and set `model_class`, `small` and, where it is not 128, `side`."""

    model_class: ClassVar[type[HubModel]]
    small: ClassVar[Any]  # a config of few numbers
    side: ClassVar[int] = 128

    @pytest.fixture
    def model(self) -> HubModel:
        """The small network with the same random weights every time."""
        torch.manual_seed(0)
        return self.model_class(self.small).eval()

    def result(self, model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        """The tensor that the network gives."""
        with torch.inference_mode():
            out = model(pictures)
        return out if isinstance(out, torch.Tensor) else out.photo

    def pictures(self, count: int = 3) -> torch.Tensor:
        return drawn.faces(count, self.side)

    def test_the_defaults_build(self) -> None:
        assert self.model_class().config == self.model_class.config_class()

    def test_the_same_twice(self, model: HubModel) -> None:
        pictures = self.pictures()
        assert torch.equal(self.result(model, pictures), self.result(model, pictures))

    @pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
    def test_a_batch_is_its_singles(
        self, model: HubModel, dtype: torch.dtype, limit: float
    ) -> None:
        """In float64 it is exact; in float32 sums of another order round differently."""
        model, pictures = model.to(dtype), self.pictures().to(dtype)
        singles = torch.cat([self.result(model, one[None]) for one in pictures])
        assert (self.result(model, pictures) - singles).abs().max() < limit

    def test_pictures_differ_in_their_result(self, model: HubModel) -> None:
        first, second = self.result(model, self.pictures(2))
        assert (first - second).abs().max() > 1e-4

    def test_gradients_reach_every_weight(self, model: HubModel) -> None:
        out = model.train()(self.pictures(2))
        (out if isinstance(out, torch.Tensor) else out.photo).square().sum().backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name

    def test_saved_and_loaded_bit_for_bit(self, model: HubModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        for loader in (self.model_class, HubModel):
            loaded = loader.from_pretrained(tmp_path)
            assert type(loaded) is self.model_class
            assert loaded.config == model.config
            assert not loaded.training
            pictures = self.pictures()
            assert torch.equal(self.result(loaded, pictures), self.result(model, pictures))

    def test_channels_last_is_saved_too(self, model: HubModel, tmp_path: Path) -> None:
        model.to(memory_format=torch.channels_last).save_pretrained(tmp_path)
        loaded = self.model_class.from_pretrained(tmp_path)
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name

    def test_half_precision_files_load_into_float32(self, model: HubModel, tmp_path: Path) -> None:
        model.half().save_pretrained(tmp_path)
        stored = load_file(tmp_path / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        loaded = self.model_class.from_pretrained(tmp_path)
        assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, stored[name].float()), name

    def test_bfloat16(self, model: HubModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = self.model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
        pictures = self.pictures()
        close = self.result(loaded, pictures.bfloat16())
        assert close.dtype == torch.bfloat16
        exact = self.result(model, pictures)
        assert (close.float() - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.05

    def test_a_missing_weight_is_named(self, model: HubModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        gone = list(state)[-1]
        del state[gone]
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=f"missing {gone}"):
            self.model_class.from_pretrained(tmp_path)

    def test_compiles_without_a_break(self, model: HubModel) -> None:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        pictures = self.pictures(1)
        difference = self.result(compiled, pictures) - self.result(model, pictures)
        assert difference.abs().max() < 1e-5

    def test_exports_for_every_batch_size(self, model: HubModel) -> None:
        size = torch.export.Dim("batch", min=1, max=64)
        whole = torch.export.export(
            Plain(model), (self.pictures(2),), dynamic_shapes=({0: size},)
        ).module()
        pictures = self.pictures(3)
        assert (whole(pictures) - self.result(model, pictures)).abs().max() < 1e-5


class Plain(nn.Module):
    """A network that gives a tensor, whatever the one inside gives."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        out = self.model(pictures)
        return out if isinstance(out, torch.Tensor) else out.photo
