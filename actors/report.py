"""What an actor tells control: a lease and its numbers every heartbeat, and what happened.

Control being unreachable stops nothing: a heartbeat is skipped, an event is kept for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from system.clock import Clock, Every
from system.control.protocol import Control
from system.errors import EnvironmentFault
from system.presence import Presence

ROLE = "actor"
LEASE_HEARTBEATS = 10
"""A lease outlives this many missed heartbeats."""
EVENT_CHARS = 4000
"""A longer text keeps its beginning and, where a traceback says what happened, its end."""

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
        self._clock, self._on_heartbeat = clock, on_heartbeat
        self._presence = Presence(
            control, clock, role=ROLE, slot=slot, who=who,
            lease_ttl_s=LEASE_HEARTBEATS * heartbeat_s,
        )  # fmt: skip
        self._due = Every(heartbeat_s)
        self._sources: list[MetricsOf] = []
        self._doing = "starting"
        self._faults = dict.fromkeys(FAULT_KINDS, 0)
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
        self._presence.beat(self._doing, self.numbers())

    def claimed(self, incarnation: int) -> None:
        """The slot is ours from now on."""
        self._presence.incarnation = incarnation
        self.event("actor_claimed", f"incarnation {incarnation}")

    def event(self, kind: str, text: str) -> None:
        """Something happened; goes out with the next heartbeat."""
        if len(text) > EVENT_CHARS:
            text = f"{text[: EVENT_CHARS // 4]} ... {text[-3 * EVENT_CHARS // 4 :]}"
        self._presence.tell(kind, text)

    def on_fault(self, copy: int, fault: EnvironmentFault) -> None:
        """Counts and tells of an environment copy that was rebuilt; see `make_env`."""
        kind = fault.kind if fault.kind in FAULT_KINDS else "other"
        self._faults[kind] += 1
        self.event(f"environment_{kind}", f"copy {copy} was rebuilt; {fault}")

    def release(self) -> None:
        """Gives the lease back at an orderly exit."""
        if not self.fenced:
            self._presence.release()

    def numbers(self) -> dict[str, float]:
        """What the next heartbeat tells."""
        values = {f"actor/faults_{kind}": float(count) for kind, count in self._faults.items()}
        values["actor/faults"] = float(sum(self._faults.values()))
        for source in self._sources:
            values.update(source())
        return values
