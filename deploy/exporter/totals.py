"""Counts that never go backwards, although those who count die and begin anew. Pure.

::

    life 1    0 .. 70 .. 95 x                     seen last: 95
    life 2                     0 .. 12            seen last: 12
    total     0 .. 70 .. 95 .. 95 .. 107          sum of what was seen of every life

Lives are told apart by when they began. The newest few are kept apart, so that one that was stopped
and goes on beside its successor adds to its own count; older ones are folded into one base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from system.message import MAX_INTEGER
from system.metrics import COUNTED

KEPT_LIVES = 4
Counts = dict[str, int]
"""Snapshot key -> count."""


class Totals:
    """All lives of one process.

    The loop that uses it::

        totals.see(started_s, counts_of(snapshot.values))
        totals.values()
    """

    def __init__(self) -> None:
        self.base: Counts = {}
        """Of lives that are not kept apart any more."""
        self.lives: dict[float, Counts] = {}
        """When it began [s] -> the most that was seen of it; lately seen last."""
        self.starts = 0
        """Lives seen."""

    def see(self, started_s: float, counts: Mapping[str, int]) -> None:
        """What one life says now; what it said before is never taken back."""
        known = self.lives.pop(started_s, None)
        if known is None:
            self.starts += 1
            known = {}
        grown = {key: max(count, known.get(key, 0)) for key, count in counts.items()}
        self.lives[started_s] = known | grown
        while len(self.lives) > KEPT_LIVES:
            oldest = next(iter(self.lives))
            self.base = _joined(self.base, self.lives.pop(oldest))

    def values(self) -> Counts:
        """Over all lives."""
        total = self.base
        for counts in self.lives.values():
            total = _joined(total, counts)
        return total


def counts_of(values: Mapping[str, float]) -> Counts:
    """The counts among the numbers of a snapshot; what cannot be one is left out."""
    return {
        key: math.floor(value)
        for key, value in values.items()
        if key in COUNTED and 0 <= value <= MAX_INTEGER / 2
    }


def _joined(one: Counts, other: Counts) -> Counts:
    """Counts that a restart resumes are the greater of both, others their sum; bounded."""
    joined = dict(one)
    for key, count in other.items():
        before = joined.get(key, 0)
        total = max(before, count) if COUNTED[key].resumes else before + count
        joined[key] = min(total, MAX_INTEGER)
    return joined
