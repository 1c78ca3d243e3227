"""Disks that are full, for real: the operating system itself refuses the write."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """Writes of this process that would make a file larger fail with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(where: Path, *, num_bytes: int) -> Iterator[Path]:
    """A file system of its own; skips the test where mounting is not allowed."""
    where.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no mount command")
    options = f"size={num_bytes}"
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "none", where], capture_output=True
    ).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield where
    finally:
        subprocess.run([umount, "-l", where], check=True)
