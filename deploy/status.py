"""How a run stands: numbers from its folder, the fleet from control. For the view and `status`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.actors_status import ActorsStatus, actors_of
from deploy.run_folder import RunRecord
from deploy.tail import Tail
from system.control.protocol import Control, Lease, ProcessMetrics

SUPERVISOR = "supervisor"


class MetricsTail:
    """The newest value of every key of a growing `metrics.jsonl`; reads only what is new.

    The loop that uses it::

        tail = MetricsTail(folder.metrics_path)
        while True:
            values = tail.read()
    """

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self.values: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Reads on; returns the merged values. A line still being written is left for later."""
        for line in self._tail.new():
            merge_line(self.values, line)
        return self.values


def merge_line(values: dict[str, Any], line: dict[str, Any]) -> None:
    """Takes a line of metrics into the newest value of every key."""
    if "eval/return_mean" in line:
        # Its facts are those of the measured policy, mostly older than the learner's.
        facts = {key: max(line[key], values.get(key, 0)) for key in ("time_s", "frames", "updates")}
        line = {**line, **facts}
    values.update(line)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One moment of one run. None: not known yet."""

    run: str
    alive: bool
    """Whether somebody drives the run now."""
    ended: str = ""
    """`finished`, `stopped`, `failed: why`, or `lost`: it began, and nobody recorded its end. Empty
    while it runs and before it began."""
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
    page: str = ""
    """URL of its page, with the token, if that is served on this machine."""

    @property
    def phase(self) -> str:
        """One word or two for people."""
        return "running" if self.alive else self.ended or "not running"

    def to_json(self) -> dict[str, Any]:
        """As `status --json` prints it."""
        actors = self.actors
        return {
            "run": self.run,
            "alive": self.alive,
            "ended": self.ended,
            "frames": self.frames,
            "frames_limit": self.frames_limit,
            "updates": self.updates,
            "updates_per_s": self.updates_per_s,
            "time_s": self.elapsed_s,
            "actors": {
                "desired": actors.desired,
                "running": actors.running,
                "starting": actors.starting,
                "pending": actors.pending,
                "reasons": actors.reasons,
                "held": actors.held,
                "own": actors.own,
            },
            "return_mean": self.return_mean,
            "acting_return_mean": self.acting_return_mean,
            "policy_version": self.policy_version,
            "policy_age_s": self.policy_age_s,
            "replay": self.replay,
            "doing": self.doing,
            "page": self.page,
        }


def status_of(
    record: RunRecord,
    values: dict[str, Any],
    control: Control | None,
    *,
    alive: bool,
    ended: str = "",
) -> Status:
    """Puts together what the folder's metrics and control say.

    Args:
      record: the run.
      values: merged metrics, see `MetricsTail`.
      control: None for a run that nobody drives, or that cannot be asked.
      alive: whether somebody drives it.
      ended: how it came to rest, see `Status`.

    Raises:
      Unavailable: control cannot be reached.
    """
    numbers, actors, doing = _fleet(record, control)
    return Status(
        run=record.config.run,
        alive=alive,
        ended="" if alive else ended,
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
    leases = control.leases()
    actors = actors_of(control, leases)
    numbers = [one.values for one in control.metrics() if one.role == "actor"]
    doing = {
        f"{lease.role} {lease.slot}" if lease.role == "actor" else lease.role: lease.doing
        for lease in leases
    }
    return numbers, actors, doing


def is_supervised(leases: list[Lease]) -> bool:
    """Whether somebody drives the run these leases are of."""
    return any(lease.role == SUPERVISOR for lease in leases)


def newest_numbers(metrics: list[ProcessMetrics]) -> dict[str, float]:
    """What `MetricsTail` reads from a folder, from what learner and evaluator told control."""
    numbers: dict[str, float] = {}
    for one in metrics:
        if one.role in ("learner", "evaluator"):
            numbers.update(one.values)
    plain = {
        "frames": "learner/frames",
        "updates": "learner/updates",
        "time_s": "learner/elapsed_s",
    }
    numbers.update({name: numbers[long] for name, long in plain.items() if long in numbers})
    return numbers


def _mean(numbers: list[dict[str, float]], name: str) -> float | None:
    known = [values[name] for values in numbers if name in values]
    return sum(known) / len(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
