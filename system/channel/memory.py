"""The policy channel in memory: one object, shared by everybody in the process."""

from __future__ import annotations

import threading

from system.errors import Fenced
from system.types import Snapshot


class MemoryChannel:
    """Holds the newest snapshot. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Snapshot | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a snapshot visible to all. Raises Fenced if a newer epoch has published."""
        with self._lock:
            newest = self._newest
            if newest is not None and newest.epoch > snapshot.epoch:
                raise Fenced(f"epoch {snapshot.epoch}: epoch {newest.epoch} has published")
            if newest is None or _order(snapshot) > _order(newest):
                self._newest = snapshot

    def newest_version(self) -> tuple[int, int]:
        """(epoch, version) of the newest broadcast; (0, 0) if there was none."""
        with self._lock:
            return (0, 0) if self._newest is None else _order(self._newest)

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """The newest snapshot if it is newer than (epoch, version), else None."""
        with self._lock:
            newest = self._newest
            return newest if newest is not None and _order(newest) > (epoch, version) else None

    def wipe(self) -> None:
        """Forgets everything, as FLUSHALL does."""
        with self._lock:
            self._newest = None

    def close(self) -> None:
        """Nothing to release."""


def _order(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.epoch, snapshot.version
