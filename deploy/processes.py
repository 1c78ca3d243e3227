"""What runs inside each process of a fleet: build one part, turn it until told to drain.

Plain Python: `deploy/topology.py` wraps these classes as Ray actors. `run` lives in one thread,
`drain` is called from another.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from actors.actor import Actor
from actors.stacks import StackWatch
from deploy.evaluator import Interrupted
from deploy.fleet import Order, Outcome
from deploy.parts import build_actor, build_evaluator, build_learner
from deploy.place import Place
from deploy.reconcile import EVALUATOR, LEARNER, Member
from learner.learner import Learner
from system.clock import Every
from system.errors import DiskFull, Fenced, Unavailable, UserError
from system.tick import Progress, Wait

ACTOR_NICENESS = 5
"""Actors and evaluation yield to the learner, which is what all wait for."""
STRIDE_S = 0.02
"""How long an actor acts before it looks up: a drain waits for so much more [s]."""
DRAIN_TURN_S = 0.01
PET_S = 1.0
WAITER_LOOK_S = 1.0
STUCK_SHARE = 0.8
"""Of the time after which a silent process is killed: then it writes down where it is."""
SETTLE_S = 2.0
"""How long a drained actor waits for the learner to make its last Chunks durable [s]."""


class Process:
    """One process of a fleet; a supervisor that takes over may ask for its end once more.

    The calls that use it::

        outcome = process.run()         # in one thread; blocks until the end
        process.drain(final=False)      # from another
    """

    def __init__(self, order: Order, member: Member) -> None:
        self._order, self._member = order, member
        self._log_path = Path(order.folder) / "log"
        self._watch: StackWatch | None = None
        self._pet_due = Every(PET_S)
        self._draining, self._over = threading.Event(), threading.Event()
        self._final = False
        self._lock, self._calls = threading.Lock(), 0
        self._outcome = Outcome(kind="failed", text="it has not run")

    def run(self) -> Outcome:
        """Works until drained; called again, waits for the same end."""
        with self._lock:
            self._calls += 1
            call = self._calls
        if call == 1:
            self._outcome = self._guarded()
            self._over.set()
        # Whoever asked before is dead: a thread of theirs each would use up those for `drain`.
        while not self._over.wait(WAITER_LOOK_S) and call == self._calls:
            pass
        return self._outcome

    def drain(self, *, final: bool) -> None:
        """Asks it to finish; `final`: the run is over, so only the last policy counts."""
        self._final = final
        self._draining.set()

    def _work(self) -> Outcome:
        raise NotImplementedError

    def _turned(self, turn: Progress | Wait, place: Place) -> None:
        """After every turn: it lives, and rests if there was nothing to do."""
        if self._pet_due(place.clock.now()):
            self._pet()
        if isinstance(turn, Wait):
            place.clock.sleep(turn.seconds)

    def _pet(self) -> None:
        if self._watch is not None:
            self._watch.pet()

    def _guarded(self) -> Outcome:
        if self._log_path.is_dir():  # else on another machine than the run folder: Ray keeps it
            _log_to(self._log_path / f"{self._member.file_name}.log")
            lost_after_s = self._order.record.config.fleet.lost_after_s
            path = self._log_path / f"{self._member.file_name}.stack"
            self._watch = StackWatch(path, STUCK_SHARE * lost_after_s)
        try:
            return self._work()
        except Fenced as error:
            return Outcome(kind="fenced", text=str(error))
        except (UserError, DiskFull) as error:
            return Outcome(kind="refused", text=str(error))
        except Exception as error:  # noqa: BLE001 - whatever ended it is the outcome
            traceback.print_exc()
            sys.stderr.flush()
            return Outcome(kind="failed", text=f"{type(error).__name__}: {error}")
        finally:
            if self._watch is not None:
                self._watch.close()


class ActorProcess(Process):
    """One actor slot. A drain seals and sends what it has, unless nobody reads it any more."""

    def __init__(self, order: Order, slot: int) -> None:
        super().__init__(order, Member("actor", slot))

    def _work(self) -> Outcome:
        os.nice(ACTOR_NICENESS)
        torch.set_num_threads(self._order.record.config.actor.torch_threads)
        slot = self._member.slot
        torch.manual_seed(self._order.record.config.seed + 1 + slot)
        place = self._order.place("actor")
        actor = build_actor(self._order.record, slot, place, on_heartbeat=self._pet)
        try:
            while not self._draining.is_set():
                self._turned(actor.tick(STRIDE_S), place)
            self._flush(actor, place)
        finally:
            actor.close()
        return Outcome(kind="drained")

    def _flush(self, actor: Actor, place: Place) -> None:
        """Until the store has everything; then a little longer, until all of it is durable."""
        while not self._final and actor.drain() != Progress("drained"):
            place.clock.sleep(DRAIN_TURN_S)
        until_s = place.clock.now() + SETTLE_S
        while not self._final and not actor.settled and place.clock.now() < until_s:
            actor.drain()
            place.clock.sleep(DRAIN_TURN_S)


class LearnerProcess(Process):
    """The learner: until the frame limit or until drained; saves in both cases."""

    def __init__(self, order: Order) -> None:
        super().__init__(order, LEARNER)

    def _work(self) -> Outcome:
        place = self._order.place("learner")
        learner = self._built(place)
        if learner is None:
            return Outcome(kind="drained")
        while not (self._draining.is_set() or learner.finished):
            self._turned(learner.tick(), place)
        learner.close()
        return Outcome(kind="finished" if learner.finished else "drained")

    def _built(self, place: Place) -> Learner | None:
        """Restored, and with an epoch of its own: this needs Redis. None if drained before."""
        while not self._draining.is_set():
            try:
                return build_learner(self._order.record, Path(self._order.folder), place)
            except Unavailable as error:
                sys.stderr.write(f"waiting for Redis: {error}\n")
                self._turned(Wait("redis", 1.0), place)
        return None


class EvaluatorProcess(Process):
    """The evaluator: until drained; a final drain measures the last policy first."""

    def __init__(self, order: Order) -> None:
        super().__init__(order, EVALUATOR)
        self._interrupt: Callable[[], None] = lambda: None

    def drain(self, *, final: bool) -> None:
        """Asks it to exit; with `final`, after it has measured the last policy."""
        # Before `set`: the last evaluation, which follows it, must not be the one interrupted; nor
        # by a supervisor that takes over and asks once more.
        if not (final and self._draining.is_set()):
            self._interrupt()
        super().drain(final=final)

    def _work(self) -> Outcome:
        os.nice(ACTOR_NICENESS)
        torch.set_num_threads(1)
        place = self._order.place("evaluator")
        evaluator = build_evaluator(self._order.record, Path(self._order.folder), place)
        self._interrupt = evaluator.interrupt
        try:
            while not self._draining.is_set():
                self._turned(evaluator.tick(), place)
            if self._final:
                with contextlib.suppress(Interrupted):
                    evaluator.finish()
        finally:
            evaluator.close()
        return Outcome(kind="drained")


def _log_to(path: Path) -> None:
    """What this process says, and its last words, go to a file of the run."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(path, flags, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    faulthandler.enable(file=2)
