"""Reset rule, seeds, and what a copy may do without stopping the others."""

import numpy as np
import pytest

from actors.config import EnvConfig
from actors.envs.batched import MAX_FAULTS_IN_A_ROW, copy_seed
from actors.envs.registry import make_env
from system.errors import EnvironmentFault
from tests.envs_for_tests import PLANS, PREFIX, Plan
from tests.waiting import wait_until

ZERO = np.zeros((3, 2), np.float32)


@pytest.fixture
def build(request):
    name = request.node.name
    made = []

    def build(misbehave=None, *, deadline_s=20.0, num_copies=3, while_waiting=int, **args):
        PLANS[name] = Plan(misbehave or {})
        faults = []
        config = EnvConfig(
            name=PREFIX + "Counting-v0", args={"plan": name, **args}, step_deadline_s=deadline_s
        )
        env = make_env(
            config,
            num_copies=num_copies,
            seed=0,
            on_fault=lambda *fault: faults.append(fault),
            while_waiting=while_waiting,
        )
        made.append(env)
        return env, faults, PLANS[name]

    yield build
    PLANS[name].release.set()
    for env in made:
        env.close()


def test_reset_rule(build):
    env, faults, _ = build(length=2)
    steps = [env.reset(), *(env.step(ZERO) for _ in range(6))]
    assert [step.is_first[0] for step in steps] == [1, 0, 0, 1, 0, 0, 1]
    assert [step.is_last[0] for step in steps] == [0, 0, 1, 0, 0, 1, 0]
    assert [step.is_terminal[0] for step in steps] == [0, 0, 1, 0, 0, 1, 0]
    assert [step.reward[0] for step in steps] == [0, 1, 2, 0, 1, 2, 0]
    assert [step.observation["vector"][0, 1] for step in steps] == [0, 1, 2, 0, 1, 2, 0]
    assert not faults


def test_truncation_is_not_terminal(build):
    env, _, _ = build(length=1, terminates=False)
    env.reset()
    step = env.step(ZERO)
    assert step.is_last.all()
    assert not step.is_terminal.any()


def test_a_time_step_never_changes(build):
    env, _, _ = build()
    first = env.reset()
    kept = {key: array.copy() for key, array in first.observation.items()}
    for _ in range(12):
        env.step(ZERO)
    assert all(np.array_equal(first.observation[key], kept[key]) for key in kept)
    assert first.is_first.all()


def test_copies_and_slots_have_their_own_seeds(build):
    seeds = [
        copy_seed((0, slot), copy, life)
        for slot in range(4)
        for copy in range(4)
        for life in (0, 1)
    ]
    assert len(set(seeds)) == len(seeds)
    marks = [build()[0].reset().observation["vector"][:, 0].tolist() for _ in range(2)]
    assert marks[0] == marks[1]
    assert len(set(marks[0])) == 3


def test_a_seed_begins_anew(build):
    env, _, _ = build()
    marks = [env.reset(seed=seed).observation["vector"][:, 0].tolist() for seed in (1, 2, 1, None)]
    assert marks[0] == marks[2]
    assert marks[0] != marks[1]
    assert marks[3] != marks[2]


@pytest.mark.parametrize("action", [np.zeros((2, 2)), np.full((3, 2), np.nan)])
def test_a_bad_action_is_the_callers_mistake(build, action):
    env, _, _ = build()
    env.reset()
    with pytest.raises(ValueError, match="action must be finite"):
        env.step(action.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "reported", "detail"),
    [
        ("raise", "raised", "the motor is on fire"),
        ("nan", "outside_space", r"vector\[0\] is nan"),
        ("bounds", "outside_space", r"vector\[1\] is 150"),
        ("shape", "outside_space", r"shape \(1,\) instead of \(2,\)"),
    ],
)
@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_faulty_copy_is_rebuilt_and_the_others_go_on(build, kind, reported, detail, at):
    env, faults, plan = build({(1, at): kind}, length=9)
    steps = [env.reset(), *(env.step(ZERO) for _ in range(6))]
    assert [(copy, fault.kind) for copy, fault in faults] == [(1, reported)]
    with pytest.raises(EnvironmentFault, match=detail):
        raise faults[0][1]
    assert plan.lives == 4
    assert plan.closed == [1]
    for i, step in enumerate(steps):
        assert step.observation["vector"][:, 1].tolist() == [i, i if i < at else i - at, i]
        assert step.is_first.tolist() == [i == 0, i in (0, at), i == 0]
        assert step.reward[1] == (i if i < at else i - at)
        assert not step.is_last.any()


def test_two_faults_in_one_step_and_a_rebuild_that_fails(build):
    env, faults, _ = build({(0, 1): "nan", (2, 1): "raise", (3, 0): "raise", (4, 0): "shape"})
    env.reset()
    step = env.step(ZERO)
    assert [copy for copy, _ in faults] == [0, 0, 0, 2]
    assert step.is_first.tolist() == [True, False, True]


def test_faults_in_a_row_stop_acting(build):
    env, faults, _ = build({(life, 1): "raise" for life in range(1, 20)})
    env.reset()
    message = r"(?s)copy 1 failed 5 times in a row.*on fire"
    for _ in range(MAX_FAULTS_IN_A_ROW - 1):
        env.step(ZERO)
    with pytest.raises(EnvironmentFault, match=message) as raised:
        env.step(ZERO)
    assert raised.value.kind == "raised"
    assert sum(copy == 1 for copy, _ in faults) == MAX_FAULTS_IN_A_ROW


def test_a_good_step_between_forgives(build):
    env, faults, _ = build({(life, 2): "raise" for life in range(20)}, num_copies=1, length=99)
    env.reset()
    for _ in range(2 * 3 * MAX_FAULTS_IN_A_ROW):
        env.step(ZERO[:1])
    assert len(faults) > 2 * MAX_FAULTS_IN_A_ROW


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_hang_is_abandoned_with_its_stack(build, at):
    env, faults, plan = build({(1, at): "hang"}, deadline_s=1.0, length=9)
    steps = [env.reset(), *(env.step(ZERO) for _ in range(4))]
    assert [(copy, fault.kind) for copy, fault in faults] == [(1, "hang")]
    assert "self.plan.release.wait" in str(faults[0][1])
    assert "envs_for_tests.py" in str(faults[0][1])
    assert [step.observation["vector"][:, 1].tolist() for step in steps] == [
        [i, i if i < at else i - at, i] for i in range(5)
    ]
    assert plan.closed == []
    kept = steps[at].observation["vector"].copy()
    plan.release.set()
    wait_until(lambda: plan.closed == [1])
    assert np.array_equal(steps[at].observation["vector"], kept)
    assert env.step(ZERO).observation["vector"][:, 1].tolist() == [5, 5 - at, 5]


def test_all_copies_hang(build):
    env, faults, _ = build({(life, 1): "hang" for life in range(3)}, deadline_s=1.0)
    env.reset()
    assert env.step(ZERO).is_first.all()
    assert [(copy, fault.kind) for copy, fault in faults] == [(0, "hang"), (1, "hang"), (2, "hang")]


def test_somebody_is_told_while_waiting(build, monkeypatch):
    monkeypatch.setattr("actors.envs.worker.SLICE_S", 0.05)
    calls = []
    env, faults, _ = build({(1, 1): "hang"}, deadline_s=1.0, while_waiting=lambda: calls.append(1))
    env.reset()
    env.step(ZERO)
    assert len(calls) >= 4
    assert len(faults) == 1
