"""The fused kernels of `native/`: built once per machine with its C compiler, then loaded.

Where there is no compiler, no CPU tensor or no float32, `usable` says no and the plain torch twin
runs: slower, the same numbers within rounding. `DREAMFLEET_KERNELS=off` says no, too.
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

from system.models.records import SIGNATURES

FOLDER = Path(__file__).with_name("native")
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared",
         "-fPIC"]  # fmt: skip
EXTRAS: tuple[list[str], ...] = (["-fopenmp", "-mprefer-vector-width=512"], ["-fopenmp"], [])
"""The first that the compiler takes."""
BUILD_S = 60.0
SWITCH = "DREAMFLEET_KERNELS"
_wanted = os.environ.get(SWITCH, "on") != "off"
_rounds = False


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return _wanted and x.dtype is torch.float32 and x.device.type == "cpu" and library() is not None


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, only the plain twins run."""
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


@contextmanager
def rounding(wanted: bool) -> Iterator[None]:
    """Inside, if wanted, products of kernels round their factors to bfloat16; sums stay float32.

    Gradients follow what was chosen on the way there. Nothing changes where the CPU has no matrix
    instructions for it.
    """
    global _rounds
    before, _rounds = _rounds, wanted and has_tiles()
    try:
        yield
    finally:
        _rounds = before


def rounds() -> bool:
    """Whether products round to bfloat16 here."""
    return _rounds


@functools.cache
def has_tiles() -> bool:
    """Whether the CPU multiplies bfloat16 matrices (AMX) and Linux lets us."""
    return library() is not None and bool(library().ask_for_tiles())  # type: ignore[union-attr]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, built if this machine has not yet built them; None where that fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    try:
        path = _folder() / f"kernels-{_machine(compiler)}.so"
        loaded = _load(path)
        if loaded is None and compiler and _build(compiler, path):
            loaded = _load(path)
    except (OSError, RuntimeError):  # no such folder; no home at all
        return None
    if loaded is None:
        return None
    for name, signature in SIGNATURES.items():
        getattr(loaded, name).argtypes = signature
        getattr(loaded, name).restype = None
    for name in ("ask_for_tiles", "max_threads"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded


def max_threads() -> int:
    """So many threads may add to a gradient at once."""
    # A thread's first call takes over how many torch may use, also for the kernels.
    torch.get_num_threads()
    return int(library().max_threads())  # type: ignore[union-attr]


def _load(path: Path) -> ctypes.CDLL | None:
    """None if it is not there, or damaged: a disk was full, a machine went down."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


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
    sources = [path.read_text() for path in sorted(FOLDER.iterdir()) if path.suffix in (".c", ".h")]
    parts = [*sources, str(FLAGS), str(compiler), platform.platform(), *flags]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(compiler: str, path: Path) -> bool:
    """Compiles next to `path`, then renames: many actors may start at once."""
    source = str(FOLDER / "kernels.c")
    for extra in EXTRAS:
        number, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
        os.close(number)
        try:
            command = [compiler, *FLAGS, *extra, source, "-o", name, "-lm"]
            built = subprocess.run(command, capture_output=True, timeout=BUILD_S, check=False)
            if built.returncode == 0:
                os.replace(name, path)
                return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
    return False


def call(name: str, *arguments: object) -> None:
    """Runs one kernel: tensors by their address (None is NULL), records by theirs, numbers."""
    kernel = getattr(library(), name)
    kernel(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])
