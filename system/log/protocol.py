"""The log: how Chunks travel from an actor's slot to the learner, exactly once in effect.

One stream per slot; an entry's id `<incarnation>-<sequence>` *is* the protocol: the store refuses
any id that is not greater than the last one it saw, even after trimming.

::

    actor (one writer per slot)                    learner (one reader, one epoch)
    claim()        -> incarnation  (entry <i>-0)   read(cursors)   -> entries after each cursor
    append(id, b)  -> acknowledged once            publish(notice) -> durable cursors and grants
    notice()       <- durable cursors, grants      trim(slot, id)  -> only below the durable cursor

*Received* means the store replied. *Durable* means a learner notice names this id or a later one:
the Chunk is in a synced segment file. An actor retains what is received until it is durable, and
re-appends it, in order, when the store comes back having lost its tail (`writer.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from system.types import ZERO_ID, EntryId


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a slot's stream, as the learner reads it."""

    slot: int
    entry_id: EntryId
    """Sequence 0 is a claim; its payload is a `Claim` message, not a Chunk."""
    payload: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who took a slot: the payload of entry `<incarnation>-0`."""

    who: str
    """Process, for people: `host:pid`."""
    spec_digest: str
    num_copies: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotNotice:
    """What the learner says to one slot."""

    durable: EntryId = ZERO_ID
    """Everything up to and with this id is in a synced segment."""
    granted: EntryId = ZERO_ID
    """The highest id this slot may append (credit), if its ids have no holes; with holes, as many
    Chunks after `durable` as this says. Monotone."""
    holder: str = ""
    """`Claim.who` of the incarnation in `granted`; "" if the learner does not know it. A writer
    that finds somebody else here is fenced: after a wipe two may have claimed the same number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What the learner says to all slots; each notice replaces the one before."""

    epoch: int
    tick: int
    slots: dict[int, SlotNotice] = field(default_factory=dict)


class AppendReply(Enum):
    """What the store said to one append."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The id is equal to or smaller than the stream's last id."""
    MISSING = "missing"
    """There is no stream: the store was wiped."""


class SlotLog(Protocol):
    """An actor's end: raw commands on one slot's stream. `SlotWriter` builds the protocol on it.

    Raises Unavailable from any method when the store cannot be reached; then nothing is known
    about the last command, and the writer must look at `last_id` before appending again.
    """

    def last_id(self) -> EntryId | None:
        """The greatest id the stream ever held (trimming does not lower it); None if no stream."""
        ...

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        """Appends one entry; with `create=False` a missing stream is not created (it was wiped)."""
        ...

    def notice(self) -> Notice | None:
        """The learner's newest notice; None while no learner has spoken."""
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...


class LogReader(Protocol):
    """The learner's end. One epoch at a time: claiming a newer one fences the older."""

    def claim_epoch(self, *, after: int = 0) -> int:
        """Takes the next epoch; from now on the store refuses every older learner.

        Until the first `publish` there is no notice. `after` is the greatest epoch the learner's
        checkpoint knows: the epoch is greater than this too, although a wiped store forgot it.
        """
        ...

    def slots(self) -> list[int]:
        """Slots that were ever claimed, growing order."""
        ...

    def read(self, cursors: dict[int, EntryId], *, limit: int, wait_s: float = 0.0) -> list[Entry]:
        """Entries after each slot's cursor, at most `limit` per slot, in id order within a slot.

        Args:
          cursors: slot -> last id already read.
          limit: entries per slot.
          wait_s: how long to wait for the first one [s]; 0 returns at once.
        """
        ...

    def publish(self, notice: Notice) -> None:
        """Replaces the learner's notice; ticks count from 1. Raises Fenced on a newer epoch."""
        ...

    def trim(self, slot: int, below: EntryId) -> int:
        """Drops entries with smaller ids; returns how many. Call after a `publish` succeeded."""
        ...

    def num_bytes(self) -> int:
        """Rough size of all streams [bytes]."""
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...
