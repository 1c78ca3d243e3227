"""From the log into segments and arena: read, check, store, insert; then say so.

::

    reader.read -> check -> segments.append -> arena.insert        one Chunk at a time
    segments.commit -> reader.publish(durable, granted)            a few times a second

Grants are what was stored plus a fixed lead, so actors can be ahead of the learner by no more than
that, and stop when it stops reading.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import chain, zip_longest

from learner.arena import Arena
from learner.segments import Record, SegmentStore, SlotCursor
from system.chunk_check import check_chunk
from system.clock import Clock, Every
from system.codec import decode_chunk
from system.config import ReplayConfig
from system.errors import CheckpointError, RejectedChunk, Unavailable
from system.log.messages import decode_claim
from system.log.protocol import Entry, LogReader, Notice, SlotNotice
from system.types import ZERO_ID, Chunk, EntryId

READ_LIMIT = 16
"""Entries of each slot taken by one read."""
LOOK_FOR_SLOTS_S = 0.2
TRIM_S = 5.0
OnEvent = Callable[[str, str], None]
"""(kind, text)."""


class Ingest:
    """Feeds one arena from one log.

    The loop that uses it::

        if limiter.may_insert() and ingest.insert_next(): ...
        ingest.commit()
    """

    def __init__(
        self,
        reader: LogReader,
        segments: SegmentStore,
        arena: Arena,
        replay: ReplayConfig,
        clock: Clock,
        on_event: OnEvent,
    ) -> None:
        self._reader, self._segments, self._arena = reader, segments, arena
        self._replay, self._clock, self._on_event = replay, clock, on_event
        self._read: dict[int, EntryId] = {}
        """Last entry of each slot that was read."""
        self._taken: dict[int, EntryId] = {}
        """Last entry of each slot that was stored or rejected."""
        self._pending: deque[Entry] = deque()
        self._look, self._trim = Every(LOOK_FOR_SLOTS_S), Every(TRIM_S)
        self._tick = 0
        self._unsaid = True
        self.counts: Counter[str] = Counter()
        """Chunks inserted, rejected (by reason), and gaps seen."""

    def restore(self) -> None:
        """Fills the arena with everything that earlier epochs stored.

        Raises:
          CheckpointError: the segments are damaged or belong to another environment or model.
        """
        records = self._segments.restore()
        first = next(records, None)
        self._arena.oldest = self._arena.end = self._segments.first_ordinal
        for record in chain([first] if first else [], records):
            if record.entry_id.sequence:
                self._arena.insert(self._stored(record))
        self._read = {slot: cursor.stored for slot, cursor in self._segments.cursors.items()}
        self._taken = dict(self._read)

    def insert_next(self) -> bool:
        """Inserts one Chunk if the log has one; False if it has none or cannot be reached."""
        while True:
            if not self._pending and not self._fetch():
                return False
            if self._take(self._pending.popleft()):
                return True

    def commit(self) -> bool:
        """Syncs the segments and tells the actors; False if there was nothing new to say."""
        if not self._unsaid:
            return False
        self._segments.commit()
        self._tick += 1
        notice = Notice(
            epoch=self._segments.epoch,
            tick=self._tick,
            slots={slot: self._say(slot, taken) for slot, taken in self._taken.items()},
        )
        try:
            self._reader.publish(notice)
            self._unsaid = False
            if self._trim(self._clock.now()):
                self._keep_log_small()
        except Unavailable:
            return False
        self._segments.drop_below(self._arena.oldest)
        return True

    def repeat_notice(self) -> None:
        """Makes the next `commit` speak even if nothing is new: the store may have been wiped."""
        self._unsaid = True

    def _say(self, slot: int, taken: EntryId) -> SlotNotice:
        cursor = self._segments.cursors.get(slot, SlotCursor())
        lead = self._replay.lead_chunks * cursor.num_copies
        return SlotNotice(
            durable=taken,
            granted=EntryId(taken.incarnation, taken.sequence + lead),
            holder=cursor.holder,
        )

    def _fetch(self) -> bool:
        try:
            if self._look(self._clock.now()):
                for slot in self._reader.slots():
                    self._read.setdefault(slot, ZERO_ID)
            entries = self._reader.read(self._read, limit=READ_LIMIT)
        except Unavailable:
            return False
        for entry in entries:
            self._read[entry.slot] = max(self._read[entry.slot], entry.entry_id)
        # By turns: every slot's first entry, then every slot's second one, ...
        slots = sorted({entry.slot for entry in entries})
        turns = zip_longest(*([e for e in entries if e.slot == slot] for slot in slots))
        self._pending.extend(entry for entry in chain.from_iterable(turns) if entry is not None)
        return bool(self._pending)

    def _take(self, entry: Entry) -> bool:
        """Stores one entry; True if it was a Chunk and is now in the arena."""
        record = Record(slot=entry.slot, entry_id=entry.entry_id, payload=entry.payload)
        before = self._taken.get(entry.slot, ZERO_ID)
        self._taken[entry.slot] = entry.entry_id
        self._unsaid = True
        try:
            chunk = self._check(record)
        except RejectedChunk as error:
            # It counts as taken: its author may forget it and must not starve for credit.
            self.counts[f"rejected_{error.reason}"] += 1
            self._on_event("chunk_rejected", f"slot {entry.slot} {entry.entry_id}: {error}")
            return False
        self._segments.append(record, ordinal=self._arena.end)
        if chunk is None:
            return False
        if entry.entry_id != (before.incarnation, before.sequence + 1):
            self.counts["gaps"] += 1
            self._on_event("gap", f"slot {entry.slot}: {entry.entry_id} came after {before}")
        self._arena.insert(chunk)
        self.counts["inserted"] += 1
        return True

    def _check(self, record: Record) -> Chunk | None:
        """The Chunk of a record, None for a claim. Raises RejectedChunk."""
        if record.entry_id.sequence == 0:
            claim = decode_claim(record.payload)
            if claim.spec_digest != self._arena.spec.digest:
                expected = self._arena.spec.digest
                raise RejectedChunk(
                    "digest", f"{claim.who} has spec {claim.spec_digest}, expected {expected}"
                )
            return None
        chunk = decode_chunk(record.payload, spec=self._arena.spec)
        check_chunk(chunk, self._arena.spec)
        self._arena.check_latent(chunk)
        if (chunk.slot, chunk.entry_id) != (record.slot, record.entry_id):
            raise RejectedChunk("header", f"says slot {chunk.slot} {chunk.entry_id}")
        return chunk

    def _stored(self, record: Record) -> Chunk:
        """A Chunk that was checked when it was stored."""
        try:
            chunk = decode_chunk(record.payload, spec=self._arena.spec)
            self._arena.check_latent(chunk)
        except RejectedChunk as error:
            raise CheckpointError(
                f"segments in {self._segments.folder}: slot {record.slot} {record.entry_id} does "
                f"not fit this run: {error}"
            ) from None
        return chunk

    def _keep_log_small(self) -> None:
        if self._reader.num_bytes() > self._replay.log_bytes // 2:
            for slot, taken in self._taken.items():
                self._reader.trim(slot, taken)
