"""The control plane in memory: one object, shared by everybody in the process."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from system.clock import Clock, SystemClock
from system.control.protocol import FIRST_OWN_SLOT, Desired, Event, Lease, ProcessMetrics, Recorded
from system.errors import ConfigError

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

    def desired(self) -> Desired:
        """The desired fleet; generation 0 if nobody has asked for one."""
        with self._lock:
            return self._desired

    def change_desired(
        self, *, actors: int | None = None, delta: int = 0, stopping: bool | None = None
    ) -> Desired:
        """Changes the given parts; the generation grows only if something changed."""
        with self._lock:
            self._desired = changed(self._desired, actors=actors, delta=delta, stopping=stopping)
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

    def close(self) -> None:
        """Nothing to release."""


def changed(desired: Desired, *, actors: int | None, delta: int, stopping: bool | None) -> Desired:
    """`desired` with the given parts replaced; a new generation only if something differs.

    Raises:
      ConfigError: more actors than there are supervised slots.
    """
    wanted = max(0, (desired.actors if actors is None else actors) + delta)
    if wanted > FIRST_OWN_SLOT:
        raise ConfigError(
            f"actors={wanted} must be at most {FIRST_OWN_SLOT}: the slots above belong to actors "
            "started by hand"
        )
    wish = replace(
        desired,
        actors=wanted,
        stopping=desired.stopping if stopping is None else stopping,
    )
    return desired if wish == desired else replace(wish, generation=desired.generation + 1)
