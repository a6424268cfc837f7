"""The precision that is chosen where none is asked for."""

import pytest
import torch

from train.precision import in_bf16, mixed


@pytest.fixture(params=[False, True])
def has(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU has instructions for bfloat16."""
    asked = "_is_mkldnn_bf16_supported"
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, asked, lambda: request.param, raising=False)
    return bool(request.param)


@pytest.mark.parametrize("device", ["cpu", "cuda", None])
def test_what_is_asked_for_is_done(device: str | None) -> None:
    assert in_bf16("bf16", device)
    assert not in_bf16("fp32", device)


def test_accelerate_is_told_by_its_own_word() -> None:
    assert mixed("bf16") == "bf16"
    assert mixed("fp32") == "no"


def test_a_cpu_is_asked_for_its_instructions(has: bool) -> None:
    assert in_bf16("auto", "cpu") is has


def test_a_torch_for_gpus_on_a_machine_without_one(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert in_bf16("auto") is has


def test_a_gpu_is_asked_for_its_own_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not in_bf16("auto")


def test_a_torch_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not in_bf16("auto", "cpu")
