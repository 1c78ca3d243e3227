"""Where the learner computes."""

from __future__ import annotations

import torch

from learner.allocator import keep_pages
from learner.config import LearnerConfig
from learner.precision import set_cuda_precision
from system.errors import ConfigError


def prepared_device(config: LearnerConfig) -> torch.device:
    """The learner's device; threads, memory and precision of this process are set for it.

    Raises:
      ConfigError: there is no such device here.
    """
    torch.set_num_threads(config.torch_threads)
    keep_pages()
    device = choose_device(config.device)
    if device.type == "cuda":
        set_cuda_precision(config)
    return device


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA if there is one, else the CPU. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.zeros((), device=name).device
        if device.type in ("cpu", "cuda"):
            return device
        reason = f"{device.type} devices are not supported"
    except (RuntimeError, AssertionError) as error:  # torch asserts when built without CUDA
        reason = str(error).splitlines()[0]
    raise ConfigError(
        f"learner.device={name!r} cannot be used here ({reason}); use auto, cpu or cuda"
    )
