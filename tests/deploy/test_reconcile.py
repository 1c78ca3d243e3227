"""The pure half of the supervisor."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.reconcile import (
    EVALUATOR,
    LEARNER,
    RAISED_STABLE_S,
    STABLE_S,
    Drain,
    Kill,
    Member,
    Observed,
    Phase,
    Rules,
    Start,
    Wanted,
    backoff_s,
    failures_in_a_row,
    reconcile,
)

RULES = Rules(
    lost_after_s=60, start_after_s=180, grace_s=15, backoff_first_s=0.5, backoff_longest_s=30
)
ACTOR = Member("actor", 0)
ALIVE = Observed(phase=Phase.ALIVE, since_s=0, seen_s=0)


def test_an_empty_fleet_starts_learner_first():
    actions = reconcile(Wanted(actors=2), {}, 0.0, RULES)
    assert [action.member for action in actions] == [LEARNER, ACTOR, Member("actor", 1), EVALUATOR]
    assert all(isinstance(action, Start) and not action.reason for action in actions)


def test_a_fleet_as_wished_is_left_alone():
    observed = dict.fromkeys([LEARNER, EVALUATOR, ACTOR], ALIVE)
    assert reconcile(Wanted(actors=1), observed, 30.0, RULES) == []


def test_scaling_down_drains_then_kills_after_the_grace():
    observed = dict.fromkeys([LEARNER, EVALUATOR, ACTOR], ALIVE)
    wanted = Wanted(actors=0)
    assert reconcile(wanted, observed, 1.0, RULES) == [Drain(ACTOR)]
    observed[ACTOR] = Observed(phase=Phase.DRAINING, since_s=1.0)
    assert reconcile(wanted, observed, 15.9, RULES) == []
    assert reconcile(wanted, observed, 16.1, RULES) == [Kill(ACTOR, "not drained within 15 s")]


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(0, 0), (1, 0.5), (2, 1), (3, 2), (7, 30), (5000, 30)]
)
def test_the_pause_doubles_up_to_its_limit(failures, pause_s):
    assert backoff_s(failures, RULES) == pause_s


def test_a_failed_member_restarts_after_its_pause_with_the_reason():
    failed = Observed(phase=Phase.FAILED, since_s=10, failures=3, reason="killed")
    observed = {LEARNER: ALIVE, EVALUATOR: ALIVE, ACTOR: failed}
    assert reconcile(Wanted(actors=1), observed, 11.9, RULES) == []
    assert reconcile(Wanted(actors=1), observed, 12.0, RULES) == [Start(ACTOR, "killed")]


def test_silence_kills_a_wanted_member():
    started = Observed(phase=Phase.ALIVE, since_s=0, placed_s=0)
    assert reconcile(Wanted(actors=0), {LEARNER: started, EVALUATOR: ALIVE}, 59, RULES) == []
    observed = {LEARNER: started, EVALUATOR: replace(ALIVE, seen_s=181)}
    assert reconcile(Wanted(actors=0), observed, 181, RULES) == [
        Kill(LEARNER, "no sign of life for 181 s")
    ]
    observed = {LEARNER: replace(ALIVE, seen_s=100), EVALUATOR: replace(ALIVE, seen_s=161)}
    assert reconcile(Wanted(actors=0), observed, 161, RULES) == [
        Kill(LEARNER, "no sign of life for 61 s")
    ]


def test_failures_in_a_row_forget_a_stable_life():
    unseen = Observed(phase=Phase.ALIVE, since_s=0, failures=4)
    assert failures_in_a_row(unseen, 10.0, raised=False) == 5
    lived = Observed(phase=Phase.ALIVE, since_s=0, seen_s=STABLE_S, failures=4)
    assert failures_in_a_row(lived, STABLE_S, raised=False) == 1
    assert failures_in_a_row(lived, STABLE_S, raised=True) == 5
    assert failures_in_a_row(lived, RAISED_STABLE_S, raised=True) == 1


members = st.sampled_from([LEARNER, EVALUATOR, *(Member("actor", slot) for slot in range(4))])
times = st.floats(0, 1000)
observations = st.builds(
    Observed, phase=st.sampled_from(Phase), since_s=times, seen_s=st.none() | times,
    failures=st.integers(0, 20), reason=st.just("why"),
)  # fmt: skip
wishes = st.builds(Wanted, actors=st.integers(0, 4), learner=st.booleans(), evaluator=st.booleans())


@given(wishes, st.dictionaries(members, observations), times)
def test_never_two_actions_nor_a_start_of_the_living(wanted, observed, now_s):
    actions = reconcile(wanted, observed, now_s, RULES)
    touched = [action.member for action in actions]
    assert len(touched) == len(set(touched))
    for action in actions:
        phase = observed.get(action.member, Observed()).phase
        if isinstance(action, Start):
            assert action.member in wanted
            assert phase in (Phase.ABSENT, Phase.FAILED)
        if isinstance(action, Drain):
            assert action.member not in wanted
            assert phase is Phase.ALIVE


@given(wishes, st.dictionaries(members, observations))
def test_it_converges_when_processes_obey(wanted, observed):
    """Start makes alive, drain and kill make absent: within a few turns nothing is left to do."""
    now_s = 2000.0
    for _ in range(4):
        for action in reconcile(wanted, observed, now_s, RULES):
            alive = isinstance(action, Start)
            observed[action.member] = Observed(
                phase=Phase.ALIVE if alive else Phase.ABSENT, since_s=now_s, seen_s=now_s
            )
        now_s += 1
    assert reconcile(wanted, observed, now_s, RULES) == []
    alive = {member for member, seen in observed.items() if seen.phase is Phase.ALIVE}
    assert alive == set(wanted.members)
