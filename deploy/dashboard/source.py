"""Where the page's figures come from: a folder with runs, or a Redis with runs.

::

    runs/NAME/   metrics.jsonl, dreams/, checkpoints/; and control while somebody drives it
    Redis        registry, control, policy channel: from any machine

Every read may raise Unavailable. What is read was written by others, perhaps by another version: a
config is taken as plain data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deploy.dashboard.curve import Curve
from deploy.exporter.merge import Look
from system.control.protocol import Control
from system.types import Snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCard:
    """A run as the list of runs shows it."""

    run_id: str
    name: str
    env: str
    phase: str
    """`running`, or how it ended."""
    alive: bool
    frames: int | None
    return_mean: float | None
    """Of the last evaluation."""
    seen_s: float | None
    """Unix time of its last sign of life, if known [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DreamFile:
    """A dream that may be asked for."""

    update: int
    """Learner updates before it."""
    time_s: float
    """Unix time it was written [s]."""
    path: Path | None = None
    """Its file, if it is in a folder here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint that is there."""

    updates: int
    time_s: float
    """Unix time it was written [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """What one look at a run found."""

    alive: bool
    """Whether somebody drives it."""
    ended: str = ""
    """How it came to rest: `finished`, `stopped`, `failed: why`, `lost`; empty before."""
    look: Look | None = None
    """Of its control; None: nobody can be asked."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """The newest value of everything that learner and evaluator told, as in `metrics.jsonl`."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    trouble: str = ""
    """Why control could not be asked; empty if it could, or need not."""


class RunSource(Protocol):
    """One run, for the one who reads."""

    run_id: str
    name: str
    config: dict[str, Any]
    """As `config.json` has it."""
    scalable: bool
    """Whether its actors can be scaled: not those of one process."""
    curve: Curve
    """As of the last look."""

    def glance(self, cursor: str) -> Glance:
        """Looks once; `cursor` is that of the last event known."""
        ...

    def dreams(self) -> list[DreamFile]:
        """Those that may be asked for, oldest first."""
        ...

    def dream(self, update: int | None) -> bytes | None:
        """An encoded dream, the newest without an `update`; None if it is not there."""
        ...

    def control(self, verb: str) -> Control:
        """Of a running run. Raises RunError if it is not, or cannot do what `verb` says."""
        ...

    def policy(self) -> Snapshot:
        """Its newest policy. Raises CheckpointError if there is none."""
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...


class Runs(Protocol):
    """Every run of one place."""

    where: str
    """For people."""

    def cards(self) -> list[RunCard]:
        """The list, oldest first."""
        ...

    def open(self, run_id: str) -> RunSource | None:
        """One of them; None if there is none of this id."""
        ...

    def close(self) -> None:
        """Releases the connections."""
        ...


def look_at(control: Control, cursor: str) -> Look:
    """One read of a run's control."""
    return Look(
        # Leases first: whoever dies meanwhile has said at least what its lease vouches for.
        leases=control.leases(),
        metrics=control.metrics(),
        events=control.events_after(cursor),
        desired=control.desired(),
    )
