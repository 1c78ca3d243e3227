"""When something is due."""

from __future__ import annotations

import math

from system.clock import Thinned


def test_a_pause_grows_with_the_time_so_far() -> None:
    thinned = Thinned(least_s=10.0, share=0.1)
    assert [t for t in range(401) if thinned(t)] == [
        0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 121, 134, 148, 163, 180, 198, 218, 240,
        264, 291, 321, 354, 390,
    ]  # fmt: skip


def test_a_run_of_a_year_leaves_few_marks() -> None:
    thinned = Thinned(least_s=10.0, share=1e-3)
    year_s = 365 * 86_400
    marks, t = 0, 0.0
    while t < year_s:
        marks += thinned(t)
        t = max(t + 10.0, t * 1.001)
    assert marks < 1000 + 1000 * math.log(year_s / 10_000.0) + 10
