"""Many ticks in one: the same Chunks, the same waits, the same errors."""

import numpy as np
import pytest

from system.errors import Fenced
from system.log.memory import MemoryLog
from system.tick import Progress, Wait
from tests.actors.fleet_for_tests import Fleet
from tests.envs_for_tests import PLANS, PREFIX, Plan

LONG_S = 60.0
"""The clock stands still, so a stride ends when it must wait, or at a fault."""


@pytest.fixture
def fleet():
    made = []

    def build(**args):
        made.append(Fleet(**args))
        return made[-1]

    yield build
    for each in made:
        each.actor.close()


def started(one, *, granted):
    one.grant(0, incarnation=0)
    one.clock.sleep(1.0)
    one.turn(1)
    one.grant(granted)
    one.clock.sleep(1.0)
    return one


def test_acts_until_it_must_wait(fleet):
    one = started(fleet(spool_chunks=2), granted=6)
    turn = one.actor.tick(LONG_S)
    assert isinstance(turn, Wait)
    assert turn.reason == "credit"
    assert len(one.stored()) == 6
    assert one.actor.numbers()["actor/agent_steps"] > 2 * 8


def test_without_time_it_is_one_step(fleet):
    one = started(fleet(), granted=1000)
    before = one.actor.numbers()["actor/agent_steps"]
    assert one.actor.tick() == Progress("acted")
    assert one.actor.numbers()["actor/agent_steps"] == before + 2


def test_faults_leave_the_same_chunks(fleet):
    found = []
    for seconds in (0.0, LONG_S):
        name = f"stride-{seconds}"
        PLANS[name] = Plan({(1, 6): "raise", (0, 11): "nan"})
        one = started(
            fleet(name=PREFIX + "Counting-v0", plan=name, length=50, spool_chunks=4), granted=16
        )
        turn = Progress("acted")
        while turn == Progress("acted"):
            turn = one.actor.tick(seconds)
        assert turn.reason == "credit"
        assert one.actor.numbers()["actor/faults"] == 2
        found.append(one.stored())
    assert len(found[0]) == 16
    for ours, theirs in zip(*found, strict=True):
        assert (ours.entry_id, ours.copy, ours.first_step) == (
            theirs.entry_id, theirs.copy, theirs.first_step,
        )  # fmt: skip
        for name, column in theirs.fields.items():
            assert np.array_equal(ours.fields[name], column)


def test_a_fence_is_felt(fleet):
    log = MemoryLog()
    one = started(fleet(log=log), granted=1000)
    assert one.actor.tick() == Progress("acted")
    assert fleet(log=log).actor.tick() == Progress("claimed")
    with pytest.raises(Fenced):
        one.actor.tick(LONG_S)
