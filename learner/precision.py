"""Whether an update multiplies in bfloat16."""

from __future__ import annotations

import torch

from learner.config import LearnerConfig
from system.config import ModelConfig
from system.models import kernels

WIDE_DETER = 256
"""Width of the recurrence from which bfloat16 pays; measured, `docs/performance.md`."""


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
