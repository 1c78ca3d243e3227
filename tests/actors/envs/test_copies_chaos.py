"""Isolated copies killed, stopped and failing at random: the Steps stay valid, all is counted."""

import os
import random
import signal

import numpy as np

from actors.config import EnvConfig
from actors.envs.batched import FaultTolerantEnv
from actors.envs.isolated import ProcessCopies
from tests.unruly_for_tests import NAME, action_for

COPIES = 3
BLOWS = ["strike", "kill", "raise", "segv"] * 4 + ["strike", "kill", "stop", "stop"]
"""A strike and a stop come from outside between two steps, the others from within a step."""
REPORTED = {"strike": "died", "stop": "hang", "kill": "died", "raise": "raised", "segv": "died"}
SIGNALS = {"strike": signal.SIGKILL, "stop": signal.SIGSTOP}


def test_twenty_blows_leave_valid_steps():
    draw = random.Random(0)
    blows = draw.sample(BLOWS, len(BLOWS))
    config = EnvConfig(name=NAME, isolate=True, step_deadline_s=4.0)
    copies = ProcessCopies(config, num_copies=COPIES, while_waiting=int)
    faults = []
    env = FaultTolerantEnv(
        copies,
        num_copies=COPIES,
        seed=(0, 0),
        on_fault=lambda copy, fault: faults.append((copy, fault.kind)),
    )
    expected, rows = [], [env.reset()]
    for blow in blows:
        good = action_for(*["good"] * COPIES)
        rows += [env.step(good) for _ in range(draw.randrange(1, 9))]
        victim = draw.randrange(COPIES)
        kinds = ["good"] * COPIES
        if blow in SIGNALS:
            os.kill(copies.pids[victim], SIGNALS[blow])
        else:
            kinds[victim] = blow
        rows.append(env.step(action_for(*kinds)))
        expected.append((victim, REPORTED[blow], len(rows) - 1))
    pids = copies.pids
    env.close()
    assert faults == [(copy, kind) for copy, kind, _ in expected]
    check(rows, {(row, copy) for copy, _, row in expected})
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def check(rows, faulty):
    """Each copy's rows are whole episodes of one environment, cut where it was struck."""
    marks = set()
    for copy in range(COPIES):
        mark, index = None, 0
        for i, row in enumerate(rows):
            shown = row.observation["vector"][copy]
            assert row.is_first[copy] == (i == 0 or (i, copy) in faulty)
            if row.is_first[copy]:
                mark, index = shown[0], 0
                assert mark not in marks
                marks.add(mark)
            assert np.array_equal(shown, np.float32([mark, index]))
            assert row.reward[copy] == index
            assert not row.is_last[copy]
            index += 1
