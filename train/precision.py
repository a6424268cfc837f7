"""In which precision a training computes."""

from typing import Literal

import torch
from accelerate.utils import is_bf16_available

Precision = Literal["auto", "bf16", "fp32"]


def in_bf16(precision: Precision, device: str | None = None) -> bool:
    """Whether autocast to bfloat16 is on.

    A CPU without instructions for it computes in bfloat16 all the same, several times slower than
    in float32: `auto` looks first, `bf16` means it.

    Args:
        precision: of a recipe or a command.
        device: the type of a `torch.device`; None: the accelerator, if there is one.
    """
    if precision != "auto":
        return precision == "bf16"
    device = device or _device()
    if device == "cpu":
        # Where torch was built without oneDNN, it has no such operation.
        built = torch.backends.mkldnn.is_available()
        return built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return is_bf16_available()


def mixed(precision: Precision, device: str | None = None) -> Literal["bf16", "no"]:
    """What accelerate calls it; arguments as of `in_bf16`."""
    return "bf16" if in_bf16(precision, device) else "no"


def _device() -> str:
    # Unasked, torch names the accelerator that it was built for, be it there or not.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found else "cpu"
