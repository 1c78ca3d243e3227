"""A thread that runs calls one after another, so that a call that hangs can be given up.

One hand-off (about 10 microseconds) buys a whole list of calls; each call has its own deadline.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from system.errors import EnvironmentFault

Call = Callable[[], Any]

SLICE_S = 1.0
"""How often a wait looks up [s]."""


class Hang(EnvironmentFault):
    """A call passed its deadline; `stack` shows where it is."""

    def __init__(self, deadline_s: float, stack: str) -> None:
        super().__init__("hang", f"no answer within {deadline_s:g} s; it is at\n{stack}")


@dataclass(kw_only=True, slots=True)
class _Job:
    calls: Sequence[Call]
    outcomes: list[Any] = field(default_factory=list)
    """A value per finished call; an exception that was raised is a value too."""
    started_s: float = 0.0
    """When the running call began [s], monotonic."""
    abandoned: Call | None = None
    """Set when given up: the thread runs it once its call comes back, and ends."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Worker:
    """Runs calls in a daemon thread; after a hang, in a fresh one.

    The loop that uses it::

        outcomes = worker.run([env.step for env in copies], deadline_s=60, ...)
        if len(outcomes) < len(copies): ...   # the last outcome is a Hang; the rest did not run
    """

    def __init__(self) -> None:
        self._start()

    def run(
        self,
        calls: Sequence[Call],
        *,
        deadline_s: float,
        on_late: Callable[[int], None],
        while_waiting: Call,
    ) -> list[Any]:
        """Runs `calls` in order and returns what each returned or raised.

        Args:
          calls: run in order, in the thread.
          deadline_s: for each call [s].
          on_late: called in the abandoned thread with the call's index, once that call is back.
          while_waiting: called in this thread about every second while waiting.

        Returns:
          One outcome per call. If a call hangs its outcome is a Hang, the last one: calls after
          it have not run.
        """
        job = _Job(calls=calls, started_s=time.monotonic())
        self._inbox.put(job)
        while True:
            remaining_s = job.started_s + deadline_s - time.monotonic()
            try:
                return self._outbox.get(timeout=max(min(remaining_s, SLICE_S), 0.001)).outcomes
            except Empty:
                while_waiting()
            with job.lock:
                late = time.monotonic() > job.started_s + deadline_s
                if not late or len(job.outcomes) == len(calls):
                    continue
                index = len(job.outcomes)
                job.abandoned = functools.partial(on_late, index)
            return [*job.outcomes, self._give_up(deadline_s)]

    def close(self) -> None:
        """Ends the thread, once it is idle."""
        self._inbox.put(None)

    def _give_up(self, deadline_s: float) -> Hang:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "(the thread has ended)"
        self._start()
        return Hang(deadline_s, stack)

    def _start(self) -> None:
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._outbox: SimpleQueue[_Job] = SimpleQueue()
        self._thread = threading.Thread(
            target=_work, args=(self._inbox, self._outbox), name="env-worker", daemon=True
        )
        self._thread.start()


def _work(inbox: SimpleQueue[_Job | None], outbox: SimpleQueue[_Job]) -> None:
    while (job := inbox.get()) is not None:
        for call in job.calls:
            outcome = _outcome(call)
            with job.lock:
                if job.abandoned is None:
                    job.outcomes.append(outcome)
                    job.started_s = time.monotonic()
            if job.abandoned is not None:
                _outcome(job.abandoned)
                return
        outbox.put(job)


def _outcome(call: Call) -> Any:  # noqa: ANN401
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - user code may raise anything; it is the outcome
        return error
