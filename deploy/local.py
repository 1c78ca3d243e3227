"""One process: actors, learner and evaluator take turns over a log in memory.

::

    while not finished:  learner.tick(), actor.tick() ..., evaluator.tick()

The same objects as in `deploy/topology.py`; for debugging, for tests, for machines without Ray.
"""

from __future__ import annotations

from pathlib import Path

from actors.actor import Actor
from deploy.evaluator import Evaluator
from deploy.parts import build_actor, build_evaluator, build_learner
from deploy.place import Place, memory_place
from deploy.run_folder import RunRecord
from learner.learner import Learner
from system.tick import Progress, Wait

DRAIN_S = 3.0
"""Longest time at a stop to read what the actors still have; the rest is lost [s]."""


class LocalRun:
    """The one-process twin.

    The loop that uses it::

        run = LocalRun(record, folder)
        while not run.finished:
            run.turn()
        run.close()
    """

    def __init__(self, record: RunRecord, folder: Path) -> None:
        self.place: Place = memory_place()
        self.place.control.change_desired(actors=record.config.fleet.actors)
        # The learner first: actors can claim their slots only when it has spoken.
        self.learner: Learner = build_learner(record, folder, self.place)
        slots = range(record.config.fleet.actors)
        self.actors: list[Actor] = [build_actor(record, slot, self.place) for slot in slots]
        self.evaluator: Evaluator = build_evaluator(record, folder, self.place)

    @property
    def finished(self) -> bool:
        """Whether the frame limit is reached."""
        return self.learner.finished

    def turn(self) -> None:
        """Everybody once; sleeps only when nobody could do anything."""
        turns = [self.learner.tick(), *(actor.tick() for actor in self.actors)]
        turns.append(self.evaluator.tick())
        if not any(isinstance(turn, Progress) for turn in turns):
            waits = [turn.seconds for turn in turns if isinstance(turn, Wait)]
            self.place.clock.sleep(min(waits))

    def close(self) -> None:
        """Drains the actors, saves, measures the last policy of a finished run."""
        finished = self.finished
        clock = self.place.clock
        until_s = clock.now() + (0.0 if finished else DRAIN_S)
        while clock.now() < until_s:
            drained = [actor.drain() == Progress("drained") for actor in self.actors]
            self.learner.tick()
            if all(drained) and all(actor.settled for actor in self.actors):
                break
        for actor in self.actors:
            actor.close()
        self.learner.close()
        if finished:
            self.evaluator.finish()
        self.evaluator.close()
