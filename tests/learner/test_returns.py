"""Lambda-returns and their scale, against the recursion of the paper and the explicit sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.returns import ReturnScale, lambda_return
from tests import references


def _case(N, T, seed=0):
    random = np.random.default_rng([N, T, seed])
    return (
        random.normal(size=(N, T)) * 10,
        random.uniform(0.0, 1.0, (N, T)),
        (random.random((N, T)) < 0.8).astype(float),
        random.normal(size=(N, T)) * 10,
    )


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(("N", "T"), [(1, 2), (1, 16), (5, 7), (32, 3)])
def test_both_twins(N, T, lam):
    case = _case(N, T)
    ours = lambda_return(*map(torch.from_numpy, case), lam)
    wanted = references.lambda_return(*case, lam)
    np.testing.assert_allclose(references.lambda_return_sum(*case, lam), wanted, atol=1e-9)
    np.testing.assert_allclose(ours, wanted, atol=1e-9)
    single = lambda_return(*(torch.from_numpy(x).float() for x in case), lam)
    np.testing.assert_allclose(single, wanted, rtol=1e-4, atol=1e-4)


def test_lambda_one_is_the_discounted_sum_and_zero_is_one_step():
    reward, value = torch.tensor([[9.0, 1.0, 2.0, 4.0]]), torch.tensor([[9.0, 9.0, 9.0, 8.0]])
    alive, ones = torch.full((1, 4), 0.5), torch.ones(1, 4)
    assert lambda_return(reward, alive, ones, value, 1.0).tolist() == [
        [1 + 0.5 * (2 + 0.5 * (4 + 0.5 * 8)), 2 + 0.5 * (4 + 0.5 * 8), 4 + 0.5 * 8]
    ]
    assert lambda_return(reward, alive, ones, value, 0.0).tolist() == [[5.5, 6.5, 8.0]]


def test_nothing_is_worth_anything_after_the_end_but_its_reward():
    reward, value = torch.tensor([[0.0, 3.0, 100.0]]), torch.full((1, 3), 50.0)
    alive = torch.tensor([[1.0, 0.0, 1.0]])
    returns = lambda_return(reward, alive, torch.ones(1, 3), value, 0.95)
    assert returns[0, 0].item() == 3.0


def test_a_cut_episode_bootstraps_and_is_not_followed():
    reward, value = torch.tensor([[0.0, 3.0, 100.0]]), torch.tensor([[0.0, 7.0, 50.0]])
    flows = torch.tensor([[1.0, 0.0, 1.0]])
    returns = lambda_return(reward, torch.ones(1, 3), flows, value, 0.95)
    assert returns[0, 0].item() == 10.0


def test_gradient_of_the_return():
    case = [torch.from_numpy(x).requires_grad_() for x in _case(2, 4)]
    case[2] = case[2].detach()
    assert torch.autograd.gradcheck(
        lambda r, a, v: lambda_return(r, a, case[2], v, 0.95), (case[0], case[1], case[3])
    )


@pytest.mark.parametrize("count", [1, 7, 64, 1921])
def test_return_scale_follows_its_twin(count):
    scale, low, high = ReturnScale(0.01), 0.0, 0.0
    random = np.random.default_rng(count)
    for size in (1.0, 500.0, 500.0, 0.1):
        returns = random.normal(size=count).astype(np.float32) * size
        ours = scale.update(torch.from_numpy(returns).view(-1, 1))
        low, high, wanted = references.return_scale(low, high, returns.astype(float), 0.01)
        assert ours.item() == pytest.approx(wanted, rel=1e-5)
        assert scale.low.item() == pytest.approx(low, rel=1e-4, abs=1e-6)
        assert scale.high.item() == pytest.approx(high, rel=1e-4, abs=1e-6)


def test_nearest_rank_is_close_to_the_interpolated_percentile():
    values = np.random.default_rng(0).normal(size=128 * 15)
    for share in (0.05, 0.95):
        near = references.nearest_rank(values, share)
        assert near == pytest.approx(np.percentile(values, 100 * share), abs=0.02)


def test_small_returns_are_not_blown_up():
    assert ReturnScale(1.0).update(torch.linspace(0, 0.1, 50)).item() == 1.0
    assert ReturnScale(1.0).update(torch.linspace(0, 100, 101)).item() == pytest.approx(90.0)
