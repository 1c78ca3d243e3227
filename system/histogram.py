"""How often a measured value was small, middling or large: counts that lives can be added up of.

::

    env step 0.7 ms -> counts[<= 1 ms] += 1, sum += 700 us      in the process that measured it
    snapshot: "actor/env_step/le_0.001": 1, "actor/env_step/sum": 700
    exporter: sums over lives and slots -> dreamfleet_env_step_seconds_bucket{run, role, le}
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

MICRO = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Buckets:
    """Where the lines are drawn, once for all processes."""

    stem: str
    """Begins the keys of a snapshot."""
    bounds: tuple[float, ...]
    """Upper ends, growing, in the unit of the metric; one more bucket holds what is above."""
    parts: int = MICRO
    """The sum is counted in whole parts of the unit, so many to one."""

    @property
    def keys(self) -> list[str]:
        """Snapshot keys of the counts, one a bucket, the last one without end."""
        return [f"{self.stem}/le_{bound:g}" for bound in (*self.bounds, float("inf"))]

    @property
    def sum_key(self) -> str:
        """Snapshot key of the sum [1 / parts]."""
        return f"{self.stem}/sum"


ENV_STEP = Buckets(
    stem="actor/env_step",
    bounds=(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
"""One step of all copies [s]."""
POLICY_AGE = Buckets(
    stem="actor/age", bounds=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
)
"""Age of the acting policy at each heartbeat [s]."""
CHUNK_BYTES = Buckets(
    stem="actor/chunk_bytes", bounds=tuple(2.0**power for power in range(10, 27, 2)), parts=1
)
"""Columns of one sealed Chunk [bytes]."""
UPDATE = Buckets(
    stem="learner/update", bounds=(5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
)
"""One update, with the broadcast, the dream report and the checkpoint that were due [s]."""


class Histogram:
    """Counts of one process.

    The loop that uses it::

        histogram.observe(spent_s)
        histogram.metrics()            # now and then, for the heartbeat
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._counts = [0] * (len(buckets.bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more value, in the unit of the metric; not NaN."""
        self._counts[bisect_left(self._buckets.bounds, value)] += 1
        self._sum += value

    def metrics(self) -> dict[str, float]:
        """All counts since the process began; those that are zero are left out."""
        counts = zip(self._buckets.keys, self._counts, strict=True)
        values = {key: float(count) for key, count in counts if count}
        if values:
            values[self._buckets.sum_key] = float(round(self._sum * self._buckets.parts))
        return values
