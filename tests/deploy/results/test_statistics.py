"""Each statistic against a slow, literal twin."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import numpy as np
import pytest

from deploy.results.statistics import (
    Series,
    band,
    bootstrap,
    common_grid,
    iqm,
    on_grid,
    windowed,
)


def slow_iqm(scores):
    ordered = sorted(scores)
    cut = int(0.25 * len(ordered))
    return statistics.fmean(ordered[cut : len(ordered) - cut])


@pytest.mark.parametrize("count", range(1, 18))
def test_the_interquartile_mean(count):
    dice = np.random.default_rng(count)
    scores = dice.normal(size=count) * 100
    assert float(iqm(scores)) == pytest.approx(slow_iqm(scores.tolist()))
    rows = dice.normal(size=(4, count, 3))
    expected = [[slow_iqm(rows[i, :, j].tolist()) for j in range(3)] for i in range(4)]
    np.testing.assert_allclose(iqm(rows, 1), expected)


def test_outliers_do_not_move_it():
    assert float(iqm(np.array([1.0, 2.0, 3.0, 4.0]))) == 2.5
    assert float(iqm(np.array([-1e9, 2.0, 3.0, 1e9]))) == 2.5


def slow_interval(strata, statistic, resamples, seed):
    dice = random.Random(seed)
    found = sorted(
        statistic([dice.choice(runs) for runs in strata for _ in runs]) for _ in range(resamples)
    )
    return found[int(0.025 * resamples)], found[int(0.975 * resamples)]


@pytest.mark.parametrize("sizes", [(5,), (3, 5), (8, 2, 4)])
def test_the_interval_is_that_of_a_literal_bootstrap(sizes):
    dice = np.random.default_rng(len(sizes))
    # Strata far apart: drawn across them, the interval would be many times as wide.
    strata = [100 * index + dice.normal(size=size) for index, size in enumerate(sizes)]
    found = bootstrap(strata, lambda drawn: iqm(drawn, 1), resamples=4000)
    low, high = slow_interval([s.tolist() for s in strata], slow_iqm, 4000, 7)
    width = high - low
    assert float(found.low) == pytest.approx(low, abs=0.15 * width)
    assert float(found.high) == pytest.approx(high, abs=0.15 * width)


def test_it_is_the_same_every_time_and_none_for_single_runs():
    scores = [np.arange(5.0)]
    first, again = (bootstrap(scores, lambda drawn: drawn.mean(1)) for _ in range(2))
    assert (first.low, first.high) == (again.low, again.high)
    assert bootstrap([np.ones(1), np.ones(1)], lambda drawn: drawn.mean(1)) is None


def test_it_covers_the_mean_about_as_often_as_it_says():
    """Twelve runs; a percentile interval of so few is known to be a little narrow."""
    dice, hits = np.random.default_rng(5), 0
    for _ in range(300):
        found = bootstrap([dice.normal(size=12)], lambda drawn: drawn.mean(1), resamples=300)
        hits += bool(found.low <= 0 <= found.high)
    assert 0.85 <= hits / 300 <= 0.98


def slow_on_grid(at, values, place):
    """The latest value at this very place, or linear between its neighbours."""
    same = [value for x, value in zip(at, values, strict=True) if x == place]
    if same:
        return same[-1]
    before = max(index for index, x in enumerate(at) if x < place)
    after = min(index for index, x in enumerate(at) if x > place)
    last_after = max(index for index, x in enumerate(at) if x == at[after])
    share = (place - at[before]) / (at[after] - at[before])
    return values[before] + share * (values[last_after] - values[before])


@pytest.mark.parametrize("seed", range(8))
def test_values_on_a_grid(seed):
    dice = np.random.default_rng(seed)
    at = np.sort(dice.integers(0, 40, size=12)).astype(np.float64)
    values = dice.normal(size=12)
    grid = np.linspace(at[0], at[-1], 37)
    found = on_grid(Series(at=at, values=values), grid)
    expected = [slow_on_grid(at.tolist(), values.tolist(), place) for place in grid.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_common_grid_extrapolates_nothing():
    series = [
        Series(at=np.array([0.0, 50.0, 100.0]), values=np.zeros(3)),
        Series(at=np.array([10.0, 80.0]), values=np.ones(2)),
    ]
    grid = common_grid(series, 8)
    assert (grid[0], grid[-1], len(grid)) == (10.0, 80.0, 8)
    found = band(series)
    np.testing.assert_allclose(found.mean, 0.5)
    assert found.low is not None
    apart = [Series(at=np.array([0.0, 1.0]), values=np.zeros(2)),
             Series(at=np.array([5.0, 6.0]), values=np.zeros(2))]  # fmt: skip
    assert len(band(apart).mean) == 0


@pytest.mark.parametrize("seed", range(8))
def test_means_in_windows(seed):
    dice = np.random.default_rng(seed)
    at = np.sort(dice.integers(0, 30, size=25)).astype(np.float64)
    values = dice.normal(size=25)
    edges = np.array([0.0, 4.0, 4.5, 10.0, 29.0])
    found = windowed(at, values, edges)
    for index, (low, high) in enumerate(pairwise(edges)):
        inside = [v for x, v in zip(at, values, strict=True) if low < x <= high]
        if inside:
            assert found[index] == pytest.approx(statistics.fmean(inside))
        else:
            assert np.isnan(found[index])
    assert np.isnan(windowed(np.empty(0), np.empty(0), edges)).all()
