"""Whether an update multiplies in bfloat16."""

from __future__ import annotations

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
