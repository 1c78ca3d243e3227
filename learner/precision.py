"""In which dtype dreams are multiplied."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from learner.config import LearnerConfig
from system.config import ModelConfig
from system.models import kernels

LARGE_DREAMS = 512
"""Rows of a product from which bfloat16 pays [dreams]; measured, `docs/performance.md`."""
WIDE_DETER = 256
"""Width of the recurrence from which it pays."""


def dream_dtype(config: LearnerConfig, model: ModelConfig) -> torch.dtype:
    """Of the features of a dream without gradient; float32 where the fused kernels are missing."""
    if config.precision == "fp32" or not kernels.usable(torch.empty(0)):
        return torch.float32
    dreams = config.dream_starts or config.replayed_steps
    large = dreams >= LARGE_DREAMS and model.deter >= WIDE_DETER
    wanted = config.precision == "bf16" or (large and multiplies_bfloat16())
    return torch.bfloat16 if wanted else torch.float32


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU has matrix instructions for it."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_bf16" in info.read_text()
