"""Where an actor's time goes."""

from __future__ import annotations

from system.clock import Clock


class Activity:
    """A stopwatch with one hand per activity; exactly one runs at a time.

    The loop that uses it::

        activity.switch("policy")
        decision = agent.act(...)
        activity.switch("env")
        time_step = env.step(...)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s = clock.now()
        self._reported_s = self._since_s
        self._current = "starting"
        self._seconds: dict[str, float] = {}

    @property
    def current(self) -> str:
        """What goes on now, one word."""
        return self._current

    def switch(self, activity: str) -> None:
        """Time from now on belongs to `activity`."""
        now_s = self._clock.now()
        spent_s = now_s - self._since_s
        self._seconds[self._current] = self._seconds.get(self._current, 0.0) + spent_s
        self._current, self._since_s = activity, now_s

    def metrics(self) -> dict[str, float]:
        """Shares of the time since the last call, `actor/share_<activity>` [0 to 1]."""
        self.switch(self._current)
        window_s = self._since_s - self._reported_s
        self._reported_s = self._since_s
        shares = {
            f"actor/share_{activity}": seconds / window_s if window_s > 0 else 0.0
            for activity, seconds in self._seconds.items()
        }
        # Kept at zero, so that a share that ends does not stay at its last value.
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return shares
