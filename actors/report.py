"""What an actor tells control: a lease and its numbers every heartbeat, and what happened.

Control being unreachable stops nothing: a heartbeat is skipped, an event is kept for the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from system.clock import Clock, Every
from system.control.protocol import Control, Event, Lease, ProcessMetrics
from system.errors import EnvironmentFault, Unavailable
from system.metrics import STARTED

ROLE = "actor"
LEASE_HEARTBEATS = 10
"""A lease outlives this many missed heartbeats."""
METRICS_TTL_S = 60.0
"""How long the numbers of an actor that stopped are kept [s]."""
EVENT_CHARS = 4000
"""A longer text keeps its beginning and, where a traceback says what happened, its end."""
KEPT_EVENTS = 100
"""Events kept while control cannot be reached; then the oldest are dropped."""

FAULT_KINDS = ("raised", "hang", "died", "outside_space", "other")
"""What copies are rebuilt for, each counted; a kind of the environment's own is `other`."""

MetricsOf = Callable[[], dict[str, float]]


def tell_nobody() -> None:
    """The default of `on_heartbeat`."""


class Reporter:
    """Heartbeats and events of one actor.

    The loop that uses it::

        while True:
            loop.tick()
            reporter.tick("acting")
    """

    def __init__(
        self,
        control: Control,
        clock: Clock,
        *,
        slot: int,
        who: str,
        heartbeat_s: float,
        on_heartbeat: Callable[[], None] = tell_nobody,
    ) -> None:
        self._control, self._clock, self._on_heartbeat = control, clock, on_heartbeat
        self._slot, self._who = slot, who
        self._due = Every(heartbeat_s)
        self._lease_ttl_s = LEASE_HEARTBEATS * heartbeat_s
        self._sources: list[MetricsOf] = []
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._doing = "starting"
        self._faults = dict.fromkeys(FAULT_KINDS, 0)
        self._started_s = clock.wall()
        self.incarnation = 0
        """Set once the slot is claimed."""
        self.fenced = False
        """Whether the slot, and its lease, are somebody else's: then nothing is written."""

    def watch(self, sources: Sequence[MetricsOf]) -> None:
        """Adds parts of the actor whose numbers go with every heartbeat."""
        self._sources += sources

    def tick(self, doing: str = "") -> None:
        """Sends a heartbeat if one is due.

        Args:
          doing: one word for people; empty for the one before.
        """
        self._doing = doing or self._doing
        if self.fenced or not self._due(self._clock.now()):
            return
        self._on_heartbeat()
        try:
            self._control.renew(self._lease(), ttl_s=self._lease_ttl_s)
            self._control.put_metrics(self._metrics(), ttl_s=METRICS_TTL_S)
            while self._events:
                self._control.record(self._events[0])
                self._events.popleft()
        except Unavailable:
            return

    def event(self, kind: str, text: str) -> None:
        """Something happened; goes out with the next heartbeat."""
        if len(text) > EVENT_CHARS:
            text = f"{text[: EVENT_CHARS // 4]} ... {text[-3 * EVENT_CHARS // 4 :]}"
        self._events.append(
            Event(time_s=self._clock.wall(), role=ROLE, slot=self._slot, kind=kind, text=text)
        )

    def on_fault(self, copy: int, fault: EnvironmentFault) -> None:
        """Counts and tells of an environment copy that was rebuilt; see `make_env`."""
        kind = fault.kind if fault.kind in FAULT_KINDS else "other"
        self._faults[kind] += 1
        self.event(f"environment_{kind}", f"copy {copy} was rebuilt; {fault}")

    def release(self) -> None:
        """Gives the lease back at an orderly exit."""
        if self.fenced:
            return
        try:
            self._control.release(ROLE, self._slot)
        except Unavailable:
            return

    def _lease(self) -> Lease:
        return Lease(
            role=ROLE,
            slot=self._slot,
            incarnation=self.incarnation,
            who=self._who,
            doing=self._doing,
            time_s=self._clock.wall(),
        )

    def numbers(self) -> dict[str, float]:
        """What the next heartbeat tells."""
        values = {f"actor/faults_{kind}": float(count) for kind, count in self._faults.items()}
        values["actor/faults"] = float(sum(self._faults.values()))
        values[f"{ROLE}/{STARTED}"] = self._started_s
        for source in self._sources:
            values.update(source())
        return values

    def _metrics(self) -> ProcessMetrics:
        return ProcessMetrics(
            role=ROLE, slot=self._slot, time_s=self._clock.wall(), values=self.numbers()
        )
