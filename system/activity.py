"""Where the time of a process goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from system.clock import Clock


class Activity:
    """A stopwatch with one hand per activity; exactly one runs at a time.

    It measures the time of this process. What a GPU computes meanwhile belongs to the activity that
    waits for it.

    The loop that uses it::

        activity.switch("policy")
        decision = agent.act(...)
        activity.switch("env")
        time_step = env.step(...)
    """

    def __init__(self, clock: Clock, role: str) -> None:
        """`role` of the process begins the names of its shares."""
        self._clock, self._role = clock, role
        self._began_s = self._charged_s = self._reported_s = clock.now()
        self._current = "starting"
        self._seconds: dict[str, float] = {}

    @property
    def current(self) -> str:
        """What goes on now, one word."""
        return self._current

    def switch(self, activity: str) -> float:
        """Time from now on belongs to `activity`; returns how long the one before took [s]."""
        self._charge()
        spent_s = self._charged_s - self._began_s
        self._current, self._began_s = activity, self._charged_s
        return spent_s

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Time within belongs to `activity`; then what went on before goes on."""
        before = self._current
        self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    def metrics(self) -> dict[str, float]:
        """Shares of the time since the last call, `<role>/share_<activity>` [0 to 1]."""
        self._charge()
        window_s = self._charged_s - self._reported_s
        self._reported_s = self._charged_s
        shares = {
            f"{self._role}/share_{activity}": seconds / window_s if window_s > 0 else 0.0
            for activity, seconds in self._seconds.items()
        }
        # Kept at zero, so that a share that ends does not stay at its last value.
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return shares

    def _charge(self) -> None:
        now_s = self._clock.now()
        spent_s = now_s - self._charged_s
        self._seconds[self._current] = self._seconds.get(self._current, 0.0) + spent_s
        self._charged_s = now_s
