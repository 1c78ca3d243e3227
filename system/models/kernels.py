"""The fused kernels of `kernels.c`: built once per machine with its C compiler, then loaded.

Where there is no compiler, no CPU tensor or no float32 or bfloat16, `usable` says no and the plain
torch twin runs: slower, the same numbers within rounding. `DREAMFLEET_KERNELS=off` says no, too.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ["-std=c11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared",
         "-fPIC"]  # fmt: skip
EXTRAS: tuple[list[str], ...] = (["-fopenmp", "-mprefer-vector-width=512"], ["-fopenmp"], [])
"""The first that the compiler takes."""
BUILD_S = 60.0
SWITCH = "DREAMFLEET_KERNELS"
SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "norm_silu_f32": [_P] * 4 + [_I] * 3 + [_F],
    "norm_silu_backward_f32": [_P] * 6 + [_I] * 3,
    "gru_f32": [_P, _I, _I, _P, _P] + [_I, _P, _I, _P] + [_I] * 4,
    "sample_f32": [_P] * 4 + [_I] * 4 + [_F],
    "gru_backward": [_P] * 4 + [_I] + [_P] * 2 + [_I] * 3,
    "block_matmul": [_P, _I, _P, _P] + [_I] * 6,
    "sample_backward": [_P] * 3 + [_I] * 3 + [_F],
    "two_hot_mean": [_P] * 3 + [_I] * 2,
    "two_hot_mean_backward": [_P] * 5 + [_I] * 2,
    "two_hot_loss": [_P] * 5 + [_F] + [_P] * 2 + [_I] * 2,
    "two_hot_loss_backward": [_P] * 7 + [_F, _P] + [_I] * 2,
    "laprop": [_P] * 4 + [_I] + [_F] * 5,
}
_wanted = os.environ.get(SWITCH, "on") != "off"


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return _wanted and x.dtype in SUFFIX and x.device.type == "cpu" and library() is not None


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, only the plain twins run."""
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, built if this machine has not yet built them; None where that fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    try:
        path = _folder() / f"kernels-{_machine(compiler)}.so"
        if not path.exists() and not (compiler and _build(compiler, path)):
            return None
        loaded = ctypes.CDLL(str(path))
    except OSError:
        return None
    for name, signature in _SIGNATURES.items():
        for each in {name, name.replace("f32", "bf16")}:
            getattr(loaded, each).argtypes = signature
            getattr(loaded, each).restype = None
    return loaded


def _folder() -> Path:
    """Of this user alone: what lies there is loaded into the process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamfleet"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = cache.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{cache} can be written by others")
    return cache


def _machine(compiler: str | None) -> str:
    """Names what the library depends on: source, compiler and CPU, 16 hex digits."""
    info = Path("/proc/cpuinfo")
    flags = [line for line in info.read_text().splitlines() if line.startswith("flags")][:1] \
        if info.exists() else []  # fmt: skip
    parts = [SOURCE.read_text(), str(FLAGS), str(compiler), platform.platform(), *flags]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(compiler: str, path: Path) -> bool:
    """Compiles next to `path`, then renames: many actors may start at once."""
    for extra in EXTRAS:
        number, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
        os.close(number)
        try:
            command = [compiler, *FLAGS, *extra, str(SOURCE), "-o", name, "-lm"]
            built = subprocess.run(command, capture_output=True, timeout=BUILD_S, check=False)
            if built.returncode == 0:
                os.replace(name, path)
                return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
    return False


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Runs one kernel; tensors are contiguous (or rows of a stride that is given), None is NULL."""
    kernel = getattr(library(), name)
    kernel(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])
