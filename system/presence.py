"""What a process tells control of itself: a lease, its numbers, and what happened."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from system.clock import Clock
from system.control.protocol import Control, Event, Lease, ProcessMetrics
from system.errors import Unavailable
from system.metrics import STARTED

METRICS_TTL_S = 60.0
"""How long the numbers of a process that stopped are kept [s]."""
KEPT_EVENTS = 1000
"""Events kept while control cannot be reached; then the oldest are dropped."""


class Presence:
    """One process as others see it. Control being away costs a heartbeat and delays events.

    The loop that uses it::

        presence.beat("acting", {"actor/agent_steps": 17.0})
        presence.tell("gap", "chunk 3 is missing")     # goes out with the next heartbeat
        presence.release()
    """

    def __init__(
        self, control: Control, clock: Clock, *, role: str, slot: int, who: str, lease_ttl_s: float
    ) -> None:
        """`lease_ttl_s`: a process that is silent for so long is taken for dead [s]."""
        self._control, self._clock, self._ttl_s = control, clock, lease_ttl_s
        self._lease = Lease(
            role=role, slot=slot, incarnation=0, who=who, doing="starting", time_s=clock.wall()
        )
        self._started = {f"{role}/{STARTED}": clock.wall()}
        self._untold: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.incarnation = 0
        """Which life of its place this is."""

    def say(self, doing: str, values: Mapping[str, float]) -> None:
        """One heartbeat. Raises Unavailable.

        Args:
          doing: one word for people.
          values: the numbers of this process, by the keys of the catalogue.
        """
        time_s = self._clock.wall()
        self._lease = replace(self._lease, incarnation=self.incarnation, doing=doing, time_s=time_s)
        self._control.renew(self._lease, ttl_s=self._ttl_s)
        metrics = ProcessMetrics(
            role=self._lease.role, slot=self._lease.slot, time_s=time_s,
            values={**values, **self._started},
        )  # fmt: skip
        self._control.put_metrics(metrics, ttl_s=METRICS_TTL_S)
        self.flush()

    def beat(self, doing: str, values: Mapping[str, float]) -> None:
        """As `say`; while control is away nothing is told."""
        with contextlib.suppress(Unavailable):
            self.say(doing, values)

    def tell(self, kind: str, text: str, *, role: str = "", slot: int | None = None) -> None:
        """Something happened, to this process or to another one; goes out with a heartbeat."""
        self._untold.append(
            Event(
                time_s=self._clock.wall(), role=role or self._lease.role,
                slot=self._lease.slot if slot is None else slot, kind=kind, text=text,
            )
        )  # fmt: skip

    def flush(self) -> None:
        """Tells now what happened. Raises Unavailable."""
        while self._untold:
            self._control.record(self._untold[0])
            self._untold.popleft()

    def release(self) -> None:
        """The last word of an orderly exit: what is untold, and the lease is given back."""
        with contextlib.suppress(Unavailable):
            self.flush()
            self._control.release(self._lease.role, self._lease.slot)
