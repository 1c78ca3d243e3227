"""Segment files: every Chunk that was read, on the learner's disk, in the order of insertion.

::

    replay/00001-00000.segment      <epoch>-<index>, sealed when it reaches its size
      header   format, epoch, first ordinal, and what was known of every slot when it was opened
      record   length, checksum, slot, incarnation, sequence | payload as it came from the log
      record   ...

The files are the cursor: what they hold is *durable*, and a restarted learner goes on after it.
A torn last record (a crash while writing) was never reported durable, and is dropped.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from system.errors import CheckpointError
from system.log.messages import decode_claim
from system.types import ZERO_ID, EntryId

FORMAT = 1
_RECORD = struct.Struct("<IIIQQ")
"""Payload length, CRC-32 of the payload, slot, incarnation, sequence."""
_HEADER_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of a slot's stream, as stored."""

    slot: int
    entry_id: EntryId
    payload: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotCursor:
    """What the learner knows of one slot."""

    stored: EntryId = ZERO_ID
    """The last entry written to a segment."""
    holder: str = ""
    """`Claim.who` of the incarnation in `stored`."""
    num_copies: int = 1

    def after(self, record: Record) -> SlotCursor:
        """The cursor once this record is stored."""
        if record.entry_id.sequence:
            return replace(self, stored=record.entry_id)
        claim = decode_claim(record.payload)
        return SlotCursor(stored=record.entry_id, holder=claim.who, num_copies=claim.num_copies)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment file."""

    epoch: int
    first_ordinal: int
    """Ordinal of the first Step inserted after this file was opened."""
    slots: dict[int, SlotCursor]

    def to_bytes(self) -> bytes:
        """JSON with its length in front."""
        slots = {
            slot: [str(cursor.stored), cursor.holder, cursor.num_copies]
            for slot, cursor in self.slots.items()
        }
        body = json.dumps(
            {"format": FORMAT, "epoch": self.epoch, "first": self.first_ordinal, "slots": slots}
        ).encode()
        return _HEADER_LENGTH.pack(len(body)) + body

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> SegmentHeader | None:
        """None if the file was cut off inside its header. Raises CheckpointError."""
        raw = file.read(_HEADER_LENGTH.size)
        if len(raw) < _HEADER_LENGTH.size:
            return None
        (length,) = _HEADER_LENGTH.unpack(raw)
        body = file.read(length)
        if len(body) < length:
            return None
        try:
            data = json.loads(body)
            slots = {
                int(slot): SlotCursor(stored=EntryId.parse(stored), holder=who, num_copies=copies)
                for slot, (stored, who, copies) in data["slots"].items()
            }
            header = cls(epoch=data["epoch"], first_ordinal=data["first"], slots=slots)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"segment {path} has no readable header: {error}") from None
        if data["format"] != FORMAT:
            raise CheckpointError(f"segment {path} has format {data['format']}, not {FORMAT}")
        return header


class SegmentStore:
    """Reads what earlier epochs stored, then appends for this one.

    The loop that uses it::

        for record in segments.restore(): ...         # once, in insertion order
        segments.append(record, ordinal=arena.end)    # before the Chunk is inserted
        segments.commit()                             # now it is durable
    """

    def __init__(self, folder: Path, *, segment_bytes: int) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cursors: dict[int, SlotCursor] = {}
        self.first_ordinal = 0
        """Ordinal of the first Step that the files still hold."""
        self.epoch = 0
        """Of the newest file; the learner sets its own before appending."""
        self._segment_bytes = segment_bytes
        self._file: BinaryIO | None = None
        self._index = 0
        self._starts: dict[Path, int] = {}

    def restore(self) -> Iterator[Record]:
        """Every stored record once, in insertion order; `cursors` follow. Raises CheckpointError.

        A fenced learner may have written after its successor had started: ids must grow.
        """
        for number, path in enumerate(sorted(self.folder.glob("*.segment"))):
            with path.open("rb") as file:
                header = SegmentHeader.read(file, path)
                if header is None:  # cut off before anything in it was durable
                    path.unlink()
                    continue
                if number == 0:
                    self.cursors, self.first_ordinal = dict(header.slots), header.first_ordinal
                self.epoch = max(self.epoch, header.epoch)
                self._starts[path] = header.first_ordinal
                for record in read_records(file):
                    cursor = self.cursors.get(record.slot, SlotCursor())
                    if record.entry_id > cursor.stored:
                        self.cursors[record.slot] = cursor.after(record)
                        yield record

    def append(self, record: Record, *, ordinal: int) -> None:
        """Writes one record; it is durable after the next `commit`."""
        if self._file is None:
            self._open(ordinal)
        assert self._file is not None
        self._file.write(
            _RECORD.pack(
                len(record.payload), zlib.crc32(record.payload), record.slot, *record.entry_id
            )
        )
        self._file.write(record.payload)
        cursor = self.cursors.get(record.slot, SlotCursor())
        self.cursors[record.slot] = cursor.after(record)
        if self._file.tell() >= self._segment_bytes:
            self.seal()

    def commit(self) -> None:
        """Returns when everything appended is on the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def seal(self) -> None:
        """Commits and closes the open file; the next append opens a new one."""
        if self._file is not None:
            self.commit()
            self._file.close()
            self._file = None

    def drop_below(self, ordinal: int) -> None:
        """Deletes the oldest files whose every Step has an ordinal below this one."""
        starts = sorted(self._starts.items())
        for (path, _), (_, next_start) in pairwise(starts):
            if next_start > ordinal:
                break
            path.unlink()
            del self._starts[path]
            self.first_ordinal = next_start

    def num_bytes(self) -> int:
        """Size of all segment files [bytes]."""
        return sum(path.stat().st_size for path in self._starts)

    def _open(self, ordinal: int) -> None:
        path = self.folder / f"{self.epoch:05d}-{self._index:05d}.segment"
        self._index += 1
        self._file = path.open("xb")
        header = SegmentHeader(epoch=self.epoch, first_ordinal=ordinal, slots=self.cursors)
        self._file.write(header.to_bytes())
        self._starts[path] = ordinal
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)  # the new name must survive a crash too
        os.close(folder)


def read_records(file: BinaryIO) -> Iterator[Record]:
    """Records from here to the end of a file; stops at a torn or damaged one."""
    while True:
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return
        length, checksum, slot, incarnation, sequence = _RECORD.unpack(head)
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield Record(slot=slot, entry_id=EntryId(incarnation, sequence), payload=payload)


def read_ledger(folder: Path) -> list[tuple[int, EntryId]]:
    """(slot, id) of every Chunk that is in the segments, in insertion order, each once."""
    store = SegmentStore(folder, segment_bytes=1)
    return [(r.slot, r.entry_id) for r in store.restore() if r.entry_id.sequence]
