"""Is it learning, is it healthy?"""

from __future__ import annotations

import random
import statistics

import pytest

from deploy.actors_status import ActorsStatus
from deploy.dashboard.curve import CurvePoint
from deploy.dashboard.verdict import (
    ERRORS,
    LEAST_EVALUATIONS,
    PATIENCE,
    RECENT_S,
    Signs,
    health_of,
    learning_of,
    variance_of_one,
)
from system.control.protocol import Event


def evaluations(*means, std=1.0, episodes=4):
    return [
        CurvePoint(time_s=None, elapsed_s=float(n), frames=n, updates=n, kind="evaluation",
                   mean=float(mean), std=std, episodes=episodes)
        for n, mean in enumerate(means)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("means", "answer", "words"),
    [
        ((), "unknown", "no evaluation yet"),
        ((10,), "early", "1 of 4 evaluations"),
        ((10, 11, 9), "early", "3 of 4"),
        ((10, 50, 90, 130, 170, 210), "yes", "rose from 30.0 to 190.0"),
        ((10, 11, 10, 9, 11), "early", "no clear gain"),
        ((10, 11, 10, 9, 11, 10, 9, 10, 11), "no", "beyond the noise"),
        ((10, 60, 200, 480, 490, 485, 200, 80, 12, 10, 11, 9), "no", "fell back"),
        ((10, 200, 480, 490, 470, 480, 490, 480, 470, 400, 395, 390), "yes", "it was"),
        ((500, 500, 500, 500, 500, 500, 500, 500), "no", "not above"),
    ],
)
def test_the_answer(means, answer, words):
    learning = learning_of(evaluations(*means))
    assert (learning.answer, words in learning.text) == (answer, True), learning


def test_a_gain_within_the_noise_of_the_episodes_is_none():
    means = (10, 12, 11, 13, 12, 14, 13, 15, 14)
    assert learning_of(evaluations(*means, std=1.0)).answer == "yes"
    assert learning_of(evaluations(*means, std=20.0)).answer == "no"
    # The same spread says less if it is that of a few episodes.
    assert learning_of(evaluations(*means, std=20.0, episodes=400)).answer == "yes"


def test_pure_noise_is_seldom_taken_for_learning():
    rng = random.Random(1)
    answers = [
        learning_of(evaluations(*(100 + rng.gauss(0, 10) for _ in range(30)), std=10.0, episodes=1))
        for _ in range(400)
    ]
    assert sum(one.answer == "yes" for one in answers) < 0.06 * 400


def test_a_single_jump_is_a_gain_and_no_noise():
    assert learning_of(evaluations(20, 400, 400, 420)).answer == "yes"


def test_noise_alone_is_estimated_right():
    rng = random.Random(2)
    points = evaluations(*(rng.gauss(0, 10) for _ in range(4001)), std=0.0)
    assert variance_of_one(points) == pytest.approx(100.0, rel=0.1)


def test_the_variance_of_one_evaluation():
    points = evaluations(1, 4, 2, std=6.0, episodes=9)
    neighbours = statistics.median([(4 - 1) ** 2, (2 - 4) ** 2]) / 2 / 0.4549
    assert variance_of_one(points) == pytest.approx(max(6.0**2 / 9, neighbours))
    assert variance_of_one(evaluations(1, 1, 1, std=6.0, episodes=9)) == pytest.approx(4.0)
    assert variance_of_one([]) == 0.0
    assert (LEAST_EVALUATIONS, PATIENCE, ERRORS) == (4, 8, 2.0)


def event(kind, age_s=1.0):
    return Event(time_s=1000.0 - age_s, role="actor", slot=0, kind=kind, text="x")


def signs(**changes):
    base = {
        "alive": True, "ended": "", "trouble": "", "learner_up": True, "events": [],
        "actors": ActorsStatus(desired=2, running=2), "gap_alarm": False, "policy_age_s": 2.0,
        "now_s": 1000.0,
    }  # fmt: skip
    return Signs(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "answer", "words"),
    [
        ({}, "yes", "well"),
        ({"policy_age_s": None, "learner_up": None}, "yes", "well"),
        ({"trouble": "nobody answers at unix:///x"}, "warn", "old: nobody answers"),
        ({"learner_up": False}, "warn", "learner is not there"),
        ({"actors": ActorsStatus(desired=3, running=2, pending=1, reasons={"2": "no CPU is free"})},
         "warn", "1 of 3 actors are missing; actor 2: no CPU is free"),
        ({"gap_alarm": True}, "warn", "dream promises"),
        ({"policy_age_s": 90.0}, "warn", "90 s old"),
        ({"events": [event("actor_died")]}, "warn", "an actor died"),
        ({"events": [event("actor_died", RECENT_S + 1)]}, "yes", "well"),
        ({"events": [event("not_finite"), event("actor_died")]}, "no", "diverged"),
        ({"events": [event("disk_full")]}, "no", "disk"),
        ({"events": [event("disk_full", 9), event("disk_has_room", 3)]}, "yes", "well"),
        ({"events": [event("disk_has_room", 9), event("disk_full", 3)]}, "no", "disk"),
        ({"alive": False, "ended": "finished"}, "yes", "has finished"),
        ({"alive": False, "ended": "stopped"}, "yes", "has stopped"),
        ({"alive": False, "ended": "failed: NaN"}, "no", "failed: NaN"),
        ({"alive": False, "ended": "lost"}, "no", "lost"),
        ({"alive": False, "ended": ""}, "warn", "not running"),
    ],
)  # fmt: skip
def test_health(changes, answer, words):
    health = health_of(signs(**changes))
    assert (health.answer, words in health.text) == (answer, True), health


def test_every_kind_it_knows_is_one_that_is_counted():
    from deploy.dashboard.verdict import GRAVE, WORRYING
    from system.metrics import EVENT_KINDS

    assert set(GRAVE) | set(WORRYING) <= set(EVENT_KINDS)
