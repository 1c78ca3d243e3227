"""When to look for a newer policy and whether to take it.

The rule is pure (`RefreshRule`); `Refresher` acts on it at a step boundary. Polling is jittered so
that a fleet does not ask all at once.

Following `policy`, a simulated actor adopts at any step; until the first broadcast arrives it acts
with the random policy it was built with. Following `safe`, a robot holds still until there is a
policy to trust, and changes it only between episodes: no motion is finished by another policy than
the one that began it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from actors.agent import Agent
from system.channel.protocol import PolicyChannel
from system.clock import Clock
from system.errors import RejectedChunk, Unavailable
from system.histogram import POLICY_AGE, Histogram
from system.types import Snapshot, TimeStep

Follow = Literal["policy", "safe"]
"""Which of a run's two channels an actor follows."""

OnEvent = Callable[[str, str], None]
"""Told (kind, text) of what happened."""


class RefreshRule:
    """Decides from a clock's readings when to poll, and remembers what was refused.

    The loop that uses it::

        if rule.due(now_s):
            snapshot = channel.newer_than(*rule.above(agent.epoch, agent.version))
    """

    def __init__(self, interval_s: float, *, seed: int = 0) -> None:
        self._interval_s = interval_s
        self._random = np.random.default_rng(seed)
        self._due_s = float("-inf")
        self._refused = (0, 0)

    def due(self, now_s: float) -> bool:
        """Whether to poll at `now_s` [s]; if so, the next time is half to one interval later."""
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s * self._random.uniform(0.5, 1.0)
        return True

    def refuse(self, epoch: int, version: int) -> None:
        """Never ask for this broadcast again."""
        self._refused = (epoch, version)

    def above(self, epoch: int, version: int) -> tuple[int, int]:
        """The (epoch, version) a broadcast must exceed to be of interest to this agent."""
        return max((epoch, version), self._refused)


class Refresher:
    """Adopts newer policies between two steps; survives an unreachable channel.

    The loop that uses it::

        if not refresh.ready(agent): ...        # before the first episode: wait and ask again
        refresh(agent, time_step)
        decision = agent.act(time_step, carry, deterministic=False)
    """

    def __init__(
        self,
        channel: PolicyChannel,
        clock: Clock,
        *,
        refresh_s: float,
        on_event: OnEvent,
        seed: int = 0,
        follow: Follow = "policy",
    ) -> None:
        self._channel, self._clock, self._on_event = channel, clock, on_event
        self._rule = RefreshRule(refresh_s, seed=seed)
        self._careful = follow == "safe"
        self._published_s: float | None = None
        self._version = self._adopted = self._refused = self._unavailable = 0
        self._corrupt = self._awaited = False
        self._ages = Histogram(POLICY_AGE)

    def ready(self, agent: Agent) -> bool:
        """Whether the agent may begin to act: with `safe`, once it has a policy to trust."""
        if not self._careful or agent.version > 0 or self._look(agent):
            return True
        if not self._awaited:
            self._on_event("policy_awaited", "none is safe yet; see: dreamfleet promote")
        self._awaited = True
        return False

    def __call__(self, agent: Agent, time_step: TimeStep) -> bool:
        """Polls if it is time; True if a newer policy was adopted.

        Args:
          agent: acts in all copies, so that all copies change together.
          time_step: what it acts on next; with `safe`, only one that is first in every copy counts.
        """
        if self._careful and not time_step.is_first.all():
            return False
        return self._look(agent)

    @property
    def age_s(self) -> float | None:
        """Time since the acting policy was published [s]; None before the first broadcast."""
        if self._published_s is None:
            return None
        return max(0.0, self._clock.wall() - self._published_s)

    def metrics(self) -> dict[str, float]:
        """Numbers for the heartbeat."""
        values = {
            "actor/policy_version": float(self._version),
            "actor/policies_adopted": float(self._adopted),
            "actor/policies_refused": float(self._refused),
            "actor/policy_polls_failed": float(self._unavailable),
        }
        age_s = self.age_s
        if age_s is None:
            return values
        self._ages.observe(age_s)
        return {**values, "actor/policy_age_s": age_s, **self._ages.metrics()}

    def _look(self, agent: Agent) -> bool:
        if not self._rule.due(self._clock.now()):
            return False
        snapshot = self._fetch(agent)
        return snapshot is not None and self._adopt(agent, snapshot)

    def _fetch(self, agent: Agent) -> Snapshot | None:
        try:
            snapshot = self._channel.newer_than(*self._rule.above(agent.epoch, agent.version))
        except Unavailable:
            self._unavailable += 1
            return None
        except RejectedChunk as error:
            # Not remembered: its pieces may be read whole the next time.
            if not self._corrupt:
                self._on_event("policy_corrupt", str(error))
            self._corrupt = True
            return None
        self._corrupt = False
        return snapshot

    def _adopt(self, agent: Agent, snapshot: Snapshot) -> bool:
        try:
            agent.load(snapshot)
        except ValueError as error:
            self._refused += 1
            self._rule.refuse(snapshot.epoch, snapshot.version)
            self._on_event("policy_refused", f"{snapshot.epoch}-{snapshot.version}: {error}")
            return False
        self._adopted += 1
        self._version, self._published_s = snapshot.version, snapshot.time_s
        return True
