"""The statistics of docs/protocol.md: pure, deterministic, each with a slow twin in the tests.

::

    strata of scores -> interquartile mean, and its interval by a stratified bootstrap
    curves of seeds  -> one grid of frames (or seconds) -> mean and interval at each place
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 2_000
GRID = 101
"""Places of a common grid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One seed's returns against frames or seconds, by growing `at`."""

    at: Floats
    """float64 [P]: frames, or training time [s]."""
    values: Floats
    """float64 [P]: undiscounted return."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Mean over seeds along a grid, with its interval."""

    at: Floats
    """float64 [G]: frames, or training time [s]."""
    mean: Floats
    """float64 [G]."""
    low: Floats | None
    """float64 [G]: lower end of the 95 % interval; None for one seed."""
    high: Floats | None
    """float64 [G]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """95 % of the resampled statistics lie within."""

    low: Floats
    """float64 [...], as the statistic is shaped."""
    high: Floats


def iqm(scores: Floats, axis: int = -1) -> Floats:
    """Interquartile mean: the mean after the lowest and highest quarter are cut off.

    A quarter is rounded down, so that of fewer than four scores none is cut: then it is the mean.

    Args:
      scores: float64, n of them along `axis`.
      axis: of the scores.

    Source: Agarwal et al., Deep RL at the Edge of the Statistical Precipice, 2021.
    """
    ordered = np.sort(scores, axis=axis)
    count = ordered.shape[axis]
    middle = np.arange(count // 4, count - count // 4)
    return np.asarray(np.take(ordered, middle, axis=axis).mean(axis), np.float64)


def bootstrap(
    strata: Sequence[Floats],
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Percentile interval; runs are drawn with replacement within each stratum.

    Args:
      strata: one for each task, its runs' scores float64 [runs, ...]; drawn in this order.
      statistic: of resampled scores [resamples, runs of all strata, ...] along axis 1.
      resamples: how often.

    Returns:
      None if no stratum has two runs: there is nothing to draw from.
    """
    if all(len(scores) < 2 for scores in strata):
        return None
    dice = np.random.default_rng(0)
    drawn = [scores[dice.integers(len(scores), size=(resamples, len(scores)))] for scores in strata]
    values = statistic(np.concatenate(drawn, axis=1))
    tail = (1 - CONFIDENCE) / 2
    return Interval(low=np.quantile(values, tail, 0), high=np.quantile(values, 1 - tail, 0))


def common_grid(series: Sequence[Series], num_places: int = GRID) -> Floats:
    """Equal distances from where the last seed begins to where the first one ends, float64 [G].

    Nothing is extrapolated. Empty if the seeds do not overlap.
    """
    first = max(float(one.at[0]) for one in series)
    last = min(float(one.at[-1]) for one in series)
    return np.linspace(first, last, num_places) if first <= last else np.empty(0)


def on_grid(series: Series, grid: Floats) -> Floats:
    """Linear between the two nearest values; of values at one place the latest, float64 [G]."""
    latest = np.append(np.diff(series.at) > 0, True)
    return np.asarray(np.interp(grid, series.at[latest], series.values[latest]), np.float64)


def band(series: Sequence[Series]) -> Band:
    """Mean and interval of several seeds along their common grid."""
    grid = common_grid(series)
    values = np.stack([on_grid(one, grid) for one in series])
    interval = bootstrap([values], lambda drawn: drawn.mean(1))
    return Band(
        at=grid,
        mean=values.mean(0),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
    )


def windowed(at: Floats, values: Floats, edges: Floats) -> Floats:
    """Mean of the values in each window `edges[i] < at <= edges[i + 1]`, NaN where there is none.

    Args:
      at: float64 [P], growing.
      values: float64 [P].
      edges: float64 [W + 1], growing.

    Returns:
      float64 [W].
    """
    places = np.searchsorted(at, edges, side="right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    counts = np.diff(places)
    return np.where(counts > 0, np.diff(sums[places]) / np.maximum(counts, 1), np.nan)
