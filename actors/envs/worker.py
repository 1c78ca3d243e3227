"""A thread that runs calls one after another, so that a call that hangs can be given up.

::

    run(calls)       hands the calls over and waits for them, each with a deadline of its own
    near(work)       hands our own code over; its calls of `run` then need no hand-over at all

A hand-over stops two threads and wakes two, on a busy machine for milliseconds: what steps copies
again and again does so in here, and comes out for what may hang or takes long otherwise.
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
OnLate = Callable[[int], None]

SLICE_S = 1.0
"""How often a wait looks up [s]."""


class Hang(EnvironmentFault):
    """A call passed its deadline; `stack` shows where it is."""

    def __init__(self, deadline_s: float, stack: str) -> None:
        super().__init__("hang", f"no answer within {deadline_s:g} s; it is at\n{stack}")


class _Abandoned(BaseException):
    """Unwinds a thread that was given up: nobody waits for what it does."""


@dataclass(kw_only=True, slots=True)
class _Guard:
    """Calls under a deadline; none while our own code runs."""

    calls: Sequence[Call] = ()
    deadline_s: float = 0.0
    on_late: OnLate | None = None
    outcomes: list[Any] = field(default_factory=list)
    """A value per finished call; an exception that was raised is a value too."""
    started_s: float = 0.0
    """When the running call began [s], monotonic."""

    @property
    def remaining_s(self) -> float:
        """Until the running call is late [s]."""
        return self.started_s + self.deadline_s - time.monotonic() if self.calls else SLICE_S


@dataclass(kw_only=True, slots=True)
class _Job:
    work: Call
    """What the thread runs."""
    guard: _Guard = field(default_factory=_Guard)
    outcome: Any = None
    """What `work` returned or raised."""
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
        self, calls: Sequence[Call], *, deadline_s: float, on_late: OnLate, while_waiting: Call
    ) -> list[Any]:
        """Runs `calls` in order and returns what each returned or raised.

        Args:
          calls: run in order, in the thread.
          deadline_s: for each call [s].
          on_late: called in the abandoned thread with the call's index, once that call is back.
          while_waiting: called in this thread about every second while waiting.

        Returns:
          One outcome per call. If a call hangs its outcome is a Hang, the last one: calls after
          it have not run. Within `near`, the hang is `near`'s to tell, and this never returns.
        """
        guard = _Guard(
            calls=calls, deadline_s=deadline_s, on_late=on_late, started_s=time.monotonic()
        )
        if threading.get_ident() == self._thread.ident:
            return _run(self._job, guard)
        job = _Job(work=int, guard=guard)
        job.work = functools.partial(_run, job, guard)
        return self._late(job, while_waiting) or guard.outcomes

    def near(self, work: Call, *, while_waiting: Call) -> list[Any]:
        """Runs `work` in the thread; raises what it raises.

        Args:
          work: our own code, which has no deadline and keeps its state where it can be found.
          while_waiting: as in `run`, but never while `work` runs outside of a call.

        Returns:
          Nothing; or if a call of a `run` within hangs, the outcomes of that `run` so far, the last
          one a Hang. `work` has then been left for good at that call, its effects so far stay.
        """
        job = _Job(work=work)
        if late := self._late(job, while_waiting):
            return late
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return []

    def close(self) -> None:
        """Ends the thread, once it is idle."""
        self._inbox.put(None)

    def _late(self, job: _Job, while_waiting: Call) -> list[Any]:
        """Has the thread do a job. Returns nothing, or if a call hangs the outcomes before it."""
        self._job = job
        self._inbox.put(job)
        while True:
            try:
                self._outbox.get(timeout=max(min(job.guard.remaining_s, SLICE_S), 0.001))
            except Empty:
                # Locked: neither does our own code go on meanwhile, nor a late call come back.
                with job.lock:
                    guard = job.guard
                    if not guard.calls:
                        continue
                    while_waiting()
                    if guard.remaining_s >= 0:
                        continue
                    assert guard.on_late is not None
                    job.abandoned = functools.partial(guard.on_late, len(guard.outcomes))
                return [*guard.outcomes, self._give_up(guard.deadline_s)]
            return []

    def _give_up(self, deadline_s: float) -> Hang:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "(the thread has ended)"
        self._start()
        return Hang(deadline_s, stack)

    def _start(self) -> None:
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._outbox: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_work, args=(self._inbox, self._outbox), name="env-worker", daemon=True
        )
        self._thread.start()


def _work(inbox: SimpleQueue[_Job | None], outbox: SimpleQueue[None]) -> None:
    while (job := inbox.get()) is not None:
        try:
            job.outcome = _outcome(job.work)
        except _Abandoned:
            assert job.abandoned is not None
            _outcome(job.abandoned)
            return
        outbox.put(None)


def _run(job: _Job, guard: _Guard) -> list[Any]:
    """In the thread. Raises _Abandoned once a call comes back that was given up."""
    job.guard, lock = guard, job.lock
    for call in guard.calls:
        outcome = _outcome(call)
        with lock:
            if job.abandoned is not None:
                raise _Abandoned
            guard.outcomes.append(outcome)
            guard.started_s = time.monotonic()
            if len(guard.outcomes) == len(guard.calls):
                guard.calls = ()
    return guard.outcomes


def _outcome(call: Call) -> Any:  # noqa: ANN401
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - user code may raise anything; it is the outcome
        return error
