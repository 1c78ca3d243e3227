"""Everything an actor notes about itself while acting, behind one object."""

from __future__ import annotations

from actors.episodes import EpisodeTracker, FinishedEpisode
from actors.report import Reporter
from system.activity import Activity
from system.histogram import ENV_STEP, Histogram
from system.types import TimeStep


class Monitor:
    """Time shares, episodes and heartbeats.

    The loop that uses it::

        monitor.heartbeat()
        monitor.doing("env")
        monitor.observe(env.step(action))       # and "other" from here on
    """

    def __init__(self, *, activity: Activity, episodes: EpisodeTracker, reporter: Reporter) -> None:
        self._activity, self._episodes, self._reporter = activity, episodes, reporter
        self._env_steps = Histogram(ENV_STEP)
        reporter.watch([activity.metrics, episodes.metrics, self._env_steps.metrics])

    def claimed(self, incarnation: int) -> None:
        """The slot is ours from now on."""
        self._reporter.claimed(incarnation)

    def doing(self, activity: str) -> None:
        """Time from now on belongs to `activity`: env, policy, write, wait or other."""
        before = self._activity.current
        spent_s = self._activity.switch(activity)
        if before == "env":
            self._env_steps.observe(spent_s)

    def observe(self, time_step: TimeStep) -> list[FinishedEpisode]:
        """Takes the next TimeStep [N], which ends a step; returns the episodes that ended."""
        self.doing("other")
        return self._episodes.observe(time_step)

    def heartbeat(self, phase: str, *, then: str = "") -> None:
        """Renews the lease and sends the numbers if they are due.

        Args:
          phase: one word for people: starting, acting, waiting, draining.
          then: what is done from now on, if that changes; see `doing`.
        """
        self._reporter.tick(phase)
        if then:
            self.doing(then)
