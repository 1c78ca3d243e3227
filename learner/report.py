"""What the learner tells people: `metrics.jsonl`, its lease, its numbers, and events."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from learner.disk import full_disk_is_named
from learner.publisher import Standing
from system.clock import Clock, Every, Thinned
from system.control.protocol import Control, Point
from system.errors import DiskFull, Unavailable
from system.histogram import UPDATE
from system.presence import Presence
from system.run_log import RunLog

LEASE_TTL_S = 10.0
HEARTBEAT_S = 1.0
REMEMBER_S, REMEMBER_SHARE = 10.0, 1e-3
"""Between points of the curve: at least so long [s], and so much of all the time so far."""


class LearnerReporter:
    """Speaks at most once per interval; never raises because nobody listens."""

    def __init__(
        self,
        control: Control,
        clock: Clock,
        *,
        folder: Path,
        who: str,
        metrics_s: float,
        check: Callable[[], None],
    ) -> None:
        """`check` raises Fenced if another learner speaks for this run now."""
        self._control, self._clock = control, clock
        self._log, self._check = RunLog(folder), check
        self._presence = Presence(
            control, clock, role="learner", slot=0, who=who, lease_ttl_s=LEASE_TTL_S
        )
        self._write_due, self._beat_due = Every(metrics_s), Every(HEARTBEAT_S)
        self._thinned = Thinned(least_s=REMEMBER_S, share=REMEMBER_SHARE)
        self._values: dict[str, float] = {}
        self._before: tuple[float, int] = (clock.now(), 0)

    def tick(
        self,
        standing: Standing,
        *,
        frames: int,
        doing: str,
        numbers: Callable[[], dict[str, float]],
        losses: dict[str, Tensor],
        now: bool = False,
    ) -> None:
        """Heartbeat every second, a line of metrics every `metrics_s` (or `now`). May be Fenced."""
        now_s = self._clock.now()
        if self._write_due(now_s) or now:
            self._values = self._collect(standing, frames, numbers(), losses)
            line = {
                "time_s": round(standing.elapsed_s, 3), "frames": frames,
                "updates": standing.update, **self._plain,
            }  # fmt: skip
            self._append(line)
            if self._thinned(standing.elapsed_s) or now:
                self._remember(standing, frames)
        self.beat(doing, standing.epoch, now=now)

    def beat(self, doing: str, epoch: int, *, now: bool = False) -> None:
        """A heartbeat with the numbers told last, once a second (or `now`). May be Fenced."""
        if self._beat_due(self._clock.now()) or now:
            self._check()
            self._presence.incarnation = epoch
            self._presence.beat(doing, self._values)

    def event(self, kind: str, text: str) -> None:
        """Tells what happened at once: it may be the last word."""
        self._presence.tell(kind, text)
        with contextlib.suppress(Unavailable):
            self._presence.flush()

    def release(self) -> None:
        """Gives the lease back at an orderly exit."""
        self._presence.release()

    def _append(self, line: dict[str, float]) -> None:
        """Left out if there is no room."""
        self._check()
        with contextlib.suppress(DiskFull), full_disk_is_named(self._log.path):
            self._log.append(line)

    def _remember(self, standing: Standing, frames: int) -> None:
        values = {
            "elapsed_s": standing.elapsed_s, "frames": float(frames),
            "updates": float(standing.update), **self._plain,
        }  # fmt: skip
        with contextlib.suppress(Unavailable):
            self._control.remember(Point(time_s=self._clock.wall(), values=values))

    @property
    def _plain(self) -> dict[str, float]:
        """Without the buckets, which only the exporter adds up."""
        return {
            name: value
            for name, value in self._values.items()
            if not name.startswith(f"{UPDATE.stem}/")
        }

    def _collect(
        self,
        standing: Standing,
        frames: int,
        numbers: dict[str, float],
        losses: dict[str, Tensor],
    ) -> dict[str, float]:
        now_s = self._clock.now()
        then_s, updates = self._before
        self._before = (now_s, standing.update)
        rate = (standing.update - updates) / (now_s - then_s) if now_s > then_s else 0.0
        values = {
            "learner/updates": standing.update,
            "learner/frames": frames,
            "learner/updates_per_s": rate if updates else 0.0,
            "learner/elapsed_s": standing.elapsed_s,
            **numbers,
            **{name: float(value) for name, value in losses.items()},
        }
        return {name: _short(value) for name, value in values.items() if math.isfinite(value)}


def _short(value: float) -> float:
    """Counts whole, measured values with six digits."""
    return float(value) if float(value).is_integer() else float(f"{value:.6g}")
