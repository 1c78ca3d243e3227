"""How a run stands: numbers from its folder, the fleet from control. For the view and `status`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.run_folder import RunRecord
from system.control.protocol import Control, Event

_PENDING = {"actor_pending", "actor_died", "actor_restarted", "actor_killed"}


class MetricsTail:
    """The newest value of every key of a growing `metrics.jsonl`; reads only what is new.

    The loop that uses it::

        tail = MetricsTail(folder.metrics_path)
        while True:
            values = tail.read()
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.values: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Reads on; returns the merged values. A line still being written is left for later."""
        if not self._path.exists():
            return self.values
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._merge(line)
        return self.values

    def _merge(self, line: bytes) -> None:
        try:
            values = json.loads(line)
        except ValueError:
            return
        if "eval/return_mean" in values:
            # Its facts are those of the measured policy, mostly older than the learner's.
            for key in ("time_s", "frames", "updates"):
                values[key] = max(values[key], self.values.get(key, 0))
        self.values.update(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorsStatus:
    """Actor slots: as wished, alive, and missing with the reason."""

    desired: int = 0
    running: int = 0
    pending: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """slot -> why it is pending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One moment of one run. None: not known yet."""

    run: str
    alive: bool
    """Whether somebody drives the run now."""
    frames: int
    frames_limit: int
    updates: int
    elapsed_s: float
    updates_per_s: float | None
    actors: ActorsStatus
    return_mean: float | None
    """Of the last evaluation."""
    acting_return_mean: float | None
    """Of the actors' last episodes."""
    policy_version: int | None
    policy_age_s: float | None
    """Age of the policy that acts [s]."""
    replay: dict[str, float | None]
    doing: dict[str, str] = field(default_factory=dict)
    """process -> what it is doing."""

    def to_json(self) -> dict[str, Any]:
        """As `status --json` prints it."""
        actors = self.actors
        return {
            "run": self.run,
            "alive": self.alive,
            "frames": self.frames,
            "frames_limit": self.frames_limit,
            "updates": self.updates,
            "updates_per_s": self.updates_per_s,
            "time_s": self.elapsed_s,
            "actors": {
                "desired": actors.desired,
                "running": actors.running,
                "pending": actors.pending,
                "reasons": actors.reasons,
            },
            "return_mean": self.return_mean,
            "acting_return_mean": self.acting_return_mean,
            "policy_version": self.policy_version,
            "policy_age_s": self.policy_age_s,
            "replay": self.replay,
            "doing": self.doing,
        }


def status_of(
    record: RunRecord, values: dict[str, Any], control: Control | None, *, alive: bool
) -> Status:
    """Puts together what the folder's metrics and control say.

    Args:
      record: the run.
      values: merged metrics, see `MetricsTail`.
      control: None for a run that nobody drives, or that cannot be asked.
      alive: whether somebody drives it.

    Raises:
      Unavailable: control cannot be reached.
    """
    numbers, actors, doing = _fleet(record, control)
    return Status(
        run=record.config.run,
        alive=alive,
        frames=int(values.get("frames", 0)),
        frames_limit=record.config.frames,
        updates=int(values.get("updates", 0)),
        elapsed_s=float(values.get("time_s", 0.0)),
        updates_per_s=values.get("learner/updates_per_s"),
        actors=actors,
        return_mean=values.get("eval/return_mean"),
        acting_return_mean=_mean(numbers, "actor/return_mean"),
        policy_version=_whole(values.get("learner/policy_version")),
        policy_age_s=_mean(numbers, "actor/policy_age_s"),
        replay={
            name: values.get(f"replay/{name}")
            for name in ("steps", "fill", "bytes", "ratio", "ratio_target")
        },
        doing=doing,
    )


def _fleet(
    record: RunRecord, control: Control | None
) -> tuple[list[dict[str, float]], ActorsStatus, dict[str, str]]:
    if control is None:
        return [], ActorsStatus(desired=record.config.fleet.actors), {}
    desired = control.desired()
    leases = control.leases()
    running = {lease.slot for lease in leases if lease.role == "actor"}
    missing = [slot for slot in range(desired.actors) if slot not in running]
    told = _last_words(control.events(last=50)) if missing else {}
    actors = ActorsStatus(
        desired=desired.actors,
        running=len(running),
        pending=len(missing),
        reasons={str(slot): told.get(slot, "starting") for slot in missing},
    )
    numbers = [one.values for one in control.metrics() if one.role == "actor"]
    doing = {
        f"{lease.role} {lease.slot}" if lease.role == "actor" else lease.role: lease.doing
        for lease in leases
    }
    return numbers, actors, doing


def _last_words(events: list[Event]) -> dict[int, str]:
    """Slot -> the newest event that explains why its actor is not there."""
    return {event.slot: event.text for event in events if event.kind in _PENDING}


def _mean(numbers: list[dict[str, float]], name: str) -> float | None:
    known = [values[name] for values in numbers if name in values]
    return sum(known) / len(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
