"""A contender's side of the comparison: does its updates when told, and says how long they took.

Imported by scripts that run in environments of their own, so it needs nothing but Python::

    answers = turns.stdout_for_answers()            # before anything prints
    ...
    turns.take(answers, update, {"version": "1.0"})     # until stdin ends

Told `5` on a line of stdin, it answers `{"wall_ms": [...], "cpu_ms": [...]}` on a line of stdout,
five times each; before the first, with the facts it is given. CPU time is that of all its threads.
"""

from __future__ import annotations

import json
import os
import sys
import time


def stdout_for_answers():
    """The real stdout; whatever is printed from here on goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def take(answers, update, facts):
    """Warms `update` up, then takes turns. `update` returns only when its work is finished."""
    started = time.perf_counter()
    update()
    first_s = time.perf_counter() - started
    for _ in range(2):
        update()
    _say(answers, {**facts, "first_update_s": first_s})
    for line in sys.stdin:
        wall, cpu = [], []
        for _ in range(int(line)):
            started, used = time.perf_counter(), time.process_time()
            update()
            wall.append(1e3 * (time.perf_counter() - started))
            cpu.append(1e3 * (time.process_time() - used))
        _say(answers, {"wall_ms": wall, "cpu_ms": cpu})


def _say(answers, record):
    print(json.dumps(record), file=answers, flush=True)
