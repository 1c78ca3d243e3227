"""The numbers of a learner besides its losses: replay, the ledger of Steps, where time goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from learner.arena import Arena
from learner.config import LearnerConfig
from learner.ingest import Ingest
from learner.publisher import Publisher
from system.activity import Activity
from system.histogram import UPDATE, Histogram
from system.limiter import ReplayLimiter


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Reads them off the parts that know.

    The loop that uses it::

        figures.update_seconds.observe(spent_s)      # after each update
        figures(updates=loop.updates)                # for a line of metrics
    """

    config: LearnerConfig
    arena: Arena
    ingest: Ingest
    limiter: ReplayLimiter
    publisher: Publisher
    activity: Activity
    update_seconds: Histogram = field(default_factory=lambda: Histogram(UPDATE))

    def __call__(self, *, updates: int) -> dict[str, float]:
        """Everything but shares of time counts over all lives of the learner.

        Args:
          updates: so far. Each dreams the same number of Steps.
        """
        dreamed = updates * self.config.imagined_steps
        return {
            "real/steps": self.arena.end,
            "real/resets": self.ingest.resets,
            "dream/steps": dreamed,
            "dream/per_real": dreamed / max(self.arena.end, 1),
            "learner/policy_version": self.publisher.version,
            "replay/ratio": self.limiter.achieved(),
            "replay/ratio_target": self.limiter.ratio,
            "replay/steps": len(self.arena),
            "replay/fill": len(self.arena) / self.arena.capacity,
            "replay/bytes": self.ingest.segment_bytes,
            "replay/log_bytes": float(self.ingest.log_bytes),
            **{f"replay/chunks_{name}": n for name, n in self.ingest.counts.items()},
            **self.activity.metrics(),
            **self.update_seconds.metrics(),
        }
