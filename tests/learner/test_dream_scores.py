"""Error, parting step and gap against slow literal twins, and where they must be 0 and 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learner.dream_scores import (
    LEAST_REWARD,
    LEAST_VARIANCE,
    PARTING_ERROR,
    error_by_horizon,
    gap_of,
    parting_step,
    windowed_return,
)
from system.dream import GAP_ALARM


def observations(seed, N=5, H=7):
    random = np.random.default_rng(seed)
    return {
        "height": random.normal(size=(N, H)),
        "position": random.normal(size=(N, H, 3)) * [1, 10, 0.1] + 5,
        "image": random.integers(0, 256, (N, H, 2, 2, 3)).astype(float),
    }


def tensors(arrays):
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


def slow_error(dreamed, real, here, variance):
    """One number at a time, as the decision record says it."""
    N, H = here.shape
    result = []
    for h in range(H):
        shares = []
        present = [n for n in range(N) if here[n, h]]
        for name in dreamed:
            flat = variance[name].reshape(-1)
            squares = [0.0] * len(flat)
            for element in range(len(flat)):
                for n in present:
                    off = dreamed[name][n, h].reshape(-1)[element]
                    off = off - real[name][n, h].reshape(-1)[element]
                    squares[element] += off * off / len(present)
            if variance[name].ndim == 3:
                shares.append(sum(squares) / sum(flat))
            else:
                shares += [s / v for s, v in zip(squares, flat, strict=True) if v > LEAST_VARIANCE]
        result.append(sum(shares) / len(shares))
    return result


def test_error_is_that_of_its_slow_twin():
    dreamed, real = observations(0), observations(1)
    here = np.random.default_rng(2).random((5, 7)) < 0.7
    here[0] = True
    variance = {name: values.var((0, 1)) for name, values in real.items()}
    variance["position"][1] = 0.0
    found = error_by_horizon(
        tensors(dreamed), tensors(real), torch.from_numpy(here), tensors(variance)
    )
    assert found.tolist() == pytest.approx(slow_error(dreamed, real, here, variance), rel=1e-5)


def test_a_perfect_dream_has_error_0_and_one_of_the_mean_has_error_1():
    real = observations(3, N=400, H=4)
    everywhere = torch.ones(400, 4, dtype=torch.bool)
    variance = tensors({name: values.var((0, 1)) for name, values in real.items()})
    perfect = error_by_horizon(tensors(real), tensors(real), everywhere, variance)
    assert perfect.tolist() == [0.0] * 4
    assert parting_step(perfect) is None
    mean = {
        name: np.broadcast_to(values.mean((0, 1)), values.shape) for name, values in real.items()
    }
    errors = error_by_horizon(tensors(mean), tensors(real), everywhere, variance)
    assert float(errors.mean()) == pytest.approx(1.0, abs=1e-4), "the variance is that of this data"
    assert errors.tolist() == pytest.approx([1.0] * 4, abs=0.1)
    assert parting_step(errors) == 1


def test_what_does_not_vary_says_nothing():
    still = {"clock": np.zeros((2, 3, 2))}
    variance = tensors({"clock": np.zeros(2)})
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    errors = error_by_horizon(tensors(still), tensors(still), everywhere, variance)
    assert errors.tolist() == [0.0] * 3


def test_a_wild_dream_stays_a_number():
    wild = {"a": torch.full((1, 2, 1), 1e30)}
    real = {"a": torch.zeros(1, 2, 1)}
    errors = error_by_horizon(wild, real, torch.ones(1, 2).bool(), {"a": torch.tensor([1e-6])})
    assert torch.isfinite(errors).all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([0.1, 0.5, 0.5], None), ([0.6, 0.1, 0.1], 1), ([0.1, 0.2, 0.51], 3), ([0.1, 0.9, 0.1], 2)],
)
def test_the_parting_step_is_the_first_beyond_half_of_the_variance(errors, expected):
    assert PARTING_ERROR == 0.5
    assert parting_step(torch.tensor(errors)) == expected


def slow_return(rewards, alive, counts):
    total, weight = 0.0, 1.0
    for reward, goes_on, known in zip(rewards, alive, counts, strict=True):
        if known:
            total += weight * reward
        weight *= goes_on
    return total


def test_a_windowed_return_is_that_of_its_slow_twin():
    random = np.random.default_rng(4)
    reward, alive = random.normal(size=(3, 2, 6)), random.random((3, 2, 6))
    counts = random.random((3, 2, 6)) < 0.8
    found = windowed_return(*(torch.from_numpy(each) for each in (reward, alive, counts)))
    for n in range(3):
        for k in range(2):
            expected = slow_return(reward[n, k], alive[n, k], counts[n, k])
            assert float(found[n, k]) == pytest.approx(expected)


def test_nothing_is_earned_after_a_terminal_step():
    reward = torch.tensor([1.0, 1.0, 100.0])
    alive = 0.9 * (~torch.tensor([False, True, False])).float()
    assert float(windowed_return(reward, alive, torch.ones(3).bool())) == pytest.approx(1.9)


def test_the_gap_is_the_mean_distance_relative_to_the_real_returns():
    real = torch.tensor([10.0, -10.0])
    gap = gap_of(real, torch.tensor([15.0, -15.0]), real + 20.0, horizon=3, discount=0.5)
    assert (gap.real_return, gap.dreamed_return, gap.policy_return) == (0.0, 0.0, 20.0)
    assert gap.ratio == pytest.approx(0.5), "opposite mistakes do not cancel"
    assert gap.policy_ratio == pytest.approx(2.0)
    assert not gap.alarm
    assert gap_of(real, 1.6 * real, real, horizon=3, discount=0.5).alarm
    assert GAP_ALARM == 0.5


def test_returns_of_next_to_nothing_raise_no_alarm():
    nothing = torch.zeros(4)
    gap = gap_of(nothing, nothing + 0.004, nothing, horizon=3, discount=0.5)
    assert gap.ratio == pytest.approx(0.004 / (LEAST_REWARD * (1 + 0.5 + 0.25)))
    assert not gap.alarm
    assert math.isfinite(gap_of(nothing, nothing, nothing, horizon=1, discount=0.9).ratio)
