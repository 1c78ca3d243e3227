"""The log in memory: for one process (debugging, tests, machines without Redis).

One `MemoryLog` is the store; `slot_log(slot)` and `reader()` hand out its two ends. It refuses by
the same rule as Redis, and it can be made to fail like one: `wipe`, `lose_tail`, `unavailable`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from system.errors import Fenced, Unavailable
from system.log.protocol import AppendReply, Entry, LogReader, Notice, SlotLog
from system.types import ZERO_ID, EntryId


@dataclass(slots=True)
class _Stream:
    last_id: EntryId = ZERO_ID
    entries: dict[EntryId, bytes] = field(default_factory=dict)


class MemoryLog:
    """All streams of one run. Thread-safe."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Held for every access, notified by every append."""
        self.streams: dict[int, _Stream] = {}
        self.slots: set[int] = set()
        self.notice_id = ZERO_ID
        self.notice: Notice | None = None
        self.unavailable = False
        """While True every access raises Unavailable, as when Redis is down."""

    def slot_log(self, slot: int) -> SlotLog:
        """An actor's end."""
        return MemorySlotLog(self, slot)

    def reader(self) -> LogReader:
        """The learner's end."""
        return MemoryLogReader(self)

    def wipe(self, *, data: bool = True, control: bool = True) -> None:
        """Forgets what these servers held, as FLUSHALL or one without persistence does."""
        with self.changed:
            if data:
                self.streams.clear()
                self.slots.clear()
            if control:
                self.notice_id, self.notice = ZERO_ID, None

    def lose_tail(self, slot: int, count: int) -> int:
        """Forgets a stream's newest `count` entries, as a killed server does; returns how many."""
        with self.changed:
            stream = self.streams.get(slot)
            if stream is None:
                return 0
            lost = list(stream.entries)[len(stream.entries) - min(count, len(stream.entries)) :]
            for entry_id in lost:
                del stream.entries[entry_id]
            if lost:
                stream.last_id = max(stream.entries, default=ZERO_ID)
            return len(lost)

    def check(self) -> None:
        """Raises Unavailable if the store was made unavailable."""
        if self.unavailable:
            raise Unavailable("the log in memory was made unavailable")


class MemorySlotLog:
    """An actor's end of a MemoryLog."""

    def __init__(self, store: MemoryLog, slot: int) -> None:
        self._store = store
        self._slot = slot

    def last_id(self) -> EntryId | None:
        """The greatest id the stream ever held; None if there is no stream."""
        with self._store.changed:
            self._store.check()
            stream = self._store.streams.get(self._slot)
            return None if stream is None else stream.last_id

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        """Appends one entry; only `create=True` makes a stream."""
        with self._store.changed:
            self._store.check()
            stream = self._store.streams.get(self._slot)
            if stream is None:
                if not create:
                    return AppendReply.MISSING
                stream = self._store.streams[self._slot] = _Stream()
                self._store.slots.add(self._slot)
            if entry_id <= stream.last_id:
                return AppendReply.REFUSED
            stream.entries[entry_id] = payload
            stream.last_id = entry_id
            self._store.changed.notify_all()
            return AppendReply.ACKNOWLEDGED

    def notice(self) -> Notice | None:
        """The learner's newest notice."""
        with self._store.changed:
            self._store.check()
            return self._store.notice

    def close(self) -> None:
        """Nothing to release."""


class MemoryLogReader:
    """The learner's end of a MemoryLog."""

    def __init__(self, store: MemoryLog) -> None:
        self._store = store

    def claim_epoch(self, *, after: int = 0) -> int:
        """Takes the next epoch; the notice of the one before is withdrawn."""
        with self._store.changed:
            self._store.check()
            epoch = max(self._store.notice_id.incarnation, after) + 1
            self._store.notice_id, self._store.notice = EntryId(epoch, 0), None
            return epoch

    def slots(self) -> list[int]:
        """Slots that were ever claimed, growing order."""
        with self._store.changed:
            self._store.check()
            return sorted(self._store.slots)

    def read(self, cursors: dict[int, EntryId], *, limit: int, wait_s: float = 0.0) -> list[Entry]:
        """Entries after each slot's cursor; waits at most `wait_s` for the first one [s]."""
        with self._store.changed:
            self._store.check()
            entries = self._after(cursors, limit)
            if not entries and wait_s > 0 and self._store.changed.wait(wait_s):
                self._store.check()
                entries = self._after(cursors, limit)
            return entries

    def publish(self, notice: Notice) -> None:
        """Replaces the notice. Raises Fenced if a newer epoch has spoken."""
        with self._store.changed:
            self._store.check()
            notice_id = EntryId(notice.epoch, notice.tick)
            if self._store.notice_id.incarnation > notice.epoch:
                raise Fenced(
                    f"learner epoch {notice.epoch}: epoch {self._store.notice_id.incarnation} "
                    "has taken over"
                )
            if notice_id > self._store.notice_id:
                self._store.notice_id = notice_id
                self._store.notice = replace(notice, slots=dict(notice.slots))

    def trim(self, slot: int, below: EntryId) -> int:
        """Drops entries with smaller ids; returns how many."""
        with self._store.changed:
            self._store.check()
            stream = self._store.streams.get(slot)
            old = [] if stream is None else [name for name in stream.entries if name < below]
            for entry_id in old:
                del self._store.streams[slot].entries[entry_id]
            return len(old)

    def num_bytes(self) -> int:
        """Size of all payloads [bytes]."""
        with self._store.changed:
            self._store.check()
            return sum(
                len(payload)
                for stream in self._store.streams.values()
                for payload in stream.entries.values()
            )

    def close(self) -> None:
        """Nothing to release."""

    def _after(self, cursors: dict[int, EntryId], limit: int) -> list[Entry]:
        found = []
        for slot in cursors:
            stream = self._store.streams.get(slot)
            entries = {} if stream is None else stream.entries
            newer = [name for name in entries if name > cursors[slot]][:limit]
            found += [Entry(slot=slot, entry_id=name, payload=entries[name]) for name in newer]
        return found
