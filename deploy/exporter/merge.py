"""Everything known of one run: what was read of it, look after look, as one view. Pure.

::

    Look (leases, snapshots, events, wish)  ->  RunMerge.take  ->  RunView
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from deploy.exporter.totals import Counts, Totals, counts_of
from system.control.protocol import Desired, Lease, ProcessMetrics, Recorded
from system.metrics import EVENT_KINDS, MEASURED, ROLES, STARTED

FORGET_S = 300.0
"""How long a process without a lease is shown as down; then it is left out [s]."""
MAX_PROCESSES = 1024
"""Of one run; whoever may write snapshots could invent any number of slots."""


class Place(NamedTuple):
    """A process, whichever life it has."""

    role: str
    slot: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What one read of a run's control found."""

    desired: Desired = field(default_factory=Desired)
    leases: list[Lease] = field(default_factory=list)
    metrics: list[ProcessMetrics] = field(default_factory=list)
    events: list[Recorded] = field(default_factory=list)
    """Only those after the cursor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessView:
    """One process of a run."""

    place: Place
    lease: Lease | None
    """None: it is down."""
    last_seen_s: float | None
    """Unix time of its last sign of life [s]; None: forgotten, only its counts are kept."""
    starts: int
    counts: Counts
    gauges: dict[str, float]
    """Snapshot key -> what it said last; empty if it is down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """One run at one moment."""

    desired: int | None
    """None: nobody lives."""
    processes: list[ProcessView]
    events: Counts
    """Kind -> how many."""
    left_out: int
    """Processes beyond `MAX_PROCESSES`."""


@dataclass(slots=True)
class _Process:
    totals: Totals = field(default_factory=Totals)
    lease: Lease | None = None
    last_seen_s: float | None = None
    gauges: dict[str, float] = field(default_factory=dict)


class RunMerge:
    """One run, look after look.

    The loop that uses it::

        merge.take(look, clock.wall())
        view = merge.view()
    """

    def __init__(self) -> None:
        self._processes: dict[Place, _Process] = {}
        self._left_out: set[Place] = set()
        self._desired: int | None = None
        self.events: Counts = dict.fromkeys((*EVENT_KINDS, "other"), 0)
        self.cursor = ""
        """Of the last event counted."""

    @property
    def totals(self) -> dict[Place, Totals]:
        """What must outlive the exporter, by process."""
        return {place: process.totals for place, process in self._processes.items()}

    def restore(self, totals: dict[Place, Totals], events: Counts, cursor: str) -> None:
        """Goes on where another exporter was; before the first look."""
        self._processes = {place: _Process(totals=one) for place, one in totals.items()}
        self.events |= events
        self.cursor = cursor

    def take(self, look: Look, now_s: float) -> None:
        """Takes in one look, made at `now_s` (Unix time [s])."""
        self._left_out.clear()
        for metrics in look.metrics:
            self._take_metrics(metrics, now_s)
        held = {Place(lease.role, lease.slot): lease for lease in look.leases}
        for place, lease in held.items():
            self._take_lease(place, lease, now_s)
        for place, process in self._processes.items():
            if place not in held:
                process.lease, process.gauges = None, {}
            seen_s = process.last_seen_s
            if process.lease is None and seen_s is not None and now_s - seen_s > FORGET_S:
                process.last_seen_s = None
        for recorded in look.events:
            kind = recorded.event.kind
            self.events[kind if kind in self.events else "other"] += 1
            self.cursor = recorded.cursor
        wish = look.desired
        self._desired = wish.actors - len(wish.held) if held else None

    def view(self) -> RunView:
        """All of it, as of the last look."""
        return RunView(
            desired=self._desired,
            processes=[
                ProcessView(
                    place=place, lease=process.lease, last_seen_s=process.last_seen_s,
                    starts=process.totals.starts, counts=process.totals.values(),
                    gauges=dict(process.gauges),
                )
                for place, process in sorted(self._processes.items())
            ],
            events=dict(self.events),
            left_out=len(self._left_out),
        )  # fmt: skip

    @property
    def at_rest(self) -> bool:
        """Whether no process is alive or was lately."""
        return all(process.last_seen_s is None for process in self._processes.values())

    def _take_metrics(self, metrics: ProcessMetrics, now_s: float) -> None:
        process = self._process(Place(metrics.role, metrics.slot))
        if process is None:
            return
        started_s = metrics.values.get(f"{metrics.role}/{STARTED}", 0.0)
        life = started_s if math.isfinite(started_s) else 0.0
        process.totals.see(life, counts_of(metrics.values))
        process.gauges |= {key: value for key, value in metrics.values.items() if key in MEASURED}
        if process.last_seen_s is None:
            process.last_seen_s = min(metrics.time_s, now_s)

    def _take_lease(self, place: Place, lease: Lease, now_s: float) -> None:
        process = self._process(place)
        if process is None:
            return
        # By our clock: theirs may be wrong. A stopped process holds a lease that does not move.
        if process.lease is None or process.lease.time_s != lease.time_s:
            process.last_seen_s = now_s
        process.lease = lease

    def _process(self, place: Place) -> _Process | None:
        if place not in self._processes:
            if place.role not in ROLES:
                return None
            if len(self._processes) >= MAX_PROCESSES:
                self._left_out.add(place)
                return None
            self._processes[place] = _Process()
        return self._processes[place]
