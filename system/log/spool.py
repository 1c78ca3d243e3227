"""What an actor still answers for: entries in id order, and how far the store has them. Pure.

::

    durable (forgotten) | retained: received, not yet durable | waiting: to be sent
                        ^ forget(durable)                     ^ received() / reconcile(last_id)

After a lost connection the store may hold more than was acknowledged (a reply was lost) or less
(it lost its tail, or everything). Both are one move: `reconcile` sets the second mark to what the
store's last id says, and what lies behind it is sent again, in order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from system.errors import Fenced
from system.types import EntryId


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One entry: the claim (sequence 0) or an encoded Chunk."""

    entry_id: EntryId
    payload: bytes


class Spool:
    """The entries of one incarnation of one slot.

    Loop: `item = spool.head()`, append it, `spool.received()`; on doubt
    `spool.reconcile(log.last_id())`.
    """

    def __init__(self, claim: Item, *, spool_chunks: int, retain_bytes: int) -> None:
        """Starts with the claim received.

        Args:
          claim: entry `<incarnation>-0`; kept for as long as the spool, to rebuild a wiped stream.
          spool_chunks: Chunks that may wait.
          retain_bytes: received bytes that may wait for the learner to make them durable.
        """
        self.claim = claim
        """Entry `<incarnation>-0`."""
        self._spool_chunks = spool_chunks
        self._retain_bytes = retain_bytes
        self._items: deque[Item] = deque()
        self._has_claim = True
        self._num_received = 0
        """Items the store has, as far as known."""
        self._num_ever = 0
        """Items the store has had at some time: what is sent again needs no credit."""
        self._last_offered = claim.entry_id
        self.retained_bytes = 0
        """Received at some time and not yet durable [bytes]."""

    @property
    def num_waiting(self) -> int:
        """Chunks that the store does not have."""
        return len(self._items) - self._num_received

    @property
    def num_retained(self) -> int:
        """Chunks that are not durable, waiting ones included."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether nothing may be offered now."""
        return self.num_waiting >= self._spool_chunks or self.retained_bytes > self._retain_bytes

    def expect(self) -> EntryId:
        """The id that the next offered Chunk must have."""
        return EntryId(self._last_offered.incarnation, self._last_offered.sequence + 1)

    def offer(self, item: Item) -> None:
        """Puts one Chunk at the end.

        Raises:
          ValueError: the spool is full, or the id is not the next one.
        """
        if self.full:
            raise ValueError(f"the spool is full; {item.entry_id} must wait until `full` is False")
        if item.entry_id != self.expect():
            raise ValueError(f"chunk {item.entry_id} offered, {self.expect()} expected")
        self._items.append(item)
        self._last_offered = item.entry_id

    def head(self) -> Item | None:
        """What to send next: the claim if the store lost it, else the oldest waiting Chunk."""
        if not self._has_claim:
            return self.claim
        return self._items[self._num_received] if self.num_waiting else None

    def head_is_again(self) -> bool:
        """Whether the store once had the head: its credit was spent then."""
        return not self._has_claim or self._num_received < self._num_ever

    def received(self) -> None:
        """The store took the head."""
        if not self._has_claim:
            self._has_claim = True
        else:
            self._set_received(self._num_received + 1)

    def reconcile(self, last_id: EntryId | None) -> int:
        """Sets what the store has by its last id; returns how many more items that is than known.

        Negative: so many were lost and will be sent again.

        Raises:
          Fenced: the last id is not ours: somebody else has the slot.
        """
        ours = self._last_offered
        if last_id is not None and last_id.incarnation > ours.incarnation:
            raise Fenced(f"incarnation {ours.incarnation} lost its slot to {last_id}")
        if last_id is not None and last_id > ours:
            raise Fenced(f"somebody wrote {last_id} in our incarnation; we only offered {ours}")
        before = self._num_received
        self._has_claim = last_id is not None and last_id >= self.claim.entry_id
        has = 0 if last_id is None else sum(item.entry_id <= last_id for item in self._items)
        self._set_received(has)
        return has - before

    def forget(self, durable: EntryId) -> None:
        """Drops what a synced segment holds."""
        while self._items and self._items[0].entry_id <= durable:
            item = self._items.popleft()
            if self._num_ever:
                self.retained_bytes -= len(item.payload)
            self._num_received = max(0, self._num_received - 1)
            self._num_ever = max(0, self._num_ever - 1)

    def waiting(self) -> list[Item]:
        """Everything the store is not known to have."""
        return list(islice(self._items, self._num_received, None))

    def _set_received(self, count: int) -> None:
        fresh = islice(self._items, self._num_ever, max(count, self._num_ever))
        self.retained_bytes += sum(len(item.payload) for item in fresh)
        self._num_received = count
        self._num_ever = max(self._num_ever, count)
