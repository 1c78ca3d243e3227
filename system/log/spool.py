"""What an actor still answers for: entries in id order, and how far the store has them. Pure.

::

    durable (forgotten) | retained: received, not yet durable | waiting: to be sent
                        ^ forget(durable)                     ^ received() / reconcile(last_id)

After a lost connection the store may hold more than was acknowledged (a reply was lost) or less
(it lost its tail, or everything). Both are one move: `reconcile` sets the second mark to what the
store's last id says, and what lies behind it is sent again, in order.

The entries themselves lie on a shelf: in memory, or in files that outlive the process
(`disk_spool.py`). A file may have a hole: an entry that cannot be read is counted and passed over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from system.errors import Fenced
from system.types import EntryId


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One entry: the claim (sequence 0) or an encoded Chunk."""

    entry_id: EntryId
    payload: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An entry that lies on a shelf."""

    entry_id: EntryId
    num_bytes: int


class Shelf(Protocol):
    """Where the entries of a spool lie. Never raises for want of space: it says how full it is."""

    def begin(self, claim: Item) -> None:
        """A new incarnation: whatever an earlier one left is not its business."""
        ...

    def put(self, item: Item) -> None:
        """Takes an entry."""
        ...

    def get(self, entry_id: EntryId) -> bytes | None:
        """Its payload; None if it is damaged: then it is not there any more."""
        ...

    def drop(self, entry_id: EntryId) -> None:
        """Forgets an entry."""
        ...

    def tend(self, now_s: float) -> None:
        """Called now and then, for what failed before."""
        ...

    @property
    def fill(self) -> float:
        """Used share of the space there is; 1 or more is full [ratio]."""
        ...


class MemoryShelf:
    """Entries that die with the process; as many as the spool's limits allow."""

    fill = 0.0

    def __init__(self) -> None:
        self._payloads: dict[EntryId, bytes] = {}

    def begin(self, claim: Item) -> None:
        """A new incarnation."""
        self._payloads.clear()

    def put(self, item: Item) -> None:
        """Takes an entry."""
        self._payloads[item.entry_id] = item.payload

    def get(self, entry_id: EntryId) -> bytes | None:
        """Its payload."""
        return self._payloads[entry_id]

    def drop(self, entry_id: EntryId) -> None:
        """Forgets an entry."""
        del self._payloads[entry_id]

    def tend(self, now_s: float) -> None:
        """Nothing fails here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolSetup:
    """When a spool is full, and where its entries lie."""

    spool_chunks: int
    """Chunks that may wait."""
    retain_bytes: int
    """Received bytes that may wait for the learner to make them durable [bytes]."""
    thin: bool = False
    """Drop the oldest Chunk that was never received when the shelf is full, instead of refusing."""
    shelf: Shelf = field(default_factory=MemoryShelf)
    """In memory, or files; it has a say in `Spool.full`."""


class Spool:
    """The entries of one incarnation of one slot.

    Loop: `item = spool.head()`, append it, `spool.received()`; on doubt
    `spool.reconcile(log.last_id())`.
    """

    def __init__(
        self, claim: Item, setup: SpoolSetup, *, found: Iterable[Held] | None = None
    ) -> None:
        """Starts with the claim received.

        Args:
          claim: entry `<incarnation>-0`; kept for as long as the spool, to rebuild a wiped stream.
          setup: when it is full, where its entries lie.
          found: what lies there of an earlier life of this incarnation, in id order; None begins a
            new one.
        """
        self.claim = claim
        """Entry `<incarnation>-0`."""
        self._setup, self._shelf = setup, setup.shelf
        self._items: deque[Held] = deque(found or ())
        self._found = found is not None
        self._has_claim = True
        self._num_received = 0
        """Items the store has, as far as known."""
        self._num_ever = 0
        """Items the store has had at some time: what is sent again needs no credit."""
        self._last_offered = self._items[-1].entry_id if self._items else claim.entry_id
        self.retained_bytes = 0
        """Received at some time and not yet durable [bytes]."""
        self.counts: Counter[str] = Counter()
        """Chunks given up before they were received: `thinned`, `damaged`."""
        if found is None:
            self._shelf.begin(claim)

    @property
    def num_waiting(self) -> int:
        """Chunks that the store does not have."""
        return len(self._items) - self._num_received

    @property
    def num_received(self) -> int:
        """Chunks that the store has, as far as known, and that are not durable."""
        return self._num_received

    @property
    def num_retained(self) -> int:
        """Chunks that are not durable, waiting ones included."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether nothing may be offered now."""
        return (
            self.num_waiting >= self._setup.spool_chunks
            or self.retained_bytes > self._setup.retain_bytes
            or (self._shelf.fill >= 1 and not self._can_thin)
        )

    @property
    def fill(self) -> float:
        """How full the shelf is [ratio]; what can be thinned is never full."""
        return 0.0 if self._can_thin else self._shelf.fill

    def tend(self, now_s: float) -> None:
        """Lets the shelf try again what failed."""
        self._shelf.tend(now_s)

    def expect(self) -> EntryId:
        """The id that the next offered Chunk must have."""
        return EntryId(self._last_offered.incarnation, self._last_offered.sequence + 1)

    def check_offer(self, entry_id: EntryId, *, beyond: bool = False) -> None:
        """Raises ValueError if the spool is full (`beyond`: never mind), or the id is not next."""
        if self.full and not beyond:
            raise ValueError(f"the spool is full; {entry_id} must wait until `full` is False")
        if entry_id != self.expect():
            raise ValueError(f"chunk {entry_id} offered, {self.expect()} expected")

    def offer(self, item: Item, *, beyond: bool = False) -> None:
        """Puts one Chunk at the end.

        Raises:
          ValueError: see `check_offer`.
        """
        self.check_offer(item.entry_id, beyond=beyond)
        while self._shelf.fill >= 1 and self._can_thin:
            self._give_up(self._num_ever, "thinned")
        self._shelf.put(item)
        self._items.append(Held(entry_id=item.entry_id, num_bytes=len(item.payload)))
        self._last_offered = item.entry_id

    def head_id(self) -> EntryId | None:
        """What to send next: the claim if the store lost it, else the oldest waiting Chunk."""
        if not self._has_claim:
            return self.claim.entry_id
        return self._items[self._num_received].entry_id if self.num_waiting else None

    def head(self) -> Item | None:
        """The same with its bytes; None if what lay there was damaged, then look again."""
        entry_id = self.head_id()
        if entry_id is None or entry_id == self.claim.entry_id:
            return None if entry_id is None else self.claim
        payload = self._shelf.get(entry_id)
        if payload is None:
            self._give_up(self._num_received, "damaged")
            return None
        return Item(entry_id=entry_id, payload=payload)

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
        # What was found may miss its newest: forgotten as durable, or never written to a full disk.
        if last_id is not None and last_id > ours and not self._found:
            raise Fenced(f"somebody wrote {last_id} in our incarnation; we only offered {ours}")
        before = self._num_received
        self._has_claim = last_id is not None and last_id >= self.claim.entry_id
        has = 0 if last_id is None else sum(item.entry_id <= last_id for item in self._items)
        self._set_received(has)
        return has - before

    def forget(self, durable: EntryId) -> None:
        """Drops what a synced segment holds."""
        while self._items and self._items[0].entry_id <= durable:
            self._remove(0)

    def _set_received(self, count: int) -> None:
        # By index: with every append there is one more, far into what is retained.
        for index in range(self._num_ever, count):
            self.retained_bytes += self._items[index].num_bytes
        self._num_received = count
        self._num_ever = max(self._num_ever, count)

    @property
    def _can_thin(self) -> bool:
        return self._setup.thin and self._num_ever < len(self._items)

    def _give_up(self, index: int, why: str) -> None:
        self.counts[why] += 1
        self._remove(index)

    def _remove(self, index: int) -> None:
        held = self._items[index]
        del self._items[index]
        self._shelf.drop(held.entry_id)
        if index < self._num_ever:
            self._num_ever -= 1
            self.retained_bytes -= held.num_bytes
        if index < self._num_received:
            self._num_received -= 1
