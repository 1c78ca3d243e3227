"""The writer's decisions without I/O: what to claim, when to stop, how long to pause."""

from __future__ import annotations

import random

from system.log.protocol import Notice, SlotNotice
from system.types import ZERO_ID, EntryId


class Backoff:
    """Growing pauses with jitter, so that a fleet does not return all at once. Pure."""

    def __init__(
        self, *, first_s: float = 0.02, longest_s: float = 1.0, seed: int | None = None
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._random = random.Random(seed)

    def failed(self) -> float:
        """Counts a failure; how long to pause now [s]."""
        pause_s = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return pause_s * self._random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """The next failure starts small again."""
        self._failures = 0


def next_incarnation(slot: int, last_id: EntryId | None, notice: Notice) -> int:
    """One more than anything the stream or the learner remembers of this slot."""
    said = notice.slots.get(slot, SlotNotice())
    known = (last_id or ZERO_ID, said.durable, said.granted)
    return max(entry_id.incarnation for entry_id in known) + 1


def has_credit(said: SlotNotice, *, incarnation: int, num_received: int) -> bool:
    """Whether one more Chunk may be sent that never was.

    Counted in Chunks beyond the durable one: ids may have holes, which no grant would reach over.

    Args:
      said: the learner's words.
      incarnation: ours.
      num_received: Chunks of ours that the store has and that are not durable.
    """
    if said.granted.incarnation != incarnation:
        return False
    durable = said.durable.sequence if said.durable.incarnation == incarnation else 0
    return num_received < said.granted.sequence - durable


def fenced_by(said: SlotNotice, *, incarnation: int, who: str) -> str | None:
    """Why the learner's words mean that this incarnation must stop; None if they do not."""
    newest = max(said.granted, said.durable)
    if newest.incarnation > incarnation:
        return f"the learner follows incarnation {newest.incarnation}, ours is {incarnation}"
    if said.granted.incarnation == incarnation and said.holder not in ("", who):
        return f"incarnation {incarnation} belongs to {said.holder}, not to {who}"
    return None
