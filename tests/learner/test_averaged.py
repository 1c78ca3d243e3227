"""The average that acts, against its formula; and that it is what is broadcast, saved, resumed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from learner.averaged import Averaged
from system.errors import ConfigError
from tests.learning_for_tests import learner_config, make_batch, make_learning, make_spec, perturb


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.3])
def test_average_is_the_sum_of_all_pasts_each_with_its_weight(rate):
    fast = nn.Linear(3, 2)
    averaged = Averaged({"fast": fast}, rate)
    slow = averaged.modules_by_name()["fast"]
    pasts = [copy.deepcopy(fast)]
    for count in range(1, 41):
        perturb(fast, count)
        averaged.follow(torch.tensor(float(count), dtype=torch.float64))
        pasts.append(copy.deepcopy(fast))
    # What is left of each past after all later moves; the initial weights are gone at once.
    rates = [1.0, *(max(rate, 10.0 / (9.0 + count)) for count in range(1, 41))]
    shares = []
    for t, own in enumerate(rates):
        left = own
        for later in rates[t + 1 :]:
            left *= 1.0 - later
        shares.append(left)
    assert shares[0] == 0.0
    assert sum(shares) == pytest.approx(1.0)
    for name, value in slow.named_parameters():
        expected = sum(
            share * past.get_parameter(name).detach().double()
            for share, past in zip(shares, pasts, strict=True)
        )
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_it_follows_the_weights_that_the_optimizer_moves_and_learns_nothing_itself():
    learning = make_learning(acting_rate=0.25)
    trained = learning.optimizer.flat.numel()
    assert trained == make_learning().optimizer.flat.numel()
    policy, broadcast = learning.behavior.policy, learning.acting_modules()["policy"]
    first = [p.clone() for p in broadcast.parameters()]
    for _ in range(3):
        learning.update(make_batch(make_spec()))
    for p, before, fast in zip(broadcast.parameters(), first, policy.parameters(), strict=True):
        assert p.grad is None
        assert not torch.equal(p, before)
        assert not torch.equal(p, fast)


def test_what_learns_is_the_same_with_and_without():
    plain, with_average = make_learning(), make_learning(acting_rate=0.01)
    for learning in (plain, with_average):
        torch.manual_seed(5)
        for _ in range(2):
            learning.update(make_batch(make_spec()))
    assert torch.equal(plain.optimizer.flat, with_average.optimizer.flat)
    assert plain.acting_modules()["policy"] is plain.behavior.policy


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(ConfigError, match=r"acting_rate.*0\.\.1"):
        learner_config(acting_rate=rate)
