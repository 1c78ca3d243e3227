"""Disks that are fast, and disks that take nothing."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path


def memory_folder() -> Path | None:
    """Where syncing costs nothing, if there is such a place; else None."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() else None


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses every byte this process writes to a file (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
