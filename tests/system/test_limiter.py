"""The limiter: never a deadlock, debt within bounds, ratio kept in every window."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from system.errors import ConfigError
from system.limiter import ReplayLimiter


class LimiterMachine(RuleBasedStateMachine):
    """Inserts and updates in any order the limiter allows."""

    longest = 64

    @initialize(
        ratio=st.one_of(st.integers(1, 1024), st.floats(1, 64)),
        update_steps=st.integers(1, 2048),
        min_steps=st.integers(1, 2000),
    )
    def begin(self, ratio, update_steps, min_steps):
        self.limiter = ReplayLimiter(ratio=ratio, update_steps=update_steps, min_steps=min_steps)

    @precondition(lambda self: self.limiter.may_insert())
    @rule(length=st.integers(1, longest))
    def insert(self, length):
        self.limiter.inserted += length

    @precondition(lambda self: self.limiter.may_insert())
    @rule(chunks=st.integers(1, 40))
    def insert_burst(self, chunks):
        for _ in range(chunks):
            if not self.limiter.may_insert():
                break
            self.limiter.inserted += self.longest

    @precondition(lambda self: self.limiter.may_update())
    @rule(times=st.integers(1, 2000))
    def update(self, times):
        for _ in range(times):
            if not self.limiter.may_update():
                break
            self.limiter.replayed += self.limiter.update_steps

    @rule()
    def restart(self):
        """A restart carries only the counts."""
        old = self.limiter
        self.limiter = ReplayLimiter(
            ratio=old.ratio, update_steps=old.update_steps, min_steps=old.min_steps,
            inserted=old.inserted, replayed=old.replayed,
        )  # fmt: skip

    @invariant()
    def exactly_one_side_may_go_on(self):
        assert self.limiter.may_update() != self.limiter.may_insert()

    @invariant()
    def debt_stays_within_bounds(self):
        limiter = self.limiter
        slack = 1e-6 * max(1.0, limiter.ratio * limiter.inserted)  # float ratios round
        if limiter.inserted < limiter.min_steps:
            assert limiter.replayed == 0
        else:
            assert limiter.debt >= -slack
        assert limiter.debt < limiter.update_steps + limiter.ratio * self.longest + slack


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase


def _run(limiter, longest, updates, seed):
    """Actors come and go: data arrive in bursts, sometimes nothing. -> (inserted, replayed)s."""
    generator, waiting, history = random.Random(seed), 0, []
    while len(history) < updates:
        if limiter.may_update():
            limiter.replayed += limiter.update_steps
            history.append((limiter.inserted, limiter.replayed))
        elif waiting:
            limiter.inserted += generator.choice([longest, generator.randint(1, longest)])
            waiting -= 1
        else:
            waiting += generator.choice([0, 1, 1, 3, 50])
    return history


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("ratio", "update_steps", "longest"), [(64, 512, 32), (512, 1024, 32), (1, 64, 16)]
)
def test_windowed_ratio_within_10_percent_and_cumulative_within_5(
    ratio, update_steps, longest, seed
):
    limiter = ReplayLimiter(ratio=ratio, update_steps=update_steps, min_steps=1024)
    history = _run(limiter, longest, 2200, seed)
    for (inserted, replayed), (later, more) in zip(history, history[200:], strict=False):
        assert (more - replayed) / (later - inserted) == pytest.approx(ratio, rel=0.1)
    for inserted, replayed in history[1000:]:
        assert replayed / (inserted - 1024) == pytest.approx(ratio, rel=0.05)
    assert limiter.achieved() == pytest.approx(ratio, rel=0.05)


def test_nothing_before_min_steps():
    limiter = ReplayLimiter(ratio=64, update_steps=10, min_steps=100)
    limiter.inserted = 99
    assert limiter.may_insert()
    limiter.inserted = 100  # these are not owed for
    assert limiter.may_insert()
    assert limiter.achieved() == 0.0
    limiter.inserted = 101
    assert limiter.may_update()
    assert ReplayLimiter(ratio=1, update_steps=1, min_steps=1).achieved() == 0.0


@pytest.mark.parametrize("name", ["ratio", "update_steps", "min_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_would_hang_are_refused(name, value):
    with pytest.raises(ConfigError, match=r"must be greater than 0$"):
        ReplayLimiter(**{"ratio": 1, "update_steps": 1, "min_steps": 1, name: value})


@pytest.mark.parametrize("ratio", [float("nan"), float("inf")])
def test_ratios_that_are_no_number_are_refused(ratio):
    with pytest.raises(ConfigError):
        ReplayLimiter(ratio=ratio, update_steps=1, min_steps=1)


def test_documented_bound_right_after_min_steps():
    limiter = ReplayLimiter(ratio=512, update_steps=1024, min_steps=1040)
    while limiter.may_insert():
        limiter.inserted += 64
    assert limiter.debt < limiter.update_steps + limiter.ratio * 64
