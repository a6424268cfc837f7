"""The allocator of a long run."""

import platform

import torch

from train.memory import keep_freed_memory


def test_glibc_takes_the_advice() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    # Blocks above the largest mapped one can still be had.
    assert torch.ones(50_000_000).sum() == 50_000_000
