"""The one reader behind all tabs: it asks Redis only while somebody looks.

::

    tab 1, 2 ... 20 --watch(run)--> Hub: one thread --every second--> WatchedRun.look
         `------ woken ------- Shown <-----'
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deploy.dashboard.source import RunCard, Runs, RunSource
from deploy.dashboard.watched import Shown, WatchedRun
from system.clock import Clock
from system.errors import DreamfleetError

LOOK_S = 1.0
"""Between two looks at a run that lives [s]."""
REST_S = 4.0
"""Between two looks at one that rests [s]."""
LIST_S = 5.0
"""Between two looks at the list of runs [s]."""
ASKED_S = 8.0
"""Somebody who asked once, instead of watching, is served so long [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The list of runs as of one look."""

    version: int = 0
    """Counts changes; 0 before the first look."""
    cards: tuple[RunCard, ...] = ()


class Hub:
    """Reads for everybody. Threads may share it.

    The calls that use it::

        hub.start()
        with hub.watch(run_id, wake):       # wake is called from the reader's thread
            hub.listed, hub.shown(run_id)
        hub.close()
    """

    def __init__(self, runs: Runs, clock: Clock, *, first_run: str = "") -> None:
        """`first_run`: name of the run that a tab sees which asks for none."""
        self._runs, self._clock, self._first_run = runs, clock, first_run
        self._changed = threading.Condition()
        self._tabs: Counter[str] = Counter()
        self._wakes: set[Callable[[], None]] = set()
        self._asked_s: dict[str, float] = {}
        self._watched: dict[str, WatchedRun] = {}
        self._due_s: dict[str, float] = {}
        self._list_due_s = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self.listed = Listed()
        """Replaced as a whole."""

    @property
    def where(self) -> str:
        """Whose runs these are, for people."""
        return self._runs.where

    @property
    def closing(self) -> bool:
        """Whether tabs should go."""
        return self._closing

    def start(self) -> None:
        """Begins to read as soon as somebody watches."""
        self._thread.start()

    def close(self) -> None:
        """Ends the reader, and wakes every tab for the last time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._wake_tabs()
        self._runs.close()

    @contextlib.contextmanager
    def watch(self, run_id: str, wake: Callable[[], None]) -> Iterator[None]:
        """Keeps a run read; `run_id` may be empty, for the list alone."""
        with self._changed:
            self._tabs[run_id] += 1
            self._wakes.add(wake)
            self._hurry(run_id)
        try:
            yield
        finally:
            with self._changed:
                self._tabs[run_id] -= 1
                self._tabs = +self._tabs
                self._wakes.discard(wake)

    def asked(self, run_id: str, *, timeout_s: float) -> Shown | None:
        """As `shown`, for who asks once and may wait a little for the first look."""
        with self._changed:
            self._asked_s[run_id] = self._clock.now()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_ready(run_id), timeout_s)
        return self.shown(run_id)

    def shown(self, run_id: str) -> Shown | None:
        """The last look at a run; None before the first."""
        watched = self._watched.get(run_id)
        return None if watched is None else watched.shown

    def hurry(self, run_id: str) -> None:
        """Somebody has just changed something."""
        with self._changed:
            self._hurry(run_id)

    def source(self, run_id: str) -> RunSource | None:
        """The run itself; None if there is none of this id. May raise Unavailable."""
        watched = self._watched.get(run_id)
        return self._runs.open(run_id) if watched is None else watched.source

    def default_run(self) -> str:
        """The first one named, else the newest that runs, else the newest; empty if none is."""
        cards = self.listed.cards
        named = [card for card in cards if card.name == self._first_run]
        running = [card for card in cards if card.alive]
        chosen = max(named or running or cards, key=lambda card: card.seen_s or 0.0, default=None)
        return "" if chosen is None else chosen.run_id

    def _is_ready(self, run_id: str) -> bool:
        watched, now_s = self._watched.get(run_id), self._clock.now()
        fresh = watched is not None and now_s - watched.looked_s < REST_S
        return self._closing or (self.listed.version > 0 and (not run_id or fresh))

    def _hurry(self, run_id: str) -> None:
        self._due_s.pop(run_id, None)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or bool(self._wanted()))
                if self._closing:
                    return
                wanted = self._wanted()
            try:
                self._turn(wanted)
            except Exception:  # noqa: BLE001 - a reader that dies would leave every tab in the dark
                traceback.print_exc(file=sys.stderr)
            with self._changed:
                rest_s = max(0.02, self._next_s() - self._clock.now())
                self._changed.wait_for(lambda: self._closing or self._has_new(), rest_s)

    def _wanted(self) -> set[str]:
        """Runs that somebody looks at; the empty id stands for the list."""
        now_s = self._clock.now()
        asked = {run for run, asked_s in self._asked_s.items() if now_s - asked_s < ASKED_S}
        self._asked_s = {run: self._asked_s[run] for run in asked}
        return set(self._tabs) | asked

    def _has_new(self) -> bool:
        return any(run_id and run_id not in self._due_s for run_id in self._wanted())

    def _next_s(self) -> float:
        due = [self._due_s.get(run_id, 0.0) for run_id in self._wanted() if run_id]
        return min([self._list_due_s, *due])

    def _turn(self, wanted: set[str]) -> None:
        now_s = self._clock.now()
        if now_s >= self._list_due_s:
            self._list_due_s = now_s + LIST_S
            self._list()
        for run_id in sorted(wanted - {""}):
            if now_s >= self._due_s.get(run_id, 0.0):
                self._look(run_id, now_s)
        with self._changed:
            self._changed.notify_all()
        self._wake_tabs()

    def _list(self) -> None:
        with contextlib.suppress(DreamfleetError, OSError):  # the last list stays
            cards = tuple(self._runs.cards())
            if cards != self.listed.cards or not self.listed.version:
                self.listed = Listed(version=self.listed.version + 1, cards=cards)

    def _look(self, run_id: str, now_s: float) -> None:
        self._due_s[run_id] = now_s + REST_S
        watched = self._watched.get(run_id)
        if watched is None:
            source = self._runs.open(run_id)
            if source is None:
                return
            watched = WatchedRun(source, self._clock)
            self._watched[run_id] = watched
        watched.look()
        self._due_s[run_id] = now_s + (LOOK_S if watched.alive else REST_S)

    def _wake_tabs(self) -> None:
        with self._changed:
            wakes = list(self._wakes)
        for wake in wakes:
            wake()
