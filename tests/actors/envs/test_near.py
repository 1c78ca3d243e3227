"""Steps taken near the copies equal steps taken from outside, whatever the copies do."""

import threading
import time

import numpy as np
import pytest

from actors.config import EnvConfig
from actors.envs.registry import make_env
from actors.envs.worker import Hang, Worker
from system.errors import EnvironmentFault
from tests.envs_for_tests import PLANS, PREFIX, Plan
from tests.waiting import wait_until

ZERO = np.zeros((3, 2), np.float32)


@pytest.fixture
def build(request):
    made = []

    def build(misbehave, **args):
        name = f"{request.node.name}-{len(made)}"
        plan = PLANS[name] = Plan(dict(misbehave))
        faults = []
        config = EnvConfig(
            name=PREFIX + "Counting-v0", args={"plan": name, **args}, step_deadline_s=1.0
        )
        env = make_env(
            config, num_copies=3, seed=0, on_fault=lambda i, fault: faults.append((i, fault.kind))
        )
        made.append((env, plan))
        return env, faults, plan

    yield build
    for env, plan in made:
        plan.release.set()
        env.close()


def from_outside(env, count):
    return [env.reset(), *(env.step(ZERO) for _ in range(count))]


def near(env, count):
    rows, threads = [env.reset()], set()

    def work():
        threads.add(threading.current_thread())
        while len(rows) <= count:
            rows.append(env.step(ZERO))

    while len(rows) <= count:
        if (mended := env.near(work)) is not None:
            rows.append(mended)
    assert threading.current_thread() not in threads
    return rows


@pytest.mark.parametrize(
    "misbehave",
    [
        {},
        {(1, 2): "raise"},
        {(0, 3): "nan", (2, 3): "raise"},
        {(1, 4): "shape", (3, 0): "raise", (4, 2): "bounds"},
        {(1, 2): "hang"},
        {(0, 2): "hang", (2, 2): "hang", (1, 2): "raise"},
    ],
    ids=str,
)
def test_the_same_rows_and_faults(build, misbehave):
    (outside, wanted, _), (inside, faults, _) = build(misbehave), build(misbehave)
    for one, other in zip(from_outside(outside, 12), near(inside, 12), strict=True):
        assert np.array_equal(one.observation["vector"], other.observation["vector"])
        for name in ("reward", "is_first", "is_last", "is_terminal"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
    assert faults == wanted
    assert len(faults) == len(misbehave)


def test_a_thread_that_was_given_up_does_nothing_more_than_close_its_copy(build):
    env, faults, plan = build({(1, 2): "hang"}, length=50)
    rows = near(env, 6)
    assert faults == [(1, "hang")]
    assert plan.closed == []
    plan.release.set()
    wait_until(lambda: plan.closed == [1])
    assert len(rows) == 7
    assert env.step(ZERO).observation["vector"][:, 1].tolist() == [7, 5, 7]


def test_five_faults_in_a_row_stop_acting(build):
    env, faults, _ = build({(life, 1): "raise" for life in range(1, 20)}, length=50)
    with pytest.raises(EnvironmentFault, match="copy 1 failed 5 times in a row"):
        near(env, 12)
    assert [copy for copy, _ in faults].count(1) == 5


def test_what_is_raised_there_is_raised_here(build):
    env, _, _ = build({})
    env.reset()

    def fail():
        env.step(ZERO)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        env.near(fail)
    assert env.step(ZERO).observation["vector"][:, 1].tolist() == [2, 2, 2]


def test_our_own_code_has_no_deadline(monkeypatch):
    monkeypatch.setattr("actors.envs.worker.SLICE_S", 0.02)
    worker, waited, seen = Worker(), [], []

    def call(calls):
        return worker.run(calls, deadline_s=0.1, on_late=seen.append, while_waiting=int)

    def work():
        seen.append(call([lambda: 1]))
        time.sleep(0.3)
        seen.append(call([lambda: 2, lambda: 3]))

    assert worker.near(work, while_waiting=lambda: waited.append(1)) == []
    assert (seen, waited) == ([[1], [2, 3]], [])
    release = threading.Event()
    late = worker.near(lambda: call([lambda: 4, release.wait, lambda: 5]), while_waiting=int)
    assert late[0] == 4
    assert isinstance(late[1], Hang)
    release.set()
    wait_until(lambda: seen[-1] == 1)
    worker.close()
