"""Refuses what this machine cannot hold, before anything is allocated."""

from __future__ import annotations

import mmap
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deploy.config import RunConfig
from deploy.presets import SIZES
from learner.arena import row_bytes
from learner.memory import update_bytes
from learner.placement import fits_device
from system.config import ReplayConfig
from system.errors import ConfigError
from system.specs import EnvSpec

OTHERS_BYTES = 512 * 1024**2
"""What one process with torch takes before it does anything [bytes]."""
GIB = 1024**3
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What is free, for whom."""

    host_bytes: int
    device_bytes: int | None = None
    """Of the learner's device; None if it is the host."""
    disk_bytes: int = 2**62
    """Where the run's folder will be."""


def free_memory(device: torch.device, where: Path) -> Memory:
    """What this machine has free now, and the disk of this folder."""
    on_device = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    disk = shutil.disk_usage(where).free
    return Memory(host_bytes=host_bytes(), device_bytes=on_device, disk_bytes=disk)


def check_memory(config: RunConfig, spec: EnvSpec, free: Memory) -> None:
    """Returns if the run fits.

    Raises:
      ConfigError: it does not; names what is too large and the nearest that fits.
    """
    needed = update_bytes(config.learner, config.model, spec)
    room = free.host_bytes - OTHERS_BYTES if free.device_bytes is None else free.device_bytes
    if needed > room:
        instead = _instead(config, spec, room)
        raise ConfigError(
            f"model.size={config.model.size!r} needs about {needed / GIB:.1f} GiB to train on this "
            f"environment, and {max(room, 0) / GIB:.1f} GiB are free; {instead}"
        )
    if free.device_bytes is not None:
        if fits_device(config.learner, config.replay, free.device_bytes - needed):
            return
        needed = 0  # the host's room is all the arena's
    arena, replay = arena_bytes(config, spec), config.replay
    room = free.host_bytes - OTHERS_BYTES - needed
    if replay.capacity_bytes > replay.memory_bytes:
        _check_disk(replay, free.disk_bytes)
    elif arena > room:
        raise ConfigError(
            f"replay.capacity_bytes={replay.capacity_bytes} would grow to {arena / GIB:.1f} GiB in "
            f"this run, and {max(room, 0) / GIB:.1f} GiB are free; have it mapped from a file with "
            f"--set replay.memory_bytes={max(room, 1)}, or use "
            f"--set replay.capacity_bytes={max(room, 0) * 9 // 10}"
        )
    else:
        _check_reserve(replay)


def _check_reserve(replay: ReplayConfig) -> None:
    """All of an arena in memory is reserved at the start, whatever this run will fill of it."""
    try:
        mmap.mmap(-1, replay.capacity_bytes).close()
    except (OSError, OverflowError):
        raise ConfigError(
            f"replay.capacity_bytes={replay.capacity_bytes} is more than this machine's memory can "
            "ever hold: lower it, or have it mapped from a file with a replay.memory_bytes below "
            f"it, which is {replay.memory_bytes}"
        ) from None


def _check_disk(replay: ReplayConfig, free_bytes: int) -> None:
    """A mapped arena takes all its room at the start."""
    if replay.capacity_bytes > free_bytes:
        raise ConfigError(
            f"replay.capacity_bytes={replay.capacity_bytes} is more than replay.memory_bytes="
            f"{replay.memory_bytes}, so the arena is mapped from a file, and the disk has "
            f"{free_bytes} bytes free; use --set replay.capacity_bytes={free_bytes * 9 // 10}"
        )


def arena_bytes(config: RunConfig, spec: EnvSpec) -> int:
    """What the arena will take at the end of this run [bytes]."""
    if config.frames == 0:
        return config.replay.capacity_bytes
    steps = config.frames // config.env.action_repeat
    return min(config.replay.capacity_bytes, steps * row_bytes(spec, config.model))


def _instead(config: RunConfig, spec: EnvSpec, room: int) -> str:
    """The largest smaller model that fits, else other ways out."""
    names = list(SIZES)
    known = config.model.size in names
    for name in reversed(names[: names.index(config.model.size)] if known else []):
        # Whatever else was set stays.
        keys = {key: getattr(config.model, key) for key in ("encoder_keys", "decoder_keys")}
        if update_bytes(config.learner, replace(SIZES[name], **keys), spec) <= room:
            return f"the largest that fits is --size {name}"
    pictures = any(part.is_image for part in spec.observation.values())
    return (
        "none of the sizes fits: lower learner.batch_size, learner.horizon or learner.dream_starts"
        f"{', or --pixels-size' if pictures else ''}"
    )


def host_bytes(group: Path = CGROUP) -> int:
    """What the kernel calls available, and no more than a container's limit leaves.

    Args:
      group: of this process, in cgroup v2.
    """
    free = [_available()]
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            # Cached files that nobody has read lately count as used; they make room when asked.
            free.append(int(limit) - used + _inactive_file(group / "memory.stat"))
    except (OSError, ValueError):
        pass
    return min(free)


def _inactive_file(stat: Path) -> int:
    try:
        lines = dict(line.split() for line in stat.read_text().splitlines())
        return int(lines.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 2**62  # a system that does not say
