"""Now and then the learner dreams beside what was recorded, for people to see how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from learner.arena import Arena
from learner.config import LearnerConfig
from learner.dream_files import DreamFiles
from learner.dream_measure import Measuring, measure
from learner.open_loop import Models
from learner.publisher import Standing
from learner.recordings import newest_stretches, variances
from learner.setup import LearnerSeams
from system.dream import DreamReport
from system.dream_codec import encode_dream
from system.errors import DiskFull, Fenced, Unavailable

BLOB = "dream"
BLOB_TTL_S = 86_400.0
CONTEXT, HORIZON = 5, 45
"""Steps seen, Steps dreamed [agent steps]."""
TOLD_HORIZONS = (1, 5, 15, 45)
MOST_SHARE = 0.01
"""Of the learner's time, about [ratio]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much is dreamed for one report."""

    starts: int
    samples: int
    """Dreams from each start."""


VECTORS = Effort(starts=16, samples=8)
IMAGES = Effort(starts=4, samples=4)


class Dreamer:
    """Makes a DreamReport when it is time; costs about `MOST_SHARE` of the learner's time.

    The loop that uses it::

        result = learning.update(batch)
        dreamer.tick(standing)
    """

    def __init__(
        self,
        models: Models,
        arena: Arena,
        seams: LearnerSeams,
        files: DreamFiles,
        config: LearnerConfig,
        on_event: Callable[[str, str], None],
    ) -> None:
        """`on_event` takes a kind and a text."""
        self._models, self._arena, self._files = models, arena, files
        self._control, self._clock = seams.control, seams.clock
        self._every_s, self._discount = config.dream_report_s, config.discount
        self._on_event, self._failed = on_event, False
        self._due_s, self._took_s = float("-inf"), float("inf")
        images = any(spec.is_image for spec in arena.spec.observation.values())
        self._effort = IMAGES if images else VECTORS
        self.numbers: dict[str, float] = {}
        """Of the newest report, for a line of metrics."""

    def tick(self, standing: Standing) -> None:
        """Makes, writes and tells a report if it is time. May be Fenced."""
        began_s = self._clock.now()
        if not self._every_s or began_s < self._due_s:
            return
        try:
            report = self._report(standing)
            if report is not None:
                self._tell(report)
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - no picture is worth the training
            self._fail(error, standing)
            self._due_s = self._clock.now() + max(
                self._every_s, (self._clock.now() - began_s) / MOST_SHARE
            )
            return
        took_s = self._clock.now() - began_s
        # The lesser of two: one hiccup of the machine is not what a report costs.
        self._due_s = began_s + max(self._every_s, min(took_s, self._took_s) / MOST_SHARE)
        self._took_s = took_s
        if report is not None:
            self.numbers = {**_numbers(report), "dream/report_s": took_s}

    def _report(self, standing: Standing) -> DreamReport | None:
        """None as long as too little is recorded."""
        arena, effort = self._arena, self._effort
        contexts = newest_stretches(arena, count=effort.starts, context=CONTEXT, horizon=HORIZON)
        if not len(contexts):
            return None
        devices = [arena.device] if arena.device.type == "cuda" else []
        # Training draws the same numbers whether anybody looks or not.
        with torch.random.fork_rng(devices):
            torch.manual_seed(standing.update)
            measured = measure(
                self._models, arena.sample(contexts, CONTEXT + HORIZON),
                variances(arena),
                Measuring(context=CONTEXT, samples=effort.samples, discount=self._discount),
            )  # fmt: skip
        horizon = len(measured.model_error)
        earlier = self._files.read_before(standing.update // 2)
        if earlier is not None and earlier.horizon < horizon:
            earlier = None
        return DreamReport(
            update=standing.update,
            frames=standing.agent_steps * arena.spec.action_repeat,
            time_s=self._clock.wall(),
            elapsed_s=standing.elapsed_s,
            context_steps=CONTEXT,
            horizon=horizon,
            starts=len(contexts),
            samples=effort.samples,
            model_error=measured.model_error,
            repeat_error=measured.repeat_error,
            parting_step=measured.parting_step,
            gap=measured.gap,
            examples=measured.examples,
            earlier_update=earlier.update if earlier else None,
            earlier_error=earlier.model_error[:horizon] if earlier else None,
        )

    def _fail(self, error: Exception, standing: Standing) -> None:
        """Says so once: the next report most likely fails like this one."""
        if not self._failed:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            self._on_event("dream_failed", f"no dream report at update {standing.update}: {what}")
        self._failed = True

    def _tell(self, report: DreamReport) -> None:
        """To the run folder and to control; whoever is away or full gets the next one."""
        data = encode_dream(report)
        with contextlib.suppress(DiskFull):
            self._files.write(report.update, data)
        with contextlib.suppress(Unavailable):
            self._control.put_blob(BLOB, data, ttl_s=BLOB_TTL_S)


def _numbers(report: DreamReport) -> dict[str, float]:
    kept = report.horizon if report.parting_step is None else report.parting_step - 1
    gap = report.gap
    return {
        **{
            f"dream/error_{step}": float(report.model_error[step - 1])
            for step in TOLD_HORIZONS
            if step <= report.horizon
        },
        "dream/parting_steps": float(kept),
        "dream/gap_ratio": gap.ratio,
        "dream/window_real": gap.real_return,
        "dream/window_dreamed": gap.dreamed_return,
        "dream/window_policy": gap.policy_return,
    }
