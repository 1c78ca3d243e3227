"""What runs inside each process of a fleet: build one part, turn it until told to drain.

Plain Python: `deploy/topology.py` wraps these classes as Ray actors. `run` lives in one thread,
`drain` is called from another.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from actors.actor import Actor
from deploy.parts import build_actor, build_evaluator, build_learner
from deploy.place import Place, redis_place
from deploy.run_folder import RunRecord
from system.errors import Fenced, UserError
from system.tick import Progress, Wait

ACTOR_NICENESS = 5
"""Actors and evaluation yield to the learner, which is what all wait for."""


DRAIN_TURN_S = 0.01
SETTLE_S = 2.0
"""How long a drained actor waits for the learner to make its last Chunks durable [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a process ended, when it ended in order."""

    kind: str
    """`finished`, `drained`, `fenced` or `refused` (a mistake of the user: restarting is vain)."""
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a process is told; can be sent to another machine."""

    record: RunRecord
    folder: str
    redis: str

    def place(self) -> Place:
        """Where it meets the others."""
        return redis_place(self.redis, self.record.run_id)


class ActorProcess:
    """One actor slot."""

    def __init__(self, order: Order, slot: int) -> None:
        self._order, self._slot = order, slot
        self._draining = threading.Event()
        self._final = False

    def run(self) -> Outcome:
        """Acts until drained."""
        os.nice(ACTOR_NICENESS)
        torch.set_num_threads(self._order.record.config.actor.torch_threads)
        torch.manual_seed(self._order.record.config.seed + 1 + self._slot)
        return _outcome(self._run, self._order, f"actor-{self._slot}")

    def drain(self, *, final: bool) -> None:
        """Asks it to seal and send what it has, and to exit; `final`: nobody reads it any more."""
        self._final = final
        self._draining.set()

    def _run(self) -> Outcome:
        place = self._order.place()
        actor = build_actor(self._order.record, self._slot, place)
        try:
            while not self._draining.is_set():
                _rest(actor.tick(), place)
            self._drain(actor, place)
        finally:
            actor.close()
        return Outcome(kind="drained")

    def _drain(self, actor: Actor, place: Place) -> None:
        """Until the store has everything; then a little longer, until all of it is durable."""
        while not self._final and actor.drain() != Progress("drained"):
            place.clock.sleep(DRAIN_TURN_S)
        until_s = place.clock.now() + SETTLE_S
        while not self._final and not actor.settled and place.clock.now() < until_s:
            actor.drain()
            place.clock.sleep(DRAIN_TURN_S)


class LearnerProcess:
    """The learner."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._draining = threading.Event()

    def run(self) -> Outcome:
        """Learns until the frame limit or until drained; saves in both cases."""
        return _outcome(self._run, self._order, "learner")

    def drain(self, *, final: bool) -> None:
        """Asks it to save and exit."""
        self._draining.set()

    def _run(self) -> Outcome:
        place = self._order.place()
        learner = build_learner(self._order.record, Path(self._order.folder), place)
        while not (self._draining.is_set() or learner.finished):
            _rest(learner.tick(), place)
        learner.close()
        return Outcome(kind="finished" if learner.finished else "drained")


class EvaluatorProcess:
    """The evaluator."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._draining = threading.Event()
        self._final = False
        self._interrupt: Callable[[], None] = lambda: None

    def run(self) -> Outcome:
        """Measures policies until drained."""
        os.nice(ACTOR_NICENESS)
        torch.set_num_threads(1)
        return _outcome(self._run, self._order, "evaluator")

    def drain(self, *, final: bool) -> None:
        """Asks it to exit; with `final`, after it has measured the last policy."""
        self._final = final
        # Before `set`: the last evaluation, which follows it, must not be the one interrupted.
        self._interrupt()
        self._draining.set()

    def _run(self) -> Outcome:
        place = self._order.place()
        evaluator = build_evaluator(self._order.record, Path(self._order.folder), place)
        self._interrupt = evaluator.interrupt
        try:
            while not self._draining.is_set():
                _rest(evaluator.tick(), place)
            if self._final:
                evaluator.finish()
        finally:
            evaluator.close()
        return Outcome(kind="drained")


def _rest(turn: Progress | Wait, place: Place) -> None:
    if isinstance(turn, Wait):
        place.clock.sleep(turn.seconds)


def _outcome(run: Callable[[], Outcome], order: Order, name: str) -> Outcome:
    """Turns what no restart can mend, or what is no failure, into an outcome."""
    _log_to(Path(order.folder) / "log", name)
    try:
        return run()
    except Fenced as error:
        return Outcome(kind="fenced", text=str(error))
    except UserError as error:
        return Outcome(kind="refused", text=str(error))
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        raise


def _log_to(folder: Path, name: str) -> None:
    """What this process says, and its last words, go to a file of the run."""
    if not folder.is_dir():
        return  # on another machine than the run folder: Ray keeps it
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(folder / f"{name}.log", flags, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    faulthandler.enable(file=2)
