"""The control plane in memory: one object, shared by everybody in the process."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from system.clock import Clock, SystemClock
from system.control.protocol import (
    MAX_POINTS,
    Desired,
    Event,
    Lease,
    Point,
    ProcessMetrics,
    Recorded,
    RememberedPoint,
    SlotAction,
    check_blob,
)
from system.control.wish import asked, changed

MAX_EVENTS = 1000


class MemoryControl:
    """Desired fleet, leases, metrics and events. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        """`clock` decides when leases and metrics expire; the machine's by default."""
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._desired = Desired()
        self._leases: dict[tuple[str, int], tuple[float, Lease]] = {}
        self._metrics: dict[tuple[str, int], tuple[float, ProcessMetrics]] = {}
        self._events: deque[Recorded] = deque(maxlen=MAX_EVENTS)
        self._recorded = 0
        self._blobs: dict[str, tuple[float, bytes]] = {}
        self._points: deque[RememberedPoint] = deque(maxlen=MAX_POINTS)
        self._remembered = 0

    def desired(self) -> Desired:
        """The desired fleet; generation 0 if nobody has asked for one."""
        with self._lock:
            return self._desired

    def change_desired(
        self, *, actors: int | None = None, delta: int = 0, stopping: bool | None = None,
        held: Sequence[int] | None = None,
    ) -> Desired:  # fmt: skip
        """Changes the given parts; the generation grows only if something changed."""
        with self._lock:
            self._desired = changed(
                self._desired, actors=actors, delta=delta, stopping=stopping, held=held
            )
            return self._desired

    def ask_slot(self, slot: int, action: SlotAction) -> Desired:
        """Changes what is wished of one slot."""
        with self._lock:
            until_s, lease = self._leases.get(("actor", slot), (-math.inf, None))
            lives = lease is not None and until_s > self._clock.now()
            incarnation = lease.incarnation if lease is not None and lives else 0
            self._desired = asked(self._desired, slot, action, incarnation)
            return self._desired

    def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Writes a heartbeat that expires by itself after `ttl_s` [s]."""
        with self._lock:
            self._leases[lease.role, lease.slot] = (self._clock.now() + ttl_s, lease)

    def take(self, lease: Lease, *, ttl_s: float) -> bool:
        """Writes a lease that expires after `ttl_s` [s], unless somebody else's is there."""
        with self._lock:
            now_s = self._clock.now()
            until_s, held = self._leases.get((lease.role, lease.slot), (now_s, lease))
            if until_s > now_s and held.who != lease.who:
                return False
            self._leases[lease.role, lease.slot] = (now_s + ttl_s, lease)
            return True

    def release(self, role: str, slot: int) -> None:
        """Removes a lease."""
        with self._lock:
            self._leases.pop((role, slot), None)

    def leases(self) -> list[Lease]:
        """Every lease that has not expired, ordered by role and slot."""
        with self._lock:
            now_s = self._clock.now()
            items = sorted(self._leases.items(), key=lambda item: item[0])
            return [lease for _, (until_s, lease) in items if until_s > now_s]

    def put_metrics(self, metrics: ProcessMetrics, *, ttl_s: float) -> None:
        """Replaces the numbers of one process."""
        with self._lock:
            copy = replace(metrics, values=dict(metrics.values))
            self._metrics[metrics.role, metrics.slot] = (self._clock.now() + ttl_s, copy)

    def metrics(self) -> list[ProcessMetrics]:
        """The numbers of every process seen lately, ordered by role and slot."""
        with self._lock:
            now_s = self._clock.now()
            items = sorted(self._metrics.items(), key=lambda item: item[0])
            return [metrics for _, (until_s, metrics) in items if until_s > now_s]

    def record(self, event: Event) -> None:
        """Appends an event; only the newest thousand are kept."""
        with self._lock:
            self._recorded += 1
            self._events.append(Recorded(cursor=str(self._recorded), event=event))

    def events(self, *, last: int = 100) -> list[Event]:
        """The newest events, oldest first."""
        with self._lock:
            kept = list(self._events)[max(0, len(self._events) - last) :]
            return [one.event for one in kept]

    def events_after(self, cursor: str) -> list[Recorded]:
        """Every event kept that came after `cursor`, oldest first; empty is before the first."""
        with self._lock:
            return [one for one in self._events if int(one.cursor) > int(cursor or 0)]

    def put_blob(self, name: str, data: bytes, *, ttl_s: float) -> None:
        """Replaces a blob, which expires by itself after `ttl_s` [s]."""
        check_blob(data)
        with self._lock:
            self._blobs[name] = (self._clock.now() + ttl_s, data)

    def blob(self, name: str) -> bytes | None:
        """A blob; None if there is none, or it has expired."""
        with self._lock:
            until_s, data = self._blobs.get(name, (-math.inf, b""))
            return data if until_s > self._clock.now() else None

    def remember(self, point: Point) -> None:
        """Appends a point to the run's curve; the newest `MAX_POINTS` are kept."""
        with self._lock:
            self._remembered += 1
            copy = replace(point, values=dict(point.values))
            self._points.append(RememberedPoint(cursor=str(self._remembered), point=copy))

    def history(self, after: str = "") -> list[RememberedPoint]:
        """Every point kept that came after a cursor, oldest first; empty is before the first."""
        with self._lock:
            return [one for one in self._points if int(one.cursor) > int(after or 0)]

    def close(self) -> None:
        """Nothing to release."""
