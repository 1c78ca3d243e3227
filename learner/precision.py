"""In which dtype an update multiplies: kernels on a CPU, everything on CUDA."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from learner.config import LearnerConfig
from system.config import ModelConfig
from system.models import kernels

WIDE_DETER = 256
"""Width of the recurrence from which bfloat16 pays; measured, `docs/performance.md`."""
WIDE_CUDA_DETER = 2048
"""The same on CUDA: below, an update is made of launches, and every cast is one. Unmeasured."""


def rounds_products(config: LearnerConfig, model: ModelConfig) -> bool:
    """Whether the kernels round the factors of their products; never where the CPU cannot."""
    wanted = config.precision == "bf16" or (
        config.precision == "auto" and model.deter >= WIDE_DETER
    )
    return wanted and kernels.has_tiles()


def image_dtype(config: LearnerConfig, device: torch.device) -> torch.dtype:
    """Of the convolutions of pictures; float32 where the kernels are missing."""
    taken = device.type == "cpu" and kernels.usable(torch.empty(0))
    wanted = config.precision == "bf16" or (config.precision == "auto" and kernels.has_tiles())
    return torch.bfloat16 if taken and wanted else torch.float32


def products(
    config: LearnerConfig, model: ModelConfig, device: torch.device
) -> AbstractContextManager[object]:
    """Inside, a CUDA device multiplies as `learner.precision` says; the CPU is as it was.

    Factors of matrix products and convolutions become bfloat16, sums are float32; parameters and
    what autocast keeps in float32 stay so: norms, softmax, logarithms, losses.
    """
    if device.type != "cuda" or not rounds_on_cuda(config, model):
        return contextlib.nullcontext()
    # No cache: the gradients of a weight that was cast once would add up in bfloat16.
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


def rounds_on_cuda(config: LearnerConfig, model: ModelConfig) -> bool:
    """Whether factors are bfloat16 there."""
    wide = config.precision == "auto" and model.deter >= WIDE_CUDA_DETER
    return config.precision == "bf16" or wide


def set_cuda_precision(config: LearnerConfig) -> None:
    """What is float32 is multiplied exactly with fp32, else as TF32; for the whole process."""
    exact = config.precision == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
