"""A log that fails on demand, and a learner small enough to be obviously right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from system.clock import Clock
from system.codec import decode_chunk
from system.errors import Unavailable
from system.log.messages import decode_claim
from system.log.protocol import (
    AppendReply,
    Claim,
    LogReader,
    Notice,
    SlotLog,
    SlotNotice,
)
from system.log.spool import MemoryShelf, Shelf, SpoolSetup
from system.log.writer import SlotWriter
from system.types import ZERO_ID, Chunk, EntryId


def small_chunk(entry_id: EntryId, *, slot: int = 0, who: str = "me", num_steps: int = 1) -> Chunk:
    """A Chunk of a few bytes, marked with who sealed it."""
    return Chunk(
        spec_digest="digest",
        env=who,
        slot=slot,
        incarnation=entry_id.incarnation,
        sequence=entry_id.sequence,
        copy=0,
        first_step=0,
        policy_version_min=0,
        policy_version_max=0,
        fields={"is_first": np.zeros(num_steps, bool)},
    )


def make_writer(
    log: SlotLog, clock: Clock, *, slot: int = 0, who: str = "me",
    shelf: Shelf | None = None, **limits: int,
) -> SlotWriter:  # fmt: skip
    """A writer with small limits."""
    sizes = {"spool_chunks": 3, "retain_bytes": 1 << 20} | limits
    claim = Claim(who=who, spec_digest="digest", num_copies=1)
    return SlotWriter(
        log,
        slot=slot,
        claim=claim,
        clock=clock,
        spool=SpoolSetup(**sizes, shelf=shelf or MemoryShelf()),
    )


class FaultyLog:
    """Passes everything on, except what it was told to spoil.

    `fault`: `request` or `reply` of the next command is lost. `broken`: the connection was lost, as
    when the server dies; the next command, whatever it is, finds that out.
    """

    def __init__(self, inner: SlotLog) -> None:
        self.inner = inner
        self.fault: str | None = None
        self.broken = False
        self.sent: list[EntryId] = []

    def last_id(self) -> EntryId | None:
        self._lose("request", "reply")
        return self.inner.last_id()

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        self._lose("request")
        self.sent.append(entry_id)
        reply = self.inner.append(entry_id, payload, create=create)
        self._lose("reply")
        return reply

    def notice(self) -> Notice | None:
        self._lose("request")
        return self.inner.notice()

    def close(self) -> None:
        self.inner.close()

    def _lose(self, *faults: str) -> None:
        if self.broken:
            self.broken = False
            raise Unavailable("connection lost")
        if self.fault in faults:
            self.fault = None
            raise Unavailable(f"{faults[0]} lost")


@dataclass
class Books:
    """What survives a restart of the learner."""

    cursors: dict[int, EntryId] = field(default_factory=dict)
    holders: dict[int, tuple[int, str]] = field(default_factory=dict)
    ledger: dict[int, list[tuple[EntryId, bytes]]] = field(default_factory=dict)

    def copy(self) -> Books:
        ledger = {slot: list(rows) for slot, rows in self.ledger.items()}
        return Books(dict(self.cursors), dict(self.holders), ledger)


class ModelLearner:
    """Reads, commits, speaks; keeps a public ledger of the ids it made durable."""

    def __init__(self, reader: LogReader, *, credit: int = 4) -> None:
        self.reader = reader
        self.credit = credit
        self.tick = 0
        self.books = Books()
        self.durable = Books()
        self.epoch = reader.claim_epoch()

    def read(self) -> int:
        """Takes what is new into memory; returns how many entries."""
        for slot in self.reader.slots():
            self.books.cursors.setdefault(slot, ZERO_ID)
        entries = self.reader.read(self.books.cursors, limit=100)
        for entry in entries:
            self.books.cursors[entry.slot] = entry.entry_id
            if entry.entry_id.sequence == 0:
                who = decode_claim(entry.payload).who
                self.books.holders[entry.slot] = (entry.entry_id.incarnation, who)
            else:
                rows = self.books.ledger.setdefault(entry.slot, [])
                rows.append((entry.entry_id, entry.payload))
        return len(entries)

    def commit(self) -> None:
        """Makes all that was read durable."""
        self.durable = self.books.copy()

    def publish(self) -> None:
        """Speaks: durable cursors and grants."""
        self.tick += 1
        slots = {slot: self._said(slot) for slot in self.books.cursors}
        self.reader.publish(Notice(epoch=self.epoch, tick=self.tick, slots=slots))

    def turn(self) -> None:
        """One whole turn."""
        self.read()
        self.commit()
        self.publish()

    def trim(self) -> None:
        """Drops what is durable."""
        for slot, cursor in self.durable.cursors.items():
            self.reader.trim(slot, cursor)

    def restart(self) -> None:
        """Dies and comes back from its books, in a new epoch."""
        self.books = self.durable.copy()
        self.tick = 0
        self.epoch = self.reader.claim_epoch(after=self.epoch)

    def _said(self, slot: int) -> SlotNotice:
        cursor = self.books.cursors[slot]
        incarnation, who = self.books.holders.get(slot, (0, ""))
        return SlotNotice(
            durable=self.durable.cursors.get(slot, ZERO_ID),
            granted=EntryId(cursor.incarnation, cursor.sequence + self.credit),
            holder=who if incarnation == cursor.incarnation else "",
        )


def check_ledger(
    rows: list[tuple[EntryId, bytes]],
    sealed: dict[tuple[str, EntryId], bytes],
    *,
    holes: frozenset[EntryId] = frozenset(),
) -> None:
    """Strictly growing, no gap within an incarnation, one author each, bytes as sealed."""
    before = ZERO_ID
    authors: dict[int, str] = {}
    for entry_id, payload in rows:
        assert entry_id > before, f"{entry_id} after {before}"
        expected = before.sequence + 1 if entry_id.incarnation == before.incarnation else 1
        while entry_id.sequence > expected and EntryId(entry_id.incarnation, expected) in holes:
            expected += 1
        assert entry_id.sequence == expected, f"gap: {entry_id} after {before}"
        who = decode_chunk(payload).env
        assert authors.setdefault(entry_id.incarnation, who) == who, f"two authors at {entry_id}"
        assert sealed[who, entry_id] == payload
        before = entry_id
