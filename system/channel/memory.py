"""The policy channel in memory: one object, shared by everybody in the process."""

from __future__ import annotations

import threading

from system.channel.protocol import KEEPING, POLICY
from system.errors import Fenced
from system.types import Snapshot


class MemoryChannel:
    """Holds the newest snapshots. Thread-safe."""

    def __init__(self, *, name: str = POLICY) -> None:
        self._keeping = KEEPING[name]
        self._lock = threading.Lock()
        self._kept: list[Snapshot] = []
        """Newest first."""

    def publish(self, snapshot: Snapshot, *, after: tuple[int, int] | None = None) -> None:
        """Makes a snapshot visible to all. Raises Fenced, see the protocol."""
        with self._lock:
            newest, order = self._newest(), _order(snapshot)
            if newest == order:
                return
            if after is not None and newest != after:
                shown = f"{_shown(newest)} is the newest, not {_shown(after)}"
                raise Fenced(f"{_shown(order)}: {shown}")
            if newest[0] > snapshot.epoch:
                raise Fenced(f"epoch {snapshot.epoch}: epoch {newest[0]} has published")
            if order > newest:
                self._kept = [snapshot, *self._kept][: self._keeping.broadcasts]

    def newest_version(self) -> tuple[int, int]:
        """(epoch, version) of the newest broadcast; (0, 0) if there was none."""
        with self._lock:
            return self._newest()

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """The newest snapshot if it is newer than (epoch, version), else None."""
        with self._lock:
            return self._kept[0] if self._newest() > (epoch, version) else None

    def kept(self) -> list[tuple[int, int]]:
        """(epoch, version) of every broadcast still kept, newest first."""
        with self._lock:
            return [_order(snapshot) for snapshot in self._kept]

    def get(self, epoch: int, version: int) -> Snapshot | None:
        """This very broadcast; None if it is gone."""
        with self._lock:
            found = [each for each in self._kept if _order(each) == (epoch, version)]
            return found[0] if found else None

    def wipe(self) -> None:
        """Forgets everything, as FLUSHALL does."""
        with self._lock:
            self._kept = []

    def close(self) -> None:
        """Nothing to release."""

    def _newest(self) -> tuple[int, int]:
        return _order(self._kept[0]) if self._kept else (0, 0)


def _order(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.epoch, snapshot.version


def _shown(order: tuple[int, int]) -> str:
    return f"{order[0]}-{order[1]}"
