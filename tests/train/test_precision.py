"""The precision that is chosen where none is asked for."""

import pytest
import torch
from torch import nn

from train.precision import in_bf16


@pytest.mark.parametrize("device", ["cpu", "cuda", None])
def test_what_is_asked_for_is_done(device: str | None) -> None:
    assert in_bf16("bf16", device)
    assert not in_bf16("fp32", device)


@pytest.mark.parametrize("has", [False, True])
def test_a_cpu_is_asked_for_its_instructions(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)
    assert in_bf16("auto", "cpu") is has


def test_a_step_in_the_chosen_precision() -> None:
    layer = nn.Conv2d(3, 4, 3)
    chosen = in_bf16("auto", "cpu")
    with torch.autocast("cpu", torch.bfloat16, enabled=chosen):
        out = layer(torch.rand(1, 3, 8, 8))
    assert out.dtype == (torch.bfloat16 if chosen else torch.float32)
