"""Sealed Chunks on their way to the writer.

A call may seal more Chunks than the writer's spool has room for (several copies at once, or the
flush of a drain). They wait here, in order; acting pauses meanwhile, so they are at most one per
copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from system.log.writer import SlotWriter
from system.tick import Progress, Wait
from system.types import Chunk


class Outbox:
    """A SlotWriter that takes every Chunk it is offered.

    The loop that uses it::

        sent = outbox.tick()
        if outbox.full:
            return sent
        outbox.offer(chunker.add(...))

    Raises Fenced from `tick` when a newer incarnation holds the slot.
    """

    def __init__(self, writer: SlotWriter) -> None:
        self._writer = writer
        self._sealed: deque[Chunk] = deque()

    @property
    def full(self) -> bool:
        """Whether acting must pause."""
        return bool(self._sealed) or self._writer.full

    @property
    def drained(self) -> bool:
        """Whether the store has everything that was offered."""
        return not self._sealed and self._writer.drained

    @property
    def settled(self) -> bool:
        """Whether everything offered is durable: then not even a wiped store can lose it."""
        claimed = self._writer.incarnation is not None
        return not self._sealed and (not claimed or self._writer.settled)

    def try_claim(self) -> int | Wait:
        """The incarnation that holds the slot from now on, or what is missing."""
        return self._writer.try_claim()

    def offer(self, chunks: Iterable[Chunk]) -> None:
        """Takes sealed Chunks, in order."""
        self._sealed.extend(chunks)
        while self._sealed and not self._writer.full:
            self._writer.offer(self._sealed.popleft())

    def tick(self) -> Progress | Wait:
        """Sends at most one Chunk, or says what is missing: credit, redis, learner, durable."""
        sent = self._writer.tick()
        self.offer([])
        if isinstance(sent, Wait) and sent.reason == "data" and self._writer.full:
            return Wait("durable", sent.seconds)
        return sent

    def metrics(self) -> dict[str, float]:
        """Numbers for the heartbeat."""
        if self._writer.incarnation is None:
            return {}
        counters = self._writer.counters
        return {
            "actor/chunks_received": float(counters.appended),
            "actor/chunks_reappended": float(counters.reappended),
            "actor/chunks_pending": float(self._writer.pending + len(self._sealed)),
            "actor/bytes_sent": float(counters.bytes_sent),
            "actor/bytes_retained": float(self._writer.retained_bytes),
        }
