"""Where the arena's rows go: on the learner's device if they fit its share, else on the host."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.config import LearnerConfig
from learner.memory import update_bytes
from learner.setup import LearnerSetup
from learner.storage import Allocate, ColumnSpec, Storage, in_file, in_memory, on_device
from system.config import ReplayConfig
from system.errors import ConfigError, DiskFull
from system.specs import EnvSpec


def fits_device(config: LearnerConfig, replay: ReplayConfig, free_bytes: int) -> bool:
    """Whether the whole arena may lie on a device with so much free besides an update [bytes]."""
    return replay.capacity_bytes <= config.arena_device_share * free_bytes


def placement(setup: LearnerSetup, spec: EnvSpec, device: torch.device) -> Allocate:
    """How to allocate the rows of this learner's arena."""
    config, replay = setup.config, setup.replay
    if device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0] - update_bytes(config, setup.model, spec)
        if fits_device(config, replay, free_bytes):
            return on_device
    mapped = replay.capacity_bytes > replay.memory_bytes
    return _mapped(replay, setup.folder) if mapped else in_memory


def _mapped(replay: ReplayConfig, folder: Path) -> Allocate:
    allocate = in_file(folder)

    def named(columns: dict[str, ColumnSpec], rows: int, device: torch.device) -> Storage:
        try:
            return allocate(columns, rows, device)
        except DiskFull as error:
            raise ConfigError(
                f"replay.capacity_bytes={replay.capacity_bytes} is more than "
                f"replay.memory_bytes={replay.memory_bytes}, so the arena is mapped from a file, "
                f"and there is no room for it ({error}): lower the first, or raise the second"
            ) from None

    return named
