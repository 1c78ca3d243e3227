"""A lock that the kernel drops with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from system.errors import RunError

ATTEMPTS = 10
PAUSE_S = 0.05


class FileLock:
    """One file, at most one holder.

    The calls that use it::

        with lock.held(lambda: "run 'walk' is in use"):
            assert lock.is_held()
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self, refusal: Callable[[], str]) -> Iterator[IO[str]]:
        """Holds it; yields the file. Raises RunError with the refusal if somebody else does."""
        with self.path.open("a") as file:
            # Whoever only looks holds it too, for a moment.
            for attempt in range(ATTEMPTS):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if attempt == ATTEMPTS - 1:
                        raise RunError(refusal()) from None
                    time.sleep(PAUSE_S)
            yield file

    def is_held(self) -> bool:
        """Whether somebody holds it at this moment."""
        with contextlib.suppress(FileNotFoundError), self.path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False
