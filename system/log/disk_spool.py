"""A shelf of files: what an actor accepted outlives its process, for robots.

::

    SPOOL/<run id>/1000/
      .lock                 held while an actor uses the folder
      2-0                   the claim of incarnation 2, with a checksum
      2-17  2-18  2-19      encoded Chunks that are not durable yet; immutable
      torn/2-16             damaged, set aside: never sent
      fenced/1/1-5 ...      somebody newer has the slot: kept for people

A file appears under its name only when it is whole and synced (temporary file, fsync, rename,
fsync of the folder). While the disk takes nothing, entries wait in memory, in order: the folder
never holds an entry whose predecessor it misses.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from system.clock import Every
from system.codec import decode_chunk
from system.errors import RejectedChunk, RunError
from system.files import sync_folder, write_whole
from system.log.spool import Held, Item
from system.types import ZERO_ID, EntryId

RETRY_S = 1.0
"""How often a disk that refused is tried again [s]."""
NAME = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")
CHECKSUM_BYTES = 4
OnEvent = Callable[[str, str], None]
"""Told (kind, text) of what happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What an earlier life left in the folder."""

    claim: Item
    chunks: list[Held] = field(default_factory=list)
    """In id order."""


class DiskShelf:
    """Implements `Shelf` in one folder of one slot.

    The calls that use it::

        shelf = DiskShelf(folder, slot=1000, max_bytes=1 << 30, memory_bytes=1 << 26)
        earlier = EarlierLife(log, shelf, ...)         # until its tick() is None
        writer = SlotWriter(log, spool=SpoolSetup(shelf=shelf, ...), ...)
        ...                                            # on Fenced: shelf.keep_fenced(why)
        shelf.close()
    """

    def __init__(
        self,
        folder: Path,
        *,
        slot: int,
        max_bytes: int,
        memory_bytes: int,
        on_event: OnEvent = lambda kind, text: None,
    ) -> None:
        """Takes the folder, which is made if it is not there.

        Args:
          folder: of this slot alone.
          slot: whose Chunks these are.
          max_bytes: budget of everything that is not durable [bytes].
          memory_bytes: what may wait in memory while the disk takes nothing [bytes].
          on_event: told `spool_damaged`, `_fenced`, `_disk_refuses`, `_disk_recovered`.

        Raises:
          RunError: another process uses the folder, or it cannot be written.
        """
        self.folder = folder
        self._slot, self._max_bytes, self._memory_bytes = slot, max_bytes, memory_bytes
        self._on_event = on_event
        self._lock = _lock(folder)
        for path in folder.glob(".*.tmp"):
            path.unlink()
        self._sizes = {
            EntryId.parse(path.name): path.stat().st_size
            for path in folder.iterdir()
            if NAME.fullmatch(path.name)
        }
        self._num_bytes = sum(self._sizes.values())
        self._unwritten: dict[EntryId, bytes] = {}
        self._unwritten_bytes = 0
        self._refused = ""
        self._retry = Every(RETRY_S)

    @property
    def fill(self) -> float:
        """Used share of the budget, or of the memory while the disk takes nothing [ratio]."""
        return max(self._num_bytes / self._max_bytes, self._unwritten_bytes / self._memory_bytes)

    @property
    def num_chunks(self) -> int:
        """Chunks that are not durable."""
        return sum(entry_id.sequence > 0 for entry_id in self._sizes)

    @property
    def num_bytes(self) -> int:
        """Everything that is not durable [bytes]."""
        return self._num_bytes

    def found(self) -> Found | None:
        """What an earlier life left; None if there is nothing to finish."""
        chunks = [held for held in self._held() if held.entry_id.sequence]
        name = EntryId(max(self._sizes, default=ZERO_ID).incarnation, 0)
        claim = self.get(name) if name in self._sizes else None
        if claim is None or any(held.entry_id < name for held in chunks):
            if chunks:
                self.keep_fenced("their claim is damaged: nobody can say whose they are")
            return None
        return Found(claim=Item(entry_id=name, payload=claim), chunks=chunks)

    def begin(self, claim: Item) -> None:
        """A new incarnation; what is left of others, all durable, goes."""
        # Others may have greater numbers: a wiped store counts anew.
        self.put(claim)
        for entry_id in [name for name in self._sizes if name != claim.entry_id]:
            self.drop(entry_id)

    def put(self, item: Item) -> None:
        """Writes an entry, or keeps it in memory while the disk takes nothing."""
        data = item.payload
        if item.entry_id.sequence == 0:
            data += zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")
        self._sizes[item.entry_id] = len(data)
        self._num_bytes += len(data)
        self._unwritten[item.entry_id] = data
        self._unwritten_bytes += len(data)
        if not self._refused:
            self._write_out()

    def get(self, entry_id: EntryId) -> bytes | None:
        """Its payload, whole; None if it is damaged: then it is set aside."""
        data = self._unwritten.get(entry_id)
        try:
            data = self._path(entry_id).read_bytes() if data is None else data
            return self._check(entry_id, data)
        except (OSError, RejectedChunk) as error:
            self._set_aside(entry_id, str(error))
            return None

    def drop(self, entry_id: EntryId) -> None:
        """Removes an entry."""
        self._forget(entry_id)
        with contextlib.suppress(OSError):  # left behind, it is found durable by the next life
            self._path(entry_id).unlink(missing_ok=True)

    def tend(self, now_s: float) -> None:
        """Tries again to write what waits in memory, now and then."""
        if self._refused and self._retry(now_s):
            self._write_out()

    def keep_fenced(self, why: str) -> None:
        """Moves everything into a folder of its own, for people, and tells them."""
        self._write_out()
        newest = max(self._sizes, default=ZERO_ID).incarnation
        count = self.num_chunks
        into, number = self.folder / "fenced" / str(newest), 1
        while into.exists():
            number += 1
            into = self.folder / "fenced" / f"{newest}.{number}"
        into.mkdir(parents=True)
        for entry_id in list(self._sizes):
            with contextlib.suppress(FileNotFoundError):
                self._path(entry_id).rename(into / str(entry_id))
            self._forget(entry_id)
        sync_folder(into)
        sync_folder(self.folder)
        self._on_event("spool_fenced", f"{count} chunks that are not durable are in {into}: {why}")

    def close(self) -> None:
        """Releases the folder; what lies in it stays. Last try for what waits in memory."""
        self._write_out()
        self._lock.close()

    def _held(self) -> list[Held]:
        return [
            Held(entry_id=entry_id, num_bytes=size)
            for entry_id, size in sorted(self._sizes.items())
        ]

    def _write_out(self) -> None:
        for entry_id, data in list(self._unwritten.items()):
            try:
                write_whole(self._path(entry_id), data)
            except OSError as error:
                if not self._refused:
                    text = f"{self.folder}: {error.strerror}; chunks wait in memory"
                    self._on_event("spool_disk_refuses", text)
                self._refused = str(error)
                return
            self._unwritten_bytes -= len(self._unwritten.pop(entry_id))
        if self._refused:
            self._refused = ""
            self._on_event("spool_disk_recovered", f"{self.folder} takes chunks again")

    def _check(self, entry_id: EntryId, data: bytes) -> bytes:
        """Raises RejectedChunk unless these are the bytes that were put."""
        if entry_id.sequence == 0:
            payload, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
            if zlib.crc32(payload).to_bytes(CHECKSUM_BYTES, "little") != checksum:
                raise RejectedChunk("checksum", "the bytes are not those that were claimed with")
            return payload
        chunk = decode_chunk(data)
        if (chunk.slot, chunk.entry_id) != (self._slot, entry_id):
            raise RejectedChunk("header", f"says slot {chunk.slot} {chunk.entry_id}")
        return data

    def _set_aside(self, entry_id: EntryId, why: str) -> None:
        self._forget(entry_id)
        into = self.folder / "torn"
        with contextlib.suppress(OSError):
            into.mkdir(exist_ok=True)
            self._path(entry_id).rename(into / str(entry_id))
        self._on_event("spool_damaged", f"{entry_id} is never sent, set aside in {into}: {why}")

    def _forget(self, entry_id: EntryId) -> None:
        self._num_bytes -= self._sizes.pop(entry_id, 0)
        self._unwritten_bytes -= len(self._unwritten.pop(entry_id, b""))

    def _path(self, entry_id: EntryId) -> Path:
        return self.folder / str(entry_id)


def _lock(folder: Path) -> IO[bytes]:
    """Takes the folder for one process; the lock goes with it, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise RunError(f"spool folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            f"spool folder {folder} is in use by another process; choose another --slot or --spool"
        ) from None
    return file
