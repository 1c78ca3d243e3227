"""One run that somebody watches: what was read of it, look after look.

::

    RunSource.glance -> RunMerge, Curve, events, rates, dream -> Shown: what any tab may take
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any

from deploy.dashboard.curve import CurvePoint
from deploy.dashboard.dreams import dream_event
from deploy.dashboard.moment import Moment, now_of
from deploy.dashboard.plain import cut, known
from deploy.dashboard.source import Glance, RunSource
from deploy.exporter.merge import RunMerge
from system.clock import Clock, Every
from system.control.protocol import Recorded
from system.dream import DreamReport
from system.dream_codec import decode_dream
from system.errors import DreamfleetError, RejectedChunk

KEPT_EVENTS = 300
EVENT_CHARS = 2000
FRAMES_WINDOW_S, ACTOR_WINDOW_S = 60.0, 15.0
"""A rate is a difference over so long [s]: a learner tells its numbers every few seconds."""
DREAM_S = 5.0
"""Between two looks for a new dream [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A run as of one look. Lists only grow: a tab remembers how much of them it has."""

    serial: str
    """Of the life of these lists: what a tab has of others counts for nothing."""
    version: int
    """Counts looks."""
    now: dict[str, Any]
    """The event `now`."""
    points: list[CurvePoint]
    num_points: int
    events: list[dict[str, Any]]
    """The newest kept."""
    num_events: int
    """Ever seen."""
    dream: dict[str, Any] | None
    """The event `dream`."""


class Rates:
    """How fast numbers grow, each over a window of its own. Pure."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, float]]] = {}

    def see(self, now_s: float, key: str, value: float, *, window_s: float) -> None:
        """Notes a value at `now_s` [s]; one that fell begins anew."""
        seen = self._seen.setdefault(key, deque())
        if seen and value < seen[-1][1]:
            seen.clear()
        seen.append((now_s, value))
        while len(seen) > 2 and now_s - seen[0][0] > window_s:
            seen.popleft()
        if len(seen) == 2 and now_s - seen[0][0] > 2 * window_s:  # nobody watched meanwhile
            seen.popleft()

    def values(self) -> dict[str, float]:
        """Key -> its rate [1/s]; without those that were seen once."""
        rates = {}
        for key, seen in self._seen.items():
            (then_s, before), (now_s, after) = seen[0], seen[-1]
            if now_s > then_s:
                rates[key] = (after - before) / (now_s - then_s)
        return rates


class WatchedRun:
    """The reader's memory of one run.

    The loop that uses it::

        while somebody watches:
            watched.look()
            tabs take watched.shown
    """

    def __init__(self, source: RunSource, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        self._serial = secrets.token_hex(4)
        self._merge, self._rates = RunMerge(), Rates()
        self._events: deque[Recorded] = deque(maxlen=KEPT_EVENTS)
        self._num_events = 0
        self._glance = Glance(alive=False)
        self._dream_due = Every(DREAM_S)
        self._dream_bytes: bytes | None = None
        self._dream: DreamReport | None = None
        self._seen_s = 0.0
        self.looked_s = -math.inf
        """When it looked last, by the clock's `now` [s]."""
        self.shown: Shown | None = None
        """As of the last look; None before the first."""

    @property
    def alive(self) -> bool:
        """Whether somebody drives it."""
        return self._glance.alive

    def look(self) -> None:
        """Looks once; never raises because of Redis or a file: then the last figures stay."""
        now_s, trouble = self._clock.wall(), ""
        try:
            self._take(self.source.glance(self._merge.cursor), now_s)
            trouble = self._glance.trouble
        except (DreamfleetError, OSError) as error:
            trouble = str(error)
        if not trouble:
            self._seen_s = now_s
        if self._dream_due(self._clock.now()):
            with contextlib.suppress(DreamfleetError, OSError):
                self._look_for_dream()
        self.shown, self.looked_s = self._show(cut(trouble)), self._clock.now()

    def _take(self, glance: Glance, now_s: float) -> None:
        if glance.look is None and glance.trouble:  # what control said last stays
            glance = Glance(alive=glance.alive, ended=glance.ended, look=self._glance.look,
                            numbers=self._glance.numbers | glance.numbers,
                            checkpoints=glance.checkpoints, trouble=glance.trouble)  # fmt: skip
        elif glance.look is not None:
            self._merge.take(glance.look, now_s)
            self._events.extend(glance.look.events)
            self._num_events += len(glance.look.events)
        self._glance = glance
        self._rate(now_s)
        self._draw(now_s)

    def _rate(self, now_s: float) -> None:
        for key in ("frames", "updates"):
            value = known(self._glance.numbers, key)
            if value is not None:
                self._rates.see(now_s, key, value, window_s=FRAMES_WINDOW_S)
        for process in self._merge.view().processes:
            if process.place.role == "actor" and process.lease is not None:
                steps = process.counts.get("actor/agent_steps", 0)
                key = f"actor:{process.place.slot}"
                self._rates.see(now_s, key, steps, window_s=ACTOR_WINDOW_S)

    def _draw(self, now_s: float) -> None:
        """What no line tells: returns of the actors, and when a checkpoint was written."""
        glance, curve = self._glance, self.source.curve
        told = [] if glance.look is None else glance.look.metrics
        returns = [known(one.values, "actor/return_mean") for one in told if one.role == "actor"]
        heard = [value for value in returns if value is not None]
        if heard and glance.alive:
            curve.take_acting(sum(heard) / len(heard), glance.numbers, time_s=now_s)
        for checkpoint in glance.checkpoints:
            curve.take_checkpoint(checkpoint.updates, time_s=checkpoint.time_s)

    def _look_for_dream(self) -> None:
        data = self.source.dream(None)
        if data is not None and data != self._dream_bytes:
            self._dream_bytes = data
            with contextlib.suppress(RejectedChunk):
                self._dream = decode_dream(data)

    def _show(self, trouble: str) -> Shown:
        source, curve = self.source, self.source.curve
        moment = Moment(
            run_id=source.run_id,
            name=source.name,
            config=source.config,
            glance=self._glance,
            view=self._merge.view(),
            rates=self._rates.values(),
            evaluations=curve.evaluations,
            events=[one.event for one in self._events],
            dream=self._dream,
            time_s=self._seen_s,
            trouble=trouble,
            scalable=source.scalable,
        )
        return Shown(
            serial=self._serial,
            version=1 if self.shown is None else self.shown.version + 1,
            now=now_of(moment),
            points=curve.points,
            num_points=len(curve.points),
            events=[_event(one) for one in self._events],
            num_events=self._num_events,
            dream=None if self._dream is None else dream_event(self._dream),
        )


def _event(recorded: Recorded) -> dict[str, Any]:
    event = recorded.event
    return {
        "time_s": event.time_s,
        "role": cut(event.role, 40),
        "slot": event.slot,
        "kind": cut(event.kind, 60),
        "text": cut(event.text, EVENT_CHARS),
    }
