"""OpenGL without a display: one context for each thread that renders.

Which library: what MUJOCO_GL says (egl or osmesa); else EGL if it is installed, else OSMesa.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import threading
from typing import Any

from system.errors import ConfigError

LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
FIX = (
    "install one (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or apt-get install "
    "libosmesa6), choose with MUJOCO_GL=egl or MUJOCO_GL=osmesa; `dreamfleet doctor` tries them"
)


class Context:
    """One GL context, and how many draw in it; the last to leave frees it."""

    def __init__(self, native: Any) -> None:  # noqa: ANN401
        self._native = native
        self.users = 0

    def make_current(self) -> None:
        """In the thread that it was made in."""
        self._native.make_current()

    def free(self) -> None:
        """In any thread; twice is once."""
        self._native.free()


_mine = threading.local()
_contexts: list[Context] = []
"""Of all threads; what is left is freed before the display is."""
_choosing = threading.Lock()


def current() -> Context:
    """This thread's context, made if need be, and made current.

    Raises:
      ConfigError: there is no way to render on this machine; names the fix.
    """
    if not hasattr(_mine, "context"):
        with _choosing:
            _mine.context = _new_context()
    context: Context = _mine.context
    context.make_current()
    return context


def is_mine(context: Context) -> bool:
    """Whether it is this thread's."""
    return getattr(_mine, "context", None) is context


def leave(context: Context) -> None:
    """One user less of this thread's context."""
    context.users -= 1
    if context.users == 0:
        del _mine.context
        _contexts.remove(context)
        context.free()


def choose_backend() -> str:
    """`egl` or `osmesa`.

    Raises:
      ConfigError: neither library is installed, or MUJOCO_GL names something else.
    """
    named = _named()
    if named in LIBRARIES:
        return named
    if named not in ("", "glfw"):
        raise ConfigError(f"MUJOCO_GL={named!r} cannot render without a display: {FIX}")
    for backend in LIBRARIES:
        if _installed(backend):
            return backend
    raise ConfigError(f"pixels need EGL or OSMesa, and neither is installed: {FIX}")


def check_named() -> None:
    """Before MuJoCo is imported, which fails obscurely if what MUJOCO_GL names is not there.

    Raises:
      ConfigError: names the fix.
    """
    named = _named()
    if named in LIBRARIES and not _installed(named):
        raise ConfigError(f"MUJOCO_GL={named!r}, but {LIBRARIES[named]} is not installed: {FIX}")


def _named() -> str:
    return os.environ.get("MUJOCO_GL", "").strip().lower()


def _installed(backend: str) -> bool:
    with contextlib.suppress(OSError):
        ctypes.CDLL(LIBRARIES[backend])
        return True
    return False


def _new_context() -> Context:
    backend = choose_backend()
    # Software GL: a picture is one tile, which threads would only hand over to each other.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        # The size is of a window; pictures are made in buffers of their own.
        native = importlib.import_module(f"mujoco.{backend}").GLContext(1, 1)
    except Exception as error:
        # Whatever a driver that is missing or broken makes PyOpenGL raise.
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"pixels cannot be rendered with {backend} ({why}): {FIX}") from error
    if not _contexts:
        # Registered after the display's own, so it runs before it.
        atexit.register(_free_all)
    _contexts.append(Context(native))
    return _contexts[-1]


def _free_all() -> None:
    for context in _contexts:
        with contextlib.suppress(Exception):
            context.free()
