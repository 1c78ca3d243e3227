"""A robot's writer in a thread of its own: over a slow link a Chunk takes round trips, acting none.

::

    thread that acts    offer(chunk), on disk when it returns; tick() -> what is waited for
    this thread         earlier life -> claim -> writer.tick() again and again
    one lock            around both, but free while Redis is asked

Redis is asked with the patience of its socket, so no reply is ever late: the writer's protocol is
the same as in the fleet. Chunks that are offered while it waits only lengthen what is to be sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from system.log.earlier import EarlierLife
from system.log.protocol import AppendReply, Notice, SlotLog
from system.log.writer import SlotWriter
from system.tick import Progress, Wait
from system.types import Chunk, EntryId

POLL_S = 0.005
"""Looks again as often, as the acting loop of a fleet does: credit may have come [s]."""
ResultT = TypeVar("ResultT")


class UnlockedLog:
    """Gives the writer's lock back while it asks Redis. Call it with the lock held."""

    def __init__(self, inner: SlotLog) -> None:
        self.lock = threading.Lock()
        self._inner = inner

    def last_id(self) -> EntryId | None:
        """See `SlotLog`."""
        return self._unlocked(self._inner.last_id)

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        """See `SlotLog`."""
        return self._unlocked(lambda: self._inner.append(entry_id, payload, create=create))

    def notice(self) -> Notice | None:
        """See `SlotLog`."""
        return self._unlocked(self._inner.notice)

    def close(self) -> None:
        """Releases the connections."""
        self._inner.close()

    def _unlocked(self, call: Callable[[], ResultT]) -> ResultT:
        self.lock.release()
        try:
            return call()
        finally:
            self.lock.acquire()


class SenderThread:
    """What an `Outbox` sees of a SlotWriter; sends by itself from the first `try_claim` on.

    The calls that use it::

        log = UnlockedLog(place.log.slot_log(slot))
        writer = SenderThread(SlotWriter(log, ...), EarlierLife(log, ...), log.lock).as_writer()
        ...
        writer.close()
    """

    def __init__(self, writer: SlotWriter, earlier: EarlierLife, lock: threading.Lock) -> None:
        self._writer, self._lock = writer, lock
        self._earlier: EarlierLife | None = earlier
        self._turn = Wait("starting", POLL_S)
        self._error: Exception | None = None
        self._news, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def as_writer(self) -> SlotWriter:
        """Itself: it has every method and property that an Outbox uses."""
        return cast(SlotWriter, self)

    def try_claim(self) -> int | Wait:
        """See `SlotWriter.try_claim`."""
        if self._thread.ident is None:
            self._thread.start()
        turn = self.tick()
        incarnation: int | None = self.incarnation
        return turn if incarnation is None else incarnation

    def offer(self, chunk: Chunk, *, beyond: bool = False) -> None:
        """See `SlotWriter.offer`."""
        with self._lock:
            self._writer.offer(chunk, beyond=beyond)
        self._news.set()

    def tick(self) -> Wait:
        """What it waits for at this moment. Raises what ended it, Fenced above all."""
        if self._error is not None:
            raise self._error
        return self._turn

    def close(self) -> None:
        """Ends the thread, which may first wait for a reply, and releases the connection."""
        self._over.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._writer.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """A property of the writer."""
        with self._lock:
            return getattr(self._writer, name)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                turn = self._next()
                if isinstance(turn, Wait):
                    self._turn = turn
                    self._news.wait(min(turn.seconds, POLL_S))
                    self._news.clear()
                else:
                    self._turn = Wait(turn.what, POLL_S)
        except Exception as error:  # noqa: BLE001 - raised where somebody looks: in `tick`
            self._error = error

    def _next(self) -> Progress | Wait:
        with self._lock:
            if self._earlier is not None:
                left = self._earlier.tick()
                if left is not None:
                    return left
                self._earlier = None
            if self._writer.incarnation is not None:
                return self._writer.tick()
            claimed = self._writer.try_claim()
            return claimed if isinstance(claimed, Wait) else Progress("claimed")
