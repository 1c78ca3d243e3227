"""Who holds the others up: the rule against a queue that is played second by second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bottleneck import WORDS, Diagnosis, Load, diagnose, gain_of, load_of
from system.control.protocol import ProcessMetrics
from system.metrics import ACTOR_ACTIVITIES, LEARNER_ACTIVITIES


def played(actors: int, step_s: float, update_s: float, seconds: float = 400.0, lead: int = 50):
    """Rate and waits of a fleet, moment by moment: each Step costs an actor and the learner time.

    A slow literal twin: actors stop when they are `lead` Steps ahead, the learner at none.
    """
    tick_s, left = min(step_s, update_s) / 8, 0
    acting, learning = [step_s * (k + 1) / actors for k in range(actors)], 0.0
    waited_actors = waited_learner = taken = now_s = 0.0
    while now_s < seconds:
        now_s += tick_s
        for k in range(actors):
            if left >= lead:
                waited_actors += tick_s / actors
                continue
            acting[k] -= tick_s
            if acting[k] <= 0:
                acting[k] += step_s
                left += 1
        if learning <= 0 and left:
            left, learning = left - 1, learning + update_s
        if learning <= 0:
            waited_learner += tick_s
            continue
        learning -= tick_s
        if learning <= 0:
            taken += 1
    return taken / seconds, waited_actors / seconds, waited_learner / seconds


@pytest.mark.parametrize(
    ("actors", "step_s", "update_s"),
    [(1, 1.0, 0.2), (1, 1.0, 0.7), (2, 1.0, 0.3), (4, 1.0, 0.1), (3, 1.0, 0.45), (2, 0.5, 1.0)],
)
def test_the_gain_is_that_of_a_fleet_that_is_played(actors, step_s, update_s):
    rate, actors_wait, learner_wait = played(actors, step_s, update_s)
    more, _, _ = played(actors + 1, step_s, update_s)
    said = gain_of(actors, actors_wait=actors_wait, learner_wait=learner_wait)
    assert said == pytest.approx(more / rate - 1, abs=0.05)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_the_gain_is_never_more_than_one_part_in_n(actors, actors_wait, learner_wait):
    gain = gain_of(actors, actors_wait=actors_wait, learner_wait=learner_wait)
    assert 0 <= gain <= 1 / actors + 1e-9
    simple = gain_of(actors, actors_wait=0.0, learner_wait=min(learner_wait, 0.99))
    w = min(learner_wait, 0.99)
    assert simple == pytest.approx(min(1 / actors, w / (1 - w)))
    assert gain_of(actors, actors_wait=actors_wait, learner_wait=0.0) == pytest.approx(0)


def load(acting, learning, **more):
    return Load(actors=2, acting=acting, learning=learning, **more)


BUSY = {"env": 0.7, "policy": 0.25, "write": 0.05, "wait": 0.0}
IDLE = {"env": 0.1, "policy": 0.1, "wait": 0.8}
LEARNS = {"world_model": 0.5, "dream": 0.3, "wait": 0.01, "other": 0.19}
WAITS = {"world_model": 0.2, "insert": 0.1, "wait": 0.7}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (load(IDLE, LEARNS), Diagnosis(
            bottleneck="learner", gain_ratio=0.0,
            text="The learner is the limit: it works 100% of the time, mostly on the world model, "
            "and actors wait 80% of theirs; one more actor would gain nothing.")),
        (load(BUSY, WAITS), Diagnosis(
            bottleneck="actors", gain_ratio=0.5,
            text="Actors are the limit: the learner waits for Steps 70% of the time, and they work "
            "mostly on the environment; one more actor would bring about 50% more frames per "
            "second.")),
        (load({"env": 0.2, "policy": 0.1, "write": 0.7}, WAITS), Diagnosis(
            bottleneck="network", gain_ratio=None,
            text="The network is the limit: actors spend 70% of their time sending, and the "
            "learner waits for Steps 70% of the time.")),
        (load(BUSY, WAITS, redis_up=False), Diagnosis(
            bottleneck="redis", gain_ratio=0.0,
            text="Redis does not answer; everybody waits for it.")),
        (load(BUSY, WAITS, redis_fill=0.98), Diagnosis(
            bottleneck="redis", gain_ratio=0.0,
            text="Redis is 98% full and takes no more Steps.")),
        (load(BUSY, {}), Diagnosis(
            bottleneck="unknown", gain_ratio=None, text="No learner tells how busy it is.")),
        (Load(actors=0, acting={}, learning=WAITS), Diagnosis(
            bottleneck="unknown", gain_ratio=None, text="Not enough is known yet.")),
    ],
)  # fmt: skip
def test_each_limit_is_named(given, expected):
    found = diagnose(given)
    assert found.gain_ratio == (
        None if expected.gain_ratio is None else pytest.approx(expected.gain_ratio)
    )
    assert (found.bottleneck, found.text) == (expected.bottleneck, expected.text)


def test_snapshots_become_a_load():
    def said(role, slot, **shares):
        values = {f"{role}/share_{name}": share for name, share in shares.items()}
        return ProcessMetrics(role=role, slot=slot, time_s=0.0, values=values | {f"{role}/x": 9.0})

    found = load_of(
        [said("actor", 0, env=0.8, wait=0.2), said("actor", 1, env=0.4, policy=0.6),
         said("actor", 2, starting=1.0), said("learner", 0, dream=0.3, wait=0.7),
         said("evaluator", 0, wait=1.0)]
    )  # fmt: skip
    assert found == Load(
        actors=2,
        acting={"env": pytest.approx(0.6), "wait": 0.1, "policy": 0.3},
        learning={"dream": 0.3, "wait": 0.7},
    )
    assert load_of([]) == Load(acting={}, learning={})


def test_every_activity_has_a_word():
    assert {*ACTOR_ACTIVITIES, *LEARNER_ACTIVITIES} - {"wait"} == set(WORDS)
