"""Sealed Chunks on their way to the writer, and when acting must pause for them.

A call may seal more Chunks than the writer's spool has room for (several copies at once, or the
flush of a drain). They wait here, in order; acting pauses meanwhile, so they are at most one per
copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from system.histogram import CHUNK_BYTES, Histogram
from system.log.writer import SlotWriter
from system.tick import Progress, Wait
from system.types import Chunk, TimeStep

SHORT, ENOUGH = 0.9, 0.5
"""Between episodes acting pauses when the spool is so full, until it is only so full [ratio]."""

OnEvent = Callable[[str, str], None]
"""Told (kind, text) of what happened."""


class Outbox:
    """A SlotWriter that takes every Chunk it is offered.

    The loop that uses it::

        sent = outbox.tick()
        if outbox.pauses(time_step):
            return sent
        outbox.offer(chunker.add(...))

    Raises Fenced from `tick` when a newer incarnation holds the slot.
    """

    def __init__(self, writer: SlotWriter, *, on_event: OnEvent = lambda kind, text: None) -> None:
        self._writer, self._on_event = writer, on_event
        self._sealed: deque[Chunk] = deque()
        self._bytes = Histogram(CHUNK_BYTES)
        self._short = False
        self._told: dict[str, int] = {}
        self.held = False
        """While True acting pauses between episodes."""

    @property
    def full(self) -> bool:
        """Whether nothing more can be taken."""
        return bool(self._sealed) or self._writer.full

    def pauses(self, time_step: TimeStep) -> bool:
        """Whether acting must pause here: anywhere without room, between episodes with little.

        A robot does not stop in the middle of a movement. Several copies are simulators, which
        may stand still anywhere.
        """
        self._judge_room()
        between = len(time_step.is_last) > 1 or bool(time_step.is_last[0] | time_step.is_first[0])
        return self.full or (between and (self.held or self._short))

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
        for chunk in chunks:
            self._bytes.observe(chunk.num_bytes)
            self._sealed.append(chunk)
        while self._sealed and not self._writer.full:
            self._writer.offer(self._sealed.popleft())

    def spill(self) -> None:
        """Into the spool with everything, even beyond its limits: nothing will follow."""
        while self._sealed:
            self._writer.offer(self._sealed.popleft(), beyond=True)

    def tick(self) -> Progress | Wait:
        """Sends at most one Chunk, or says what is missing: credit, redis, learner, durable."""
        sent = self._writer.tick()
        self.offer([])
        self._tell_losses()
        if isinstance(sent, Wait) and sent.reason == "data" and self._writer.full:
            return Wait("durable", sent.seconds)
        return sent

    def close(self) -> None:
        """Sends nothing more; what was not received is left where the writer keeps it."""
        self._writer.close()

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
            "actor/spool_fill": self._writer.fill,
            **{f"actor/chunks_{why}": float(n) for why, n in self._writer.given_up.items()},
            **self._bytes.metrics(),
        }

    def _judge_room(self) -> None:
        fill = self._writer.fill
        short = fill >= (ENOUGH if self._short else SHORT)
        if short != self._short:
            kind = "spool_full" if short else "spool_has_room"
            self._on_event(kind, f"{fill:.0%} used; acting {'pauses' if short else 'goes on'}")
        self._short = short

    def _tell_losses(self) -> None:
        """At once of the first Chunk that was given up, then of every doubling."""
        for why, count in self._writer.given_up.items():
            if count >= 2 * self._told.get(why, 0):
                self._told[why] = count
                self._on_event(f"chunks_{why}", f"{count} chunks so far were never sent: {why}")
