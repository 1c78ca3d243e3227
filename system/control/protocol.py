"""Control: who should be alive, who is, what they measure, and what happened.

Small values only. It must keep working when the data log is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FIRST_OWN_SLOT = 1000
"""Slots from here on belong to actors started by hand; the desired fleet does not count them."""
SlotAction = Literal["drain", "restart", "start"]
"""What may become of one actor slot."""
MAX_BLOB_BYTES = 4 * 1024**2
"""Of one blob [bytes]."""
MAX_POINTS = 20_000
"""Of a run's curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Desired:
    """The fleet somebody asked for."""

    generation: int = 0
    """Counts changes; a reader can tell an old wish from a new one."""
    actors: int = 0
    """How many actor slots should be running: slots 0 .. actors - 1."""
    stopping: bool = False
    """Drain, checkpoint and exit."""
    held: list[int] = field(default_factory=list)
    """Slots below `actors` that stay empty, in order."""
    retired: dict[str, int] = field(default_factory=dict)
    """Slot -> its newest incarnation that is to end; another one takes its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One living process."""

    role: str
    """`actor`, `learner`, `evaluator` or `supervisor`."""
    slot: int
    incarnation: int
    who: str
    """`host:pid`."""
    doing: str
    """What it is doing, one word for people: starting, acting, waiting, draining, ..."""
    time_s: float
    """Wall-clock time of this heartbeat [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened, in plain words."""

    time_s: float
    role: str
    slot: int
    kind: str
    """Short word to count by: `actor_restarted`, `chunk_rejected`, ..."""
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """An event and its place among the others."""

    cursor: str
    """Greater than that of every event before; to be handed to `events_after`."""
    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessMetrics:
    """The latest numbers of one process."""

    role: str
    slot: int
    time_s: float
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One point of a run's curve: a line of `metrics.jsonl`."""

    time_s: float
    """Unix time [s]."""
    values: dict[str, float] = field(default_factory=dict)
    """By the names of the line; `frames` and `updates` among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RememberedPoint:
    """A point and its place among the others."""

    cursor: str
    """Greater than that of every point before; to be handed to `history`."""
    point: Point


class Control(Protocol):
    """The control plane of one run. Every method may raise Unavailable."""

    def desired(self) -> Desired:
        """The desired fleet; generation 0 if nobody has asked for one."""
        ...

    def change_desired(
        self, *, actors: int | None = None, delta: int = 0, stopping: bool | None = None,
        held: Sequence[int] | None = None,
    ) -> Desired:  # fmt: skip
        """Atomically changes the given parts; the generation grows only if something changed.

        Args:
          actors: how many there should be; None keeps the number wished last.
          delta: so many more, or fewer if negative, but never below 0.
          stopping: drain, checkpoint and exit.
          held: slots that stay empty, instead of those wished last; None keeps them.
        """
        ...

    def ask_slot(self, slot: int, action: SlotAction) -> Desired:
        """Atomically changes what is wished of one actor slot.

        Args:
          slot: one of the desired fleet.
          action: `drain`: finish, flush, and stay away; `restart`: the same, and begin anew at once
            (nothing, if nobody lives there); `start`: take back a `drain`.

        Raises:
          ConfigError: the slot is not one of the desired fleet.
        """
        ...

    def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Writes a heartbeat that expires by itself after `ttl_s` [s]."""
        ...

    def take(self, lease: Lease, *, ttl_s: float) -> bool:
        """Writes a lease that expires after `ttl_s` [s], unless somebody else's is there.

        False: it is; its holder is among `leases`. Asked again by the same `who`, as after a lost
        reply, it is true again.
        """
        ...

    def release(self, role: str, slot: int) -> None:
        """Removes a lease at an orderly exit."""
        ...

    def leases(self) -> list[Lease]:
        """Every lease that has not expired, ordered by role and slot."""
        ...

    def put_metrics(self, metrics: ProcessMetrics, *, ttl_s: float) -> None:
        """Replaces the numbers of one process."""
        ...

    def metrics(self) -> list[ProcessMetrics]:
        """The numbers of every process seen lately, ordered by role and slot."""
        ...

    def record(self, event: Event) -> None:
        """Appends an event; only the newest thousand are kept."""
        ...

    def events(self, *, last: int = 100) -> list[Event]:
        """The newest events, oldest first."""
        ...

    def events_after(self, cursor: str) -> list[Recorded]:
        """Every event kept that came after `cursor`, oldest first; empty is before the first."""
        ...

    def put_blob(self, name: str, data: bytes, *, ttl_s: float) -> None:
        """Replaces a blob, which expires by itself after `ttl_s` [s].

        Raises:
          ValueError: it is empty, or longer than `MAX_BLOB_BYTES`.
        """
        ...

    def blob(self, name: str) -> bytes | None:
        """A blob; None if there is none, or it has expired.

        Raises:
          RejectedChunk: it is longer than `MAX_BLOB_BYTES`: nobody of ours wrote it.
        """
        ...

    def remember(self, point: Point) -> None:
        """Appends a point to the run's curve; about the newest `MAX_POINTS` are kept.

        Whoever writes leaves out what a curve does not need, see `system.clock.Thinned`.
        """
        ...

    def history(self, after: str = "") -> list[RememberedPoint]:
        """Every point kept that came after a cursor, oldest first; empty is before the first."""
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...


def check_blob(data: bytes) -> None:
    """Raises ValueError unless it may be put."""
    if not 0 < len(data) <= MAX_BLOB_BYTES:
        raise ValueError(f"a blob of {len(data)} bytes; 1 to {MAX_BLOB_BYTES} can be put")
