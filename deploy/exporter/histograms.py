"""Histograms of a run by role: the counts of every life of every slot, added up. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from deploy.exporter.merge import RunView
from deploy.exporter.totals import Counts
from system.histogram import Buckets
from system.metric import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleHistogram:
    """What one role of a run has measured."""

    role: str
    cumulative: list[int]
    """Values up to each bound, all values at last."""
    total: float
    """Sum of all values, in the unit of the metric."""

    def rows(self, buckets: Buckets) -> list[tuple[str, float]]:
        """As Prometheus' client takes them: (`le`, count)."""
        bounds = [repr(float(bound)) for bound in buckets.bounds]
        return list(zip([*bounds, "+Inf"], map(float, self.cumulative), strict=True))


def by_role(metric: Metric, view: RunView) -> Iterator[RoleHistogram]:
    """One histogram for each role that has processes and measures this."""
    buckets = metric.buckets
    assert buckets is not None
    for role in sorted({source.role for source in metric.sources}):
        those: list[Counts] = [one.counts for one in view.processes if one.place.role == role]
        if those:
            each = [sum(counts.get(key, 0) for counts in those) for key in buckets.keys]
            parts = sum(counts.get(buckets.sum_key, 0) for counts in those)
            yield RoleHistogram(
                role=role, cumulative=list(accumulate(each)), total=parts / buckets.parts
            )
