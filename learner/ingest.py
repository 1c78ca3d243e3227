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

import numpy as np

from learner.acted import ActedEpisodes
from learner.arena import Arena
from learner.bookmark import Bookmark
from learner.epochs import Takeover
from learner.segment_format import Damage, Record, SlotCursor
from learner.segments import SegmentStore
from learner.throttle import ThrottledEvents
from system.chunk_check import check_chunk
from system.clock import Clock, Every
from system.codec import decode_chunk
from system.config import ReplayConfig
from system.errors import CheckpointError, DiskFull, RejectedChunk, Unavailable
from system.log.messages import decode_claim
from system.log.protocol import Entry, LogReader, Notice, SlotNotice
from system.types import IS_FIRST, ZERO_ID, Chunk, EntryId

READ_LIMIT = 16
"""Entries of each slot taken by one read."""
LOOK_FOR_SLOTS_S = 0.2
TRIM_S = 5.0
DISK_RETRY_S = 1.0
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
        self._throttled = ThrottledEvents(on_event)
        self._read: dict[int, EntryId] = {}
        """Last entry of each slot that was read."""
        self._taken: dict[int, EntryId] = {}
        """Last entry of each slot that was stored or rejected."""
        self._durable: dict[int, EntryId] = {}
        """What was taken when the segments were last synced: all that actors may forget."""
        self._last_slot = -1
        self._pending: deque[Entry] = deque()
        self._look, self._trim = Every(LOOK_FOR_SLOTS_S), Every(TRIM_S)
        self._retry_disk = Every(DISK_RETRY_S)
        self.disk_is_full = False
        """Nothing is inserted until what was taken can be made durable."""
        self._tick = 0
        self._unsaid = True
        self.counts: Counter[str] = Counter()
        """Chunks inserted, rejected (by reason), and gaps seen."""
        self.log_bytes = 0
        """What the log took when it was looked at last [bytes]."""
        self.resets = 0
        """Episodes that began among the Steps inserted, over all lives of the learner."""
        self.acted = ActedEpisodes()

    def restore(
        self, before: Takeover, mark: Bookmark | None = None,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> None:  # fmt: skip
        """Fills the arena with everything that earlier epochs stored, as far as it counts.

        Damage is an event: what could be read is used.

        Args:
          before: what the folder says of earlier epochs.
          mark: of the checkpoint that is restored; None if there is none.
          on_progress: told the share that is read, after every Chunk [0 to 1].

        Raises:
          CheckpointError: the segments belong to another environment, model or version.
        """
        self.resets, counted_steps = (mark.resets, mark.agent_steps) if mark else (0, 0)
        read_bytes, all_bytes = 0, max(self._segments.found_bytes(), 1)
        for item in self._segments.restore(before):
            if isinstance(item, Damage):
                self._on_event("segment_torn" if item.torn else "segment_damaged", str(item))
                continue
            self._last_slot = item.slot
            read_bytes += item.num_bytes
            on_progress(read_bytes / all_bytes)
            if item.entry_id.sequence:
                chunk = self._insert_stored(item)
                if item.ordinal >= counted_steps:
                    self.resets += _resets(chunk)
        self._arena.skip_to(max(self._arena.end, self._segments.next_ordinal))
        self._read = {slot: cursor.stored for slot, cursor in self._segments.cursors.items()}
        self._taken = dict(self._read)
        self._durable = dict(self._read)

    @property
    def segment_bytes(self) -> int:
        """Size of the segments on disk [bytes]."""
        return self._segments.num_bytes()

    def insert_next(self) -> bool:
        """Inserts one Chunk; False if the log has none, cannot be reached, or the disk is full."""
        while not self.disk_is_full:
            if not self._pending and not self._fetch():
                return False
            if self._take(self._pending.popleft()):
                return True
        return False

    def commit(self) -> bool:
        """Syncs the segments and tells the actors; False if there was nothing new to say."""
        self._throttled.flush(self._clock.now())
        if self._unsaid or self.disk_is_full:
            self._sync()
        if not self._unsaid:
            return False
        self._tick += 1
        notice = Notice(
            epoch=self._segments.epoch,
            tick=self._tick,
            slots={slot: self._say(slot, durable) for slot, durable in self._durable.items()},
        )
        self._segments.check()  # syncing took its time, and a wiped store refuses nobody
        try:
            self._reader.publish(notice)
            self._unsaid = False
            if self._trim(self._clock.now()):
                self._keep_log_small()
        except Unavailable:
            return False
        if not self.disk_is_full:
            self._segments.drop_below(self._arena.oldest)
        return True

    def repeat_notice(self) -> None:
        """Makes the next `commit` speak even if nothing is new: the store may have been wiped."""
        self._unsaid = True

    def _sync(self) -> None:
        """Makes what was taken durable; if there is no room, says so once and tries again later."""
        if self.disk_is_full and not self._retry_disk(self._clock.now()):
            return
        try:
            self._segments.commit()
        except DiskFull as error:
            if not self.disk_is_full:
                self._on_event("disk_full", str(error))
            self.disk_is_full = True
            return
        if self.disk_is_full:
            self._on_event("disk_has_room", f"{self._segments.folder}: writing again")
            self.disk_is_full, self._unsaid = False, True
        self._durable = dict(self._taken)
        self.acted.make_durable()

    def _say(self, slot: int, durable: EntryId) -> SlotNotice:
        cursor = self._segments.cursors.get(slot, SlotCursor())
        # After damage, or a claim that was rejected, the holder is not known.
        known = cursor.stored.incarnation == durable.incarnation
        lead = self._replay.lead_chunks * cursor.num_copies
        return SlotNotice(
            durable=durable,
            granted=EntryId(durable.incarnation, durable.sequence + lead),
            holder=cursor.holder if known else "",
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
        # By turns: every slot's first entry, then every slot's second one, ... and after the slot
        # that came last, so that a restart does not change the order.
        slots = sorted({entry.slot for entry in entries}, key=lambda s: (s <= self._last_slot, s))
        turns = zip_longest(*([e for e in entries if e.slot == slot] for slot in slots))
        self._pending.extend(entry for entry in chain.from_iterable(turns) if entry is not None)
        return bool(self._pending)

    def _take(self, entry: Entry) -> bool:
        """Stores one entry; True if it was a Chunk and is now in the arena."""
        record = Record(
            slot=entry.slot,
            entry_id=entry.entry_id,
            ordinal=self._arena.end,
            payload=entry.payload,
        )
        before = self._taken.get(entry.slot, ZERO_ID)
        self._taken[entry.slot] = entry.entry_id
        self._last_slot = entry.slot
        self._unsaid = True
        try:
            chunk = self._check(record)
        except RejectedChunk as error:
            # It counts as taken: its author may forget it and must not starve for credit.
            self.counts[f"rejected_{error.reason}"] += 1
            self._tell("chunk_rejected", entry, str(error))
            return False
        self._segments.append(record)
        if chunk is None:
            return False
        if entry.entry_id != (before.incarnation, before.sequence + 1):
            self.counts["gaps"] += 1
            self._tell("gap", entry, f"came after {before}")
        self._insert(chunk)
        self.counts["inserted"] += 1
        self.resets += _resets(chunk)
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
        if chunk.num_steps > self._replay.chunk_length:
            longest = self._replay.chunk_length
            raise RejectedChunk("length", f"{chunk.num_steps} Steps, replay.chunk_length={longest}")
        num_copies = self._segments.cursors.get(record.slot, SlotCursor()).num_copies
        if chunk.copy >= num_copies:  # every copy is a Track, and Tracks stay
            raise RejectedChunk("header", f"copy {chunk.copy} of {num_copies} claimed")
        return chunk

    def _tell(self, kind: str, entry: Entry, text: str) -> None:
        self._throttled.say(kind, entry.slot, f"{entry.entry_id}: {text}", self._clock.now())

    def _insert_stored(self, record: Record) -> Chunk:
        """A Chunk that was checked when it was stored keeps its ordinal."""
        try:
            chunk = decode_chunk(record.payload, spec=self._arena.spec)
            self._arena.check_latent(chunk)
        except RejectedChunk as error:
            raise CheckpointError(
                f"segments in {self._segments.folder}: slot {record.slot} {record.entry_id} does "
                f"not fit this run: {error}"
            ) from None
        missing = record.ordinal - self._arena.end
        if missing and len(self._arena):
            self._on_event(
                "steps_lost",
                f"{missing} Steps before slot {record.slot} {record.entry_id} cannot be read: no "
                "longer in the replay",
            )
        self._arena.skip_to(record.ordinal)
        self._insert(chunk)
        return chunk

    def _insert(self, chunk: Chunk) -> None:
        self._arena.insert(chunk)
        self.acted.take(chunk, end=self._arena.end)

    def _keep_log_small(self) -> None:
        self.log_bytes = self._reader.num_bytes()
        if self.log_bytes > self._replay.log_bytes // 2:
            for slot, durable in self._durable.items():
                self._reader.trim(slot, durable)


def _resets(chunk: Chunk) -> int:
    return int(np.count_nonzero(chunk.fields[IS_FIRST]))
