"""Time as an argument, so that everything that waits can be tested without waiting."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """`now` is monotonic and for intervals; `wall` is for records people read."""

    def now(self) -> float:
        """Monotonic time [s]."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch [s]."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits [s]."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Monotonic time [s]."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the Unix epoch [s]."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Waits [s]."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to; sleeping moves it."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """Monotonic time [s]."""
        return self._now_s

    def wall(self) -> float:
        """Seconds since the Unix epoch [s]; here the same as `now`."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Moves the clock on [s]."""
        self._now_s += seconds


class Every:
    """True at most once per interval: `if every(clock.now()): publish()`. True the first time."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = float("-inf")

    def __call__(self, now_s: float) -> bool:
        """Whether the interval has passed at `now_s` [s]; if so, starts the next one."""
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s
        return True


class Thinned:
    """True ever more rarely: `if thinned(elapsed_s): remember(point)`. True the first time.

    The pause is `share` of all the time so far, at least `least_s`: a run of any length leaves
    few marks, spread evenly over the logarithm of its time.
    """

    def __init__(self, *, least_s: float, share: float) -> None:
        self._least_s, self._share = least_s, share
        self._due_s = float("-inf")

    def __call__(self, elapsed_s: float) -> bool:
        """Whether the pause has passed at `elapsed_s` [s]; if so, starts the next one."""
        if elapsed_s < self._due_s:
            return False
        self._due_s = elapsed_s + max(self._least_s, self._share * elapsed_s)
        return True
