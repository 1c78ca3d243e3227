"""Published returns, as facts with their source: `published.csv` beside this file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "published.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One figure that others have published."""

    task: str
    """As in `Evidence.task`."""
    method: str
    frames: int
    """Simulator steps: agent steps x action repeat."""
    value: float
    """Undiscounted return of training episodes, sampled actions, mean over seeds."""
    seeds: int
    action_repeat: int
    source: str


@cache
def _all() -> list[Published]:
    with TABLE.open(newline="") as file:
        return [
            Published(
                task=row["task"], method=row["method"], frames=int(row["frames"]),
                value=float(row["return"]), seeds=int(row["seeds"]),
                action_repeat=int(row["action_repeat"]), source=row["source"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def published(task: str) -> list[Published]:
    """What is known of a task, by growing frames; empty if nothing."""
    return sorted((row for row in _all() if row.task == task), key=lambda row: row.frames)
