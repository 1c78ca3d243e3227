"""Episodes as they end: return, length and why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from system.types import TimeStep

RECENT_EPISODES = 10
"""Episodes behind the running mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedEpisode:
    """One episode of one copy."""

    copy: int
    episode_return: float
    """Sum of rewards, undiscounted."""
    agent_steps: int
    """Actions taken."""
    frames: int
    """Simulator steps: agent steps x action repeat (an end within a repeat counts it whole)."""
    end: Literal["terminated", "truncated", "aborted"]
    """`aborted`: cut by a fault of the environment."""


class EpisodeTracker:
    """Follows N copies.

    The loop that uses it::

        time_step = env.step(action)
        for episode in tracker.observe(time_step):
            print(episode.episode_return)
    """

    def __init__(self, *, num_copies: int, action_repeat: int) -> None:
        self._action_repeat = action_repeat
        self._return = np.zeros(num_copies, np.float64)
        self._length = np.zeros(num_copies, np.int64)
        self._running = np.zeros(num_copies, np.bool_)
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._agent_steps = self._episodes = self._aborted = 0

    def observe(self, time_step: TimeStep) -> list[FinishedEpisode]:
        """Takes the next TimeStep [N]; returns the episodes that ended with (or before) it."""
        is_first = time_step.is_first
        if not np.count_nonzero(is_first | time_step.is_last):  # as it usually is
            self._return += time_step.reward
            self._length += 1
            self._agent_steps += len(is_first)
            self._running[:] = True
            return []
        finished = [self._finish(i, "aborted") for i in np.flatnonzero(is_first & self._running)]
        self._return[is_first] = 0
        self._length[is_first] = 0
        self._return += np.where(is_first, 0, time_step.reward)
        self._length += ~is_first
        self._agent_steps += int(np.count_nonzero(~is_first))
        for i in np.flatnonzero(time_step.is_last):
            end: Literal["terminated", "truncated"]
            end = "terminated" if time_step.is_terminal[i] else "truncated"
            finished.append(self._finish(i, end))
        self._running = ~time_step.is_last
        return finished

    @property
    def return_mean(self) -> float | None:
        """Mean return of the last ten complete episodes; None before the first."""
        return float(np.mean(self._recent)) if self._recent else None

    def metrics(self) -> dict[str, float]:
        """Numbers for the heartbeat."""
        values = {
            "actor/agent_steps": float(self._agent_steps),
            "actor/frames": float(self._agent_steps * self._action_repeat),
            "actor/episodes": float(self._episodes),
            "actor/episodes_aborted": float(self._aborted),
        }
        mean = self.return_mean
        return values if mean is None else {**values, "actor/return_mean": mean}

    def _finish(
        self, copy: np.int64, end: Literal["terminated", "truncated", "aborted"]
    ) -> FinishedEpisode:
        if end == "aborted":
            self._aborted += 1
        else:
            self._episodes += 1
            self._recent.append(float(self._return[copy]))
        length = int(self._length[copy])
        return FinishedEpisode(
            copy=int(copy),
            episode_return=float(self._return[copy]),
            agent_steps=length,
            frames=length * self._action_repeat,
            end=end,
        )
