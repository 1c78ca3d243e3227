"""Drives one run from a terminal: starts what is needed, watches, draws, and ends it in order.

::

    drive(folder, console)
      |-- runner ray:    Redis -> Ray -> Supervisor.tick() again and again
      |-- runner local:  LocalRun.turn() again and again
      `-- at the end:    curve.png, the curve as text, the next commands
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console

from deploy.curve import points, save_png, text_plot
from deploy.run_folder import RunFolder, RunRecord
from deploy.signals import Forced, Interrupts
from deploy.status import MetricsTail, status_of
from deploy.terminal import View
from system.clock import Clock, SystemClock
from system.control.protocol import Control
from system.errors import Unavailable, UserError
from system.redis_client import connect, ping

TURN_S = 0.1
DRAINING = "stopping: actors drain, then the learner saves (again to end at once)"


def drive(folder: RunFolder, console: Console, *, actors: int | None = None) -> bool:
    """Trains until the frame limit, or until somebody stops it; returns whether it finished.

    Args:
      folder: the run.
      console: where the view is drawn.
      actors: desired actors from now on; None keeps what was wished last.

    Raises:
      UserError: a mistake no restart can mend, in the words of whoever found it.
    """
    record = folder.record()
    with folder.locked():
        console.print(f"run {folder.name} in {folder.path}", highlight=False, soft_wrap=True)
        session = _Session(folder, record, console, actors)
        local = record.config.fleet.runner == "local"
        try:
            finished = session.local() if local else session.ray()
        except Forced:
            console.print("ended at once; what was learned since the last checkpoint is lost")
            finished = False
        _farewell(folder, record, console, finished=finished)
    return finished


class _Session:
    """What both ways to run share while they run."""

    def __init__(
        self, folder: RunFolder, record: RunRecord, console: Console, actors: int | None
    ) -> None:
        self._folder, self._record, self._console, self._actors = folder, record, console, actors
        self._clock: Clock = SystemClock()
        self._tail = MetricsTail(folder.metrics_path)
        self._view = View(console, self._clock)

    def local(self) -> bool:
        from deploy.local import LocalRun

        self._folder.write_control("local", "", self._clock.wall())
        run = LocalRun(self._record, self._folder.path)
        with self._view, Interrupts(lambda: self._view.note(DRAINING)) as interrupts:
            while not (run.finished or interrupts.stopping):
                run.turn()
                self._show(run.place.control)
            finished = run.finished
            run.close()
            self._show(run.place.control)
        return finished

    def ray(self) -> bool:
        from deploy.parts import redis_place, who
        from deploy.processes import Order
        from deploy.reconcile import Rules
        from deploy.supervisor import Supervisor
        from deploy.topology import RayFleet, check_cluster, ray_session

        config = self._record.config
        with self._redis() as (url, server), self._ray_started(ray_session()):
            check_cluster(self._folder, url)
            place = redis_place(url, self._record.run_id)
            self._wish(place.control)
            self._folder.write_control("ray", url, self._clock.wall())
            order = Order(record=self._record, folder=str(self._folder.path), redis=url)
            fleet = RayFleet(order, redis_is_embedded=server is not None)
            fleet_config = config.fleet
            supervisor = Supervisor(
                fleet, place.control, place.clock,
                Rules(
                    lost_after_s=fleet_config.lost_after_s,
                    start_after_s=fleet_config.start_after_s,
                    grace_s=fleet_config.grace_s,
                    backoff_first_s=fleet_config.backoff_first_s,
                    backoff_longest_s=fleet_config.backoff_longest_s,
                ),
                who=who(), server=server, on_event=self._view.tell,
            )  # fmt: skip
            with self._view, Interrupts(supervisor.stop):
                self._supervise(supervisor, place.control)
                fleet.close()
        if supervisor.failure:
            raise UserError(supervisor.failure)
        return supervisor.finished
