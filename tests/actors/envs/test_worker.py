"""The thread that can be given up: nothing runs twice, nothing is lost, races included."""

import random
import threading
import time

import pytest

from actors.envs.worker import Hang, Worker
from tests.waiting import wait_until


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def ignore(*args):
    pass


def run(worker, calls, **settings):
    arguments = {"deadline_s": 5.0, "on_late": ignore, "while_waiting": ignore, **settings}
    return worker.run(calls, **arguments)


def test_returns_what_was_returned_and_raised(worker):
    error = KeyError("x")

    def fail():
        raise error

    assert run(worker, [lambda: 1, fail, lambda: 3]) == [1, error, 3]
    assert run(worker, []) == []


def test_each_call_has_its_own_deadline(worker):
    calls = [lambda: time.sleep(0.3)] * 5
    assert run(worker, calls, deadline_s=1.2) == [None] * 5


def test_a_hang_shows_where_it_is_and_later_calls_do_not_run(worker):
    release, ran, late = threading.Event(), [], []
    calls = [lambda: 1, lambda: release.wait(), lambda: ran.append(1)]
    outcomes = run(worker, calls, deadline_s=0.5, on_late=late.append)
    assert outcomes[0] == 1
    assert len(outcomes) == 2
    assert isinstance(outcomes[1], Hang)
    assert "release.wait" in str(outcomes[1])
    assert run(worker, [lambda: "alive"]) == ["alive"]
    assert not late
    release.set()
    while not late:
        time.sleep(0.001)
    assert late == [1]
    assert not ran


def test_calls_near_the_deadline_run_exactly_once(worker):
    draw = random.Random(0)
    hangs = 0
    for _ in range(60):
        counts = [0] * 4
        started = 0

        def call(i, counts=counts):
            counts[i] += 1
            time.sleep(draw.uniform(0, 0.004))

        while started < len(counts):
            calls = [lambda i=i, call=call: call(i) for i in range(started, len(counts))]
            outcomes = run(worker, calls, deadline_s=0.003)
            hangs += isinstance(outcomes[-1], Hang)
            started += len(outcomes)
        # An abandoned thread may not even have begun its call: it runs it late, but it runs it.
        wait_until(lambda counts=counts: 0 not in counts)
        assert counts == [1] * 4
    assert hangs > 0
