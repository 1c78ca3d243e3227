"""What the learner tells people: `metrics.jsonl`, its lease, its numbers, and events."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from learner.disk import full_disk_is_named
from learner.publisher import Standing
from system.clock import Clock, Every
from system.control.protocol import Control, Event, Lease, ProcessMetrics
from system.errors import DiskFull, Unavailable
from system.metrics import STARTED

LEASE_TTL_S = 10.0
METRICS_TTL_S = 60.0
HEARTBEAT_S = 1.0


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
        self._control, self._clock, self._who = control, clock, who
        self._path, self._check = folder / "metrics.jsonl", check
        self._write, self._beat = Every(metrics_s), Every(HEARTBEAT_S)
        self._values: dict[str, float] = {}
        self._before: tuple[float, int] = (clock.now(), 0)
        self._started_s = clock.wall()

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
        if self._write(now_s) or now:
            self._values = self._collect(standing, frames, numbers(), losses)
            line = {
                "time_s": round(standing.elapsed_s, 3), "frames": frames,
                "updates": standing.update, **self._values,
            }  # fmt: skip
            self._append(json.dumps(line))
        if self._beat(now_s):
            self._say(standing, doing)

    def event(self, kind: str, text: str) -> None:
        """Records what happened."""
        try:
            self._control.record(
                Event(time_s=self._clock.wall(), role="learner", slot=0, kind=kind, text=text)
            )
        except Unavailable:
            return

    def release(self) -> None:
        """Gives the lease back at an orderly exit."""
        try:
            self._control.release("learner", 0)
        except Unavailable:
            return

    def _append(self, line: str) -> None:
        """In one piece; left out if there is no room. A piece cut off by a crash stays alone."""
        self._check()
        with contextlib.suppress(DiskFull), full_disk_is_named(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                end = os.lseek(descriptor, 0, os.SEEK_END)
                whole = end == 0 or os.pread(descriptor, 1, end - 1) == b"\n"
                os.write(descriptor, ("" if whole else "\n").encode() + line.encode() + b"\n")
            finally:
                os.close(descriptor)

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
        return {name: float(f"{v:.6g}") for name, v in values.items() if math.isfinite(v)}

    def _say(self, standing: Standing, doing: str) -> None:
        self._check()
        time_s = self._clock.wall()
        lease = Lease(
            role="learner", slot=0, incarnation=standing.epoch, who=self._who, doing=doing,
            time_s=time_s,
        )  # fmt: skip
        values = self._values | {f"learner/{STARTED}": self._started_s}
        metrics = ProcessMetrics(role="learner", slot=0, time_s=time_s, values=values)
        try:
            self._control.renew(lease, ttl_s=LEASE_TTL_S)
            self._control.put_metrics(metrics, ttl_s=METRICS_TTL_S)
        except Unavailable:
            return
