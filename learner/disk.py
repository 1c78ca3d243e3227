"""Writes that are on the disk when they return, and what a full disk looks like."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from system.errors import DiskFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Device, quota, file size: all of them end when somebody makes room. EIO does not."""


@contextlib.contextmanager
def full_disk_is_named(path: Path) -> Iterator[None]:
    """Turns the operating system's "no room" into DiskFull; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(f"{path}: {error.strerror}; {free} bytes free") from None


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """`os.write` until all of it is written."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def reserve(file: IO[bytes], size: int, folder: Path) -> None:
    """Takes all bytes of a file in this folder at once. Raises DiskFull."""
    with full_disk_is_named(folder / "arena"):
        os.posix_fallocate(file.fileno(), 0, size)
