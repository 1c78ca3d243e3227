"""Watches a run that goes on by itself: draws it, tells what happens, passes Ctrl-C on.

::

    metrics.jsonl, control -> status -> view        control.events -> lines above it
    Ctrl-C -> desired.stopping                       end.json -> the run is over
"""

from __future__ import annotations

import threading

from rich.console import Console

from deploy.place import REPLY_TIMEOUT_S
from deploy.run_folder import End, RunFolder, RunRecord
from deploy.signals import Forced, Interrupts
from deploy.status import MetricsTail, status_of
from deploy.terminal import View
from system.clock import Clock, Every, SystemClock
from system.control.protocol import Control, Event
from system.control.redis import RedisControl
from system.errors import RunError, Unavailable

TURN_S = 0.1
EVENTS_S = 1.0
GONE_S = 30.0
"""A run that nobody has driven for so long has lost its Ray [s]."""
DRAINING = "stopping: actors drain, then the learner saves (Ctrl-C again ends at once)"
QUIET = {"actor_claimed", "adopted"}
"""Kinds of events that are told only by `dreamfleet status`."""


class Watch:
    """One terminal's view of a run on Ray."""

    def __init__(self, folder: RunFolder, record: RunRecord, console: Console) -> None:
        self._folder, self._record = folder, record
        self._clock: Clock = SystemClock()
        self._view = View(console, self._clock)
        self._tail = MetricsTail(folder.metrics_path)
        self._events = EventTail(since_s=self._clock.wall())
        self._events_due = Every(EVENTS_S)
        self._asked = threading.Event()
        file = folder.control()
        self._control: Control | None = None
        if file is not None and file.redis:
            self._control = RedisControl(file.redis, record.run_id, timeout_s=REPLY_TIMEOUT_S)

    def until_end(self) -> End:
        """Returns how the run ended.

        Raises:
          RunError: its processes are gone and nobody could tell why.
          Detached: the terminal was closed; the run goes on.
        """
        driven_s = self._clock.now()
        # The handler runs in the middle of whatever goes on: it asks nobody anything.
        with self._view, Interrupts(self._asked.set, hangup_detaches=True):
            while True:
                try:
                    if self._folder.in_use():
                        driven_s = self._clock.now()
                    elif (end := self._folder.end()) is not None:
                        return end
                    if self._clock.now() - driven_s > GONE_S:
                        raise RunError(
                            f"run {self._folder.name!r} has lost its Ray cluster; go on with: "
                            f"dreamfleet resume --run {self._folder.name}"
                        )
                    self._turn()
                except Forced:
                    self._force()

    def _turn(self) -> None:
        if self._asked.is_set():
            self._asked.clear()
            self._stop()
        try:
            if self._control is not None and self._events_due(self._clock.now()):
                for event in self._events.new(self._control):
                    self._view.tell(event)
            self._show(self._control)
        except Unavailable:
            self._show(None)
        self._clock.sleep(TURN_S)

    def _show(self, control: Control | None) -> None:
        if self._view.due:
            self._view.show(status_of(self._record, self._tail.read(), control, alive=True))

    def _stop(self) -> None:
        self._view.note(DRAINING)
        ask_to_stop(self._folder, self._record, self._control)

    def _force(self) -> None:
        from deploy.supervise import tell_supervisor

        self._view.note("ending at once; what was learned since the last checkpoint is lost")
        if not tell_supervisor(self._folder, self._record.run_id, "end_now"):
            raise RunError(f"run {self._folder.name!r} cannot be ended: nobody drives it")


class EventTail:
    """Events that were not told yet.

    The loop that uses it::

        for event in tail.new(control): say(event.text)
    """

    def __init__(self, *, since_s: float) -> None:
        """`since_s`: wall-clock time of the oldest event of interest [s]."""
        self._since_s = since_s
        self._told: set[Event] = set()

    def new(self, control: Control) -> list[Event]:
        """Those since the last call, oldest first. Raises Unavailable."""
        recent = [event for event in control.events() if event.time_s >= self._since_s]
        fresh = [event for event in recent if event not in self._told and event.kind not in QUIET]
        self._told = set(recent)
        return fresh


def ask_to_stop(folder: RunFolder, record: RunRecord, control: Control | None) -> None:
    """Asks a run to drain, save and exit: by Redis, or by Ray while Redis is away.

    Raises:
      RunError: neither can be reached from here.
    """
    try:
        if control is not None:
            control.change_desired(stopping=True)
            return
    except Unavailable:
        pass
    from deploy.supervise import tell_supervisor

    if not tell_supervisor(folder, record.run_id, "stop"):
        raise RunError(f"run {folder.name!r} can be reached neither by Redis nor by Ray from here")
