"""Where the learner computes."""

from __future__ import annotations

import torch

from system.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA if there is one, else the CPU. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:  # torch asserts when built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"learner.device={name!r} cannot be used here ({reason}); use auto, cpu or cuda"
        ) from None
