"""Where a run comes from: when, which code, which machine. Evidence carries it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = 1


def provenance() -> dict[str, Any]:
    """For `config.json`."""
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dreamfleet": version(),
        "git": _git_commit(),
        "hardware": _hardware(),
    }


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("dreamfleet")
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_name(info: Path) -> str:
    """As Linux names it; empty where it does not."""
    return _value(info, "model name")


def gpu_names(folder: Path) -> list[str]:
    """Of those with NVIDIA's driver, as the driver names them."""
    return [_value(path, "Model") for path in sorted(folder.glob("*/information"))]


def _value(path: Path, key: str) -> str:
    """Of the first line `key : value`; empty if there is none."""
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _git_commit() -> dict[str, Any] | None:
    """Commit of the code that runs, if it runs from a checkout."""
    git, here = shutil.which("git"), Path(__file__).parent
    if git is None or not (here.parent / ".git").exists():
        return None
    commands = ("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")
    outputs = []
    for command in commands:
        answer = subprocess.run([git, "-C", here, *command], capture_output=True, text=True)
        if answer.returncode:
            return None
        outputs.append(answer.stdout.strip())
    return {"commit": outputs[0], "dirty": bool(outputs[1])}


def _hardware() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "cpu": cpu_name(Path("/proc/cpuinfo")),
        "gpus": gpu_names(Path("/proc/driver/nvidia/gpus")),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
