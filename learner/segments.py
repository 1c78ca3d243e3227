"""Segment files: every Chunk that was read, on the learner's disk, in the order of insertion.

::

    replay/00001-00000.segment      <epoch>-<index>, sealed when it reaches its size

The files are the cursor: what they hold is *durable*, and a restarted learner goes on after it.
A torn last record (a crash while writing) was never reported durable, and is left out.
`segment_format.py` has the bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from learner.disk import full_disk_is_named, write_all
from learner.epochs import Epochs, Takeover, epoch_of
from learner.segment_format import Damage, Record, SegmentHeader, SlotCursor, scan
from system.files import sync_folder
from system.types import EntryId


class _OpenFile:
    """One file that grows; what was added and is not synced yet is kept here."""

    def __init__(self, path: Path, header: SegmentHeader) -> None:
        self.path = path
        self.sealed = False
        self.num_bytes = 0
        """Synced and not [bytes]."""
        self._synced = 0
        self._fresh = bytearray()
        self._descriptor: int | None = None
        self.add(header.to_bytes())

    def add(self, data: bytes) -> None:
        self._fresh += data
        self.num_bytes += len(data)

    def sync(self) -> None:
        """Raises DiskFull; then the file is as it was, and the next call tries all of it again."""
        with full_disk_is_named(self.path):
            try:
                if self._descriptor is None:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    self._descriptor = os.open(self.path, flags, 0o644)
                    sync_folder(self.path.parent)  # the new name must survive a crash too
                write_all(self._descriptor, self._fresh)
                os.fsync(self._descriptor)
            except OSError:
                self._take_back()
                raise
        self._synced += len(self._fresh)
        self._fresh.clear()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take_back(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self._synced)
            os.lseek(self._descriptor, self._synced, os.SEEK_SET)


class SegmentStore:
    """Reads what earlier epochs stored, then appends for this one.

    The loop that uses it::

        for item in segments.restore(before): ...     # once, in insertion order
        segments.append(record)                       # before the Chunk is inserted
        segments.commit()                             # now it is durable
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int, check: Callable[[], None] = lambda: None
    ) -> None:
        """`check` raises Fenced if somebody else writes this folder now."""
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cursors: dict[int, SlotCursor] = {}
        self.first_ordinal = 0
        """Ordinal of the first Step that the files still hold."""
        self.next_ordinal = 0
        """A Step inserted after `restore` has this ordinal or a greater one."""
        self.epoch = 0
        """Ours; the learner sets it before appending."""
        self.read_bytes: dict[str, int] = {}
        """How far `restore` found whole records in each file [bytes]."""
        self._segment_bytes = segment_bytes
        self.check = check
        self._open: deque[_OpenFile] = deque()
        """Oldest first; all but the last are sealed and wait to be synced."""
        self._index = 0
        self._starts: dict[Path, int] = {}
        """First ordinal of each file, in insertion order."""

    def restore(self, before: Takeover) -> Iterator[Record | Damage]:
        """Every stored record once, in insertion order; `cursors` follow. Writes nothing.

        Raises:
          CheckpointError: a file has another format.
        """
        for path in sorted(self.folder.glob("*.segment")):
            if before.length(path.name) == 0:
                continue  # a fenced learner's last words
            # The learner before us may be dropping its oldest files at this moment.
            with contextlib.suppress(FileNotFoundError):
                yield from self._restore_file(path, before.length(path.name))

    def found_bytes(self) -> int:
        """Size of all files there are, about what `restore` reads [bytes]."""
        size = 0
        for path in self.folder.glob("*.segment"):
            with contextlib.suppress(FileNotFoundError):  # just dropped
                size += path.stat().st_size
        return size

    def append(self, record: Record) -> None:
        """Takes one record; it is durable after the next `commit`."""
        if not self._open or self._open[-1].sealed:
            self._open_file(record.ordinal)
        file = self._open[-1]
        file.add(record.to_bytes())
        file.sealed = file.num_bytes >= self._segment_bytes
        self.cursors[record.slot] = self._cursor(record.slot).after(record)

    def commit(self) -> None:
        """Returns when everything appended is on the disk.

        Raises:
          DiskFull: it is not; nothing is lost, the next call tries again.
          Fenced: a newer learner writes this folder.
        """
        self.check()
        while self._open:
            file = self._open[0]
            file.sync()
            if not file.sealed:
                break
            file.close()
            self._open.popleft()

    def seal(self) -> None:
        """Commits and closes the open file; the next append opens a new one."""
        if self._open:
            self._open[-1].sealed = True
        self.commit()

    def drop_below(self, ordinal: int) -> None:
        """Deletes the oldest files whose every Step has an ordinal below this one. May be Fenced.

        Call after a `commit` that succeeded.
        """
        doomed = [
            path
            for (path, _), (_, next_start) in pairwise(self._starts.items())
            if next_start <= ordinal
        ]
        if not doomed:
            return
        self.check()
        for path in doomed:
            path.unlink(missing_ok=True)
            del self._starts[path]
        self.first_ordinal = next(iter(self._starts.values()))

    def drop_foreign(self) -> None:
        """Deletes files of earlier epochs in which `restore` found nothing. May be Fenced."""
        self.check()
        for path in self.folder.glob("*.segment"):
            if epoch_of(path.name) < self.epoch and path not in self._starts:
                path.unlink(missing_ok=True)

    def num_bytes(self) -> int:
        """Size of all segment files [bytes]."""
        return sum(path.stat().st_size for path in self._starts if path.exists())

    def _restore_file(self, path: Path, limit: int | None) -> Iterator[Record | Damage]:
        position = 0
        for item in scan(path, limit):
            position += item.num_bytes
            if isinstance(item, Damage):
                yield item
                continue
            start = item.ordinal if isinstance(item, Record) else item.first_ordinal
            if not self._starts:
                self.first_ordinal = start
            self._starts.setdefault(path, start)
            self.read_bytes[path.name] = position
            if isinstance(item, SegmentHeader):
                self._believe(item)
            elif self._is_next(item):
                self.cursors[item.slot] = self._cursor(item.slot).after(item)
                yield item

    def _believe(self, header: SegmentHeader) -> None:
        """What a header knows was stored, although we may not have been able to read it."""
        self.next_ordinal = max(self.next_ordinal, header.first_ordinal)
        for slot, cursor in header.slots.items():
            if cursor.stored > self._cursor(slot).stored:
                self.cursors[slot] = cursor

    def _is_next(self, record: Record) -> bool:
        """Whether nobody has stored it, or its ordinal, before."""
        if record.entry_id <= self._cursor(record.slot).stored:
            return False
        if record.ordinal < self.next_ordinal:
            return False
        self.next_ordinal = record.ordinal
        return True

    def _cursor(self, slot: int) -> SlotCursor:
        return self.cursors.get(slot, SlotCursor())

    def _open_file(self, ordinal: int) -> None:
        path = self.folder / f"{self.epoch:05d}-{self._index:05d}.segment"
        self._index += 1
        header = SegmentHeader(epoch=self.epoch, first_ordinal=ordinal, slots=self.cursors)
        self._open.append(_OpenFile(path, header))
        self._starts[path] = ordinal


def read_ledger(folder: Path) -> list[tuple[int, EntryId]]:
    """(slot, id) of every Chunk in a run's `replay` folder, in insertion order, each once."""
    before = Epochs(folder.parent).newest(lambda kind, text: None)
    found = SegmentStore(folder, segment_bytes=1).restore(before)
    return [(r.slot, r.entry_id) for r in found if isinstance(r, Record) and r.entry_id.sequence]
