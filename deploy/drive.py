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
from deploy.fleet import SupervisorSeams
from deploy.local import LocalRun
from deploy.place import redis_place, who
from deploy.processes import Order
from deploy.redis_server import EmbeddedRedis
from deploy.run_folder import RunFolder, RunRecord
from deploy.signals import Forced, Interrupts
from deploy.status import MetricsTail, status_of
from deploy.supervisor import Supervisor, rules_of
from deploy.terminal import View
from system.clock import Clock, SystemClock
from system.control.protocol import Control
from system.errors import Unavailable, UserError
from system.redis_client import ping

TURN_S = 0.1
DRAINING = "stopping: actors drain, then the learner saves (Ctrl-C again ends at once)"


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
        _say(console, f"run {folder.name} in {folder.path}")
        driver = _Driver(folder, record, console)
        local = record.config.fleet.runner == "local"
        try:
            finished = driver.local() if local else driver.ray(actors)
        except Forced:
            _say(console, "ended at once; what was learned since the last checkpoint is lost")
            finished = False
        _farewell(folder, record, console, finished=finished)
    return finished


class _Driver:
    """One session of one run."""

    def __init__(self, folder: RunFolder, record: RunRecord, console: Console) -> None:
        self._folder, self._record, self._console = folder, record, console
        self._clock: Clock = SystemClock()
        self._tail = MetricsTail(folder.metrics_path)
        self._view = View(console, self._clock)

    def local(self) -> bool:
        """All in this process."""
        self._folder.write_control("local", "", self._clock.wall())
        run = LocalRun(self._record, self._folder.path)
        with self._view, Interrupts(lambda: self._view.note(DRAINING)) as interrupts:
            while not (run.finished or interrupts.stopping):
                run.turn()
                self._show(run.place.control)
            finished = run.finished
            run.close()
        return finished

    def ray(self, actors: int | None) -> bool:
        """Processes of their own, over Redis."""
        from deploy.topology import RayFleet, check_cluster, ray_session

        with contextlib.ExitStack() as stack:
            url, server = stack.enter_context(self._redis())
            _say(self._console, "starting Ray ...")
            stack.enter_context(ray_session())
            check_cluster(self._folder, url)
            place = redis_place(url, self._record.run_id)
            self._wish(place.control, actors)
            self._folder.write_control("ray", url, self._clock.wall())
            order = Order(record=self._record, folder=str(self._folder.path), redis=url)
            fleet = RayFleet(order, redis_is_embedded=server is not None)
            stack.callback(fleet.close)
            seams = SupervisorSeams(
                fleet=fleet, control=place.control, clock=place.clock, server=server
            )
            rules = rules_of(self._record.config.fleet)
            supervisor = Supervisor(seams, rules, who=who(), on_event=self._view.tell)
            self._supervise(supervisor, place.control)
        if supervisor.failure:
            raise UserError(supervisor.failure)
        return supervisor.finished

    def _supervise(self, supervisor: Supervisor, control: Control) -> None:
        with self._view, Interrupts(supervisor.stop):
            noted = False
            while not supervisor.ended:
                supervisor.tick()
                if supervisor.stopping and not noted:
                    self._view.note(DRAINING)
                    noted = True
                self._show(control)
                self._clock.sleep(TURN_S)

    @contextlib.contextmanager
    def _redis(self) -> Iterator[tuple[str, EmbeddedRedis | None]]:
        """The server of this run: the one named, or one of its own while the run goes on."""
        fleet = self._record.config.fleet
        if fleet.redis:
            ping(fleet.redis)
            yield fleet.redis, None
            return
        server = EmbeddedRedis(
            self._folder.redis_path, max_memory_bytes=fleet.redis_memory_bytes, clock=self._clock
        )
        _say(self._console, "starting the embedded Redis ...")
        server.start()
        try:
            yield server.url, server
        finally:
            server.stop()

    def _wish(self, control: Control, actors: int | None) -> None:
        """The number wished last survives a stop; a first start takes the config's."""
        if actors is None and control.desired().generation == 0:
            actors = self._record.config.fleet.actors
        control.change_desired(actors=actors, stopping=False)

    def _show(self, control: Control) -> None:
        if not self._view.due:
            return
        values = self._tail.read()
        try:
            status = status_of(self._record, values, control, alive=True)
        except Unavailable:
            status = status_of(self._record, values, None, alive=True)
        self._view.show(status)


def _farewell(folder: RunFolder, record: RunRecord, console: Console, *, finished: bool) -> None:
    """The curve, and what to type next."""
    curve = points(folder.metrics())
    if curve:
        save_png(folder.curve_path, curve, f"{record.config.env.name} ({folder.name})")
        _say(console, "\n" + text_plot(curve))
        last = curve[-1]
        _say(
            console,
            f"return {last.return_mean:.1f} +- {last.return_std:.1f} after {last.frames:,} frames, "
            f"{last.time_s / 60:.1f} min of training; picture: {folder.curve_path}",
        )
    _say(console, "\nnext:")
    if not finished:
        _say(console, f"  dreamfleet resume --run {folder.name}      go on where it stopped")
    _say(console, f"  dreamfleet evaluate --run {folder.name}    measure the policy again")
    _say(console, f"  dreamfleet status --run {folder.name}")
    if finished:
        _say(console, f"  dreamfleet resume --run {folder.name} --frames N    train on to N frames")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
