"""The learning curve as the page draws it: every evaluation, acting returns thinned. Pure.

::

    lines of metrics.jsonl | points of control.history -> Curve.take -> points, append-only

A tab asks for what came after the points it has; so points are only ever appended.
"""

from __future__ import annotations

import bisect
import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from deploy.dashboard.plain import known

MOST_POINTS = 20_000
"""A run with more keeps its first ones: nobody evaluates so often."""
PAUSE_S = 2.0
"""Least training time between two acting points [s]."""
PAUSE_SHARE = 0.001
"""The same, as a share of the training time so far: a long run stays drawable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One return."""

    time_s: float | None
    """Unix time it was told [s]; None: only the run's own time is known."""
    elapsed_s: float
    """Training time before it [s]."""
    frames: int
    """Simulator steps before it."""
    updates: int
    kind: Literal["evaluation", "acting", "checkpoint"]
    mean: float | None
    """Undiscounted return of an episode; of a checkpoint None."""
    std: float | None
    """Over the episodes of an evaluation."""
    episodes: int | None = None
    """Behind the mean, if known."""


class Curve:
    """One run's curve.

    The loop that uses it::

        curve.take(tail.new())
        curve.take_acting(mean, numbers)        # for runs whose lines do not tell it
        send(curve.points[sent:])
    """

    def __init__(self) -> None:
        self.points: list[CurvePoint] = []
        """In the order they were told."""
        self._acting_s = -math.inf
        self._saved: set[int] = set()
        self._trained: list[CurvePoint] = []

    @property
    def evaluations(self) -> list[CurvePoint]:
        """Those alone, by growing frames."""
        found = [point for point in self.points if point.kind == "evaluation"]
        return sorted(found, key=lambda point: point.frames)

    def take(self, lines: Iterable[Mapping[str, Any]], *, time_s: float | None = None) -> None:
        """Takes in lines of metrics; `time_s` is the Unix time they were told, if known [s]."""
        for line in lines:
            mean = known(line, "eval/return_mean")
            if mean is not None:
                self._add(_point("evaluation", line, mean=mean, time_s=time_s))
                continue
            self._note(line)
            acting = known(line, "actor/return_mean")
            if acting is not None:
                self.take_acting(acting, line, time_s=time_s)

    def take_acting(
        self, mean: float, facts: Mapping[str, Any], *, time_s: float | None = None
    ) -> None:
        """Takes in what the actors' last episodes brought, unless the last one was just now."""
        elapsed_s = known(facts, "time_s") or 0.0
        pause_s = max(PAUSE_S, PAUSE_SHARE * elapsed_s)
        # A resumed run may go back a little.
        if 0 <= elapsed_s - self._acting_s < pause_s or not math.isfinite(mean):
            return
        self._acting_s = elapsed_s
        self._add(_point("acting", facts, mean=mean, time_s=time_s))

    def take_checkpoint(self, updates: int, *, time_s: float) -> None:
        """Takes in a checkpoint, once; it lies where the run had as many updates."""
        if updates in self._saved:
            return
        self._saved.add(updates)
        at = bisect.bisect_left(self._trained, updates, key=lambda one: one.updates)
        if self._trained:
            near = self._trained[min(at, len(self._trained) - 1)]
            facts = {"time_s": near.elapsed_s, "frames": near.frames, "updates": updates}
            self._add(_point("checkpoint", facts, time_s=time_s))

    def _note(self, line: Mapping[str, Any]) -> None:
        """Where the run was at so many updates; what a restart repeats counts once."""
        point = _point("acting", line)
        ahead = not self._trained or point.updates > self._trained[-1].updates
        if ahead and len(self._trained) < MOST_POINTS:
            self._trained.append(point)

    def _add(self, point: CurvePoint) -> None:
        if len(self.points) < MOST_POINTS:
            self.points.append(point)


def to_csv(points: Sequence[CurvePoint]) -> str:
    """Every point, a line each; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(CurvePoint)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return text.getvalue()


def _point(
    kind: Literal["evaluation", "acting", "checkpoint"], facts: Mapping[str, Any], *,
    mean: float | None = None, time_s: float | None = None,
) -> CurvePoint:  # fmt: skip
    evaluated = kind == "evaluation"
    episodes = known(facts, "eval/episodes") if evaluated else None
    return CurvePoint(
        time_s=time_s,
        elapsed_s=known(facts, "time_s") or 0.0,
        frames=int(known(facts, "frames") or 0),
        updates=int(known(facts, "updates") or 0),
        kind=kind,
        mean=mean,
        std=known(facts, "eval/return_std") if evaluated else None,
        episodes=None if episodes is None else int(episodes),
    )
