"""The bytes of a segment file, and how they are read when some of them are damaged.

::

    header   magic, length, CRC-32 | epoch, first ordinal, what was known of every slot
    record   magic, CRC-32, length, slot, incarnation, sequence, ordinal | payload as it came
    record   ...

Each record stands alone, with the ordinal of its first Step: after damage reading goes on at the
next record whose checksum is right, and everything behind it keeps its ordinal.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from system.errors import CheckpointError
from system.log.messages import decode_claim
from system.types import ZERO_ID, EntryId

FORMAT = 2
_HEADER_MAGIC = b"\x89DFS"
_HEADER = struct.Struct("<4sII")
"""Magic, length, CRC-32 of the JSON that follows."""
_MAGIC = b"\x89DFR"
_RECORD = struct.Struct("<4sIIIQQQ")
"""Magic, CRC-32 of all that follows it, payload length, slot, incarnation, sequence, ordinal."""
_CHECKED = 8
"""Where the checked bytes of a record begin [bytes]."""
_FORMAT_1 = b'{"format": 1'


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of a slot's stream, as stored."""

    slot: int
    entry_id: EntryId
    ordinal: int
    """Of its first Step; of a claim, of the Step that is inserted next."""
    payload: bytes

    def to_bytes(self) -> bytes:
        """Head and payload."""
        fields = len(self.payload), self.slot, *self.entry_id, self.ordinal
        unchecked = _RECORD.pack(_MAGIC, 0, *fields)
        checksum = zlib.crc32(self.payload, zlib.crc32(unchecked[_CHECKED:]))
        return _RECORD.pack(_MAGIC, checksum, *fields) + self.payload

    @property
    def num_bytes(self) -> int:
        """Size in a file [bytes]."""
        return _RECORD.size + len(self.payload)


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes of a segment file that are no record."""

    path: Path
    offset: int
    """Where they begin [bytes]."""
    num_bytes: int
    torn: bool
    """The beginning of a record at the end of a file: its writer was stopped there."""

    def __str__(self) -> str:
        what = "the beginning of a record, cut off by a crash" if self.torn else "damaged"
        return f"{self.path}: {self.num_bytes} bytes from {self.offset} on are {what}; left out"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotCursor:
    """What the learner knows of one slot."""

    stored: EntryId = ZERO_ID
    """The last entry written to a segment."""
    holder: str = ""
    """`Claim.who` of the incarnation in `stored`; "" if its claim is not known."""
    num_copies: int = 1

    def after(self, record: Record) -> SlotCursor:
        """The cursor once this record is stored."""
        entry_id = record.entry_id
        if entry_id.sequence:
            same = entry_id.incarnation == self.stored.incarnation
            return replace(self, stored=entry_id, holder=self.holder if same else "")
        claim = decode_claim(record.payload)
        return SlotCursor(stored=entry_id, holder=claim.who, num_copies=claim.num_copies)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment file."""

    epoch: int
    first_ordinal: int
    """Ordinal of the first Step inserted after this file was opened."""
    slots: dict[int, SlotCursor]

    def to_bytes(self) -> bytes:
        """JSON with magic, length and checksum in front."""
        slots = {
            slot: [str(cursor.stored), cursor.holder, cursor.num_copies]
            for slot, cursor in self.slots.items()
        }
        body = json.dumps(
            {"format": FORMAT, "epoch": self.epoch, "first": self.first_ordinal, "slots": slots}
        ).encode()
        return _HEADER.pack(_HEADER_MAGIC, len(body), zlib.crc32(body)) + body

    @property
    def num_bytes(self) -> int:
        """Size in a file [bytes]."""
        return len(self.to_bytes())


def scan(path: Path, limit: int | None) -> Iterator[SegmentHeader | Record | Damage]:
    """Everything in the first `limit` bytes of a file, in order; a damaged header is Damage.

    Raises:
      CheckpointError: the file has another format.
      FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file:
        data = file.read() if limit is None else file.read(limit)
    at = _header_end(data)
    if at:
        yield _read_header(data, at, path)
    elif data[4 : 4 + len(_FORMAT_1)] == _FORMAT_1:
        raise CheckpointError(f"segment {path} has format 1, not {FORMAT}")
    while at < len(data):
        record = _record_at(data, at)
        if record is not None:
            yield record
            at += record.num_bytes
            continue
        start, at = at, _next_record(data, at + 1)
        torn = at == len(data) and _is_beginning(data, start)
        yield Damage(path=path, offset=start, num_bytes=at - start, torn=torn)


def _header_end(data: bytes) -> int:
    """Where the records begin; 0 if the header is not whole [bytes]."""
    if len(data) < _HEADER.size:
        return 0
    magic, length, checksum = _HEADER.unpack_from(data)
    body = data[_HEADER.size : _HEADER.size + length]
    whole = magic == _HEADER_MAGIC and len(body) == length and zlib.crc32(body) == checksum
    return _HEADER.size + length if whole else 0


def _read_header(data: bytes, end: int, path: Path) -> SegmentHeader:
    try:
        found = json.loads(data[_HEADER.size : end])
        if found["format"] != FORMAT:
            raise CheckpointError(f"segment {path} has format {found['format']}, not {FORMAT}")
        slots = {
            int(slot): SlotCursor(stored=EntryId.parse(stored), holder=who, num_copies=copies)
            for slot, (stored, who, copies) in found["slots"].items()
        }
        header = SegmentHeader(epoch=found["epoch"], first_ordinal=found["first"], slots=slots)
        _check_header(header)
        return header
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"segment {path} has no readable header: {error}") from None


def _check_header(header: SegmentHeader) -> None:
    """Raises ValueError: its checksum is right, but no store wrote it."""
    numbers, ids = [header.epoch, header.first_ordinal, *header.slots], list[int]()
    for cursor in header.slots.values():
        numbers.append(cursor.num_copies)
        ids += cursor.stored  # as large as Redis allows
        if not isinstance(cursor.holder, str):
            raise ValueError("a holder is not text")  # noqa: TRY004
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers) or not all(
        0 <= number < 1 << 64 for number in ids
    ):
        raise ValueError("a number in it is not a count")
    if any(slot >= 1 << 32 for slot in header.slots):
        raise ValueError("a slot in it is too large")


def _record_at(data: bytes, at: int) -> Record | None:
    """The record that begins here; None if none does."""
    if len(data) - at < _RECORD.size or data[at : at + len(_MAGIC)] != _MAGIC:
        return None
    _, checksum, length, slot, incarnation, sequence, ordinal = _RECORD.unpack_from(data, at)
    start = at + _RECORD.size
    payload = data[start : start + length]
    if len(payload) < length:
        return None
    if zlib.crc32(payload, zlib.crc32(data[at + _CHECKED : start])) != checksum:
        return None
    entry_id = EntryId(incarnation, sequence)
    return Record(slot=slot, entry_id=entry_id, ordinal=ordinal, payload=payload)


def _next_record(data: bytes, at: int) -> int:
    """Where the next whole record begins; the end if there is none."""
    while (at := data.find(_MAGIC, at)) >= 0:
        if _record_at(data, at) is not None:
            return at
        at += 1
    return len(data)


def _is_beginning(data: bytes, at: int) -> bool:
    """Whether what is left could be the beginning of a record, or of the header."""
    rest = data[at:]
    if at == 0 and _HEADER_MAGIC.startswith(rest[: len(_MAGIC)]):
        return len(rest) < _HEADER.size or len(rest) < _HEADER.size + _HEADER.unpack_from(rest)[1]
    if not _MAGIC.startswith(rest[: len(_MAGIC)]):
        return False
    return len(rest) < _RECORD.size or len(rest) < _RECORD.size + _RECORD.unpack_from(rest)[2]
