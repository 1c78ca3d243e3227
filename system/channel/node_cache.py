"""One copy of the newest weights on each machine: one process fetches, the others read its file.

::

    read <folder>/<sha256>            there, and its bytes hash to its name: nothing is fetched
    flock <folder>/lock-<digit>       one process at a time; the others look again and again
    fetch, write, rename              then the oldest files go

Nobody waits for a holder that hangs: after `wait_s` a process fetches for itself. A folder that is
full, read-only or somebody else's is as good as none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

KEPT_FILES = 8
KEPT_BYTES = 1024**3
"""Older files than the newest go when all of them weigh more [bytes]."""
WAIT_S = 3.0
LOOK_S = 0.005
_SHA256 = re.compile(r"[0-9a-f]{64}")


class NodeCache:
    """Weights by their hash, shared by the processes of one user on one machine.

    The loop that uses it::

        weights = cache.get(manifest.sha256, fetch)      # fetch() -> bytes, or None if gone
    """

    def __init__(self, folder: Path | None = None, *, wait_s: float = WAIT_S) -> None:
        """Touches nothing yet.

        Args:
          folder: mode 0700; made if it is not there. The user's own by default.
          wait_s: longest wait for another process's fetch [s].
        """
        self._folder = default_folder() if folder is None else folder
        self._wait_s = wait_s

    def get(self, sha256: str, fetch: Callable[[], bytes | None]) -> bytes | None:
        """The bytes of this hash: from the machine if it has them, else by `fetch`.

        Whatever `fetch` raises is raised; it must return bytes of this hash, or None.
        """
        assert _SHA256.fullmatch(sha256), sha256
        try:
            self._open_folder()
        except OSError:
            return fetch()
        path = self._folder / sha256
        deadline_s = time.monotonic() + self._wait_s
        while True:
            data = _read(path, sha256)
            if data is not None:
                return data
            with self._locked(sha256[0]) as mine:
                if mine:
                    # Somebody may have finished between the look and the lock.
                    return _read(path, sha256) or self._fill(path, fetch)
            if time.monotonic() > deadline_s:
                return fetch()
            time.sleep(LOOK_S)

    def _fill(self, path: Path, fetch: Callable[[], bytes | None]) -> bytes | None:
        data = fetch()
        if data is not None:
            # Under the lock of its digit nobody else writes this name; a killed writer's is reused.
            unfinished = self._folder / f"new-{path.name[0]}"
            try:
                _write(unfinished, data)
                unfinished.rename(path)
                self._drop_old()
            except OSError:
                with contextlib.suppress(OSError):
                    unfinished.unlink()
        return data

    def _open_folder(self) -> None:
        """Raises OSError unless the folder is ours alone."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self._folder} is not a folder of mode 0700 of this user")

    @contextlib.contextmanager
    def _locked(self, digit: str) -> Iterator[bool]:
        """Whether nobody else fetches weights whose hash begins with this digit."""
        try:
            lock = os.open(self._folder / f"lock-{digit}", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield True  # no place for a lock: nor for a file
            return
        try:
            yield _try_lock(lock)
        finally:
            os.close(lock)

    def _drop_old(self) -> None:
        found = [path for path in self._folder.iterdir() if _SHA256.fullmatch(path.name)]
        facts = sorted(((path.stat(), path) for path in found), key=lambda each: -each[0].st_mtime)
        total_bytes = 0
        for place, (fact, path) in enumerate(facts):
            total_bytes += fact.st_size
            if place and (place >= KEPT_FILES or total_bytes > KEPT_BYTES):
                path.unlink(missing_ok=True)


def default_folder() -> Path:
    """`dreamfleet-<uid>` in the user's runtime folder, or where temporary files go."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"dreamfleet-{os.getuid()}"


def _read(path: Path, sha256: str) -> bytes | None:
    """The file's bytes if it is there and they are what its name says."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
