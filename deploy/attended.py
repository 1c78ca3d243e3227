"""Episodes that somebody waits for: signs of life, and an end when asked, between two steps."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from actors.envs.batched import FaultTolerantEnv
from system.clock import Clock, Every
from system.progress import FEW_S, progress_text
from system.types import TimeStep


class Attended:
    """A BatchedEnv that calls `attend` before each step, which may raise.

    The loop that uses it::

        evaluate(agent, Attended(env, attend), episodes=10)
    """

    def __init__(self, env: FaultTolerantEnv, attend: Callable[[], None]) -> None:
        self.spec, self.num_copies = env.spec, env.num_copies
        self._env, self._attend = env, attend
        self.ended = 0
        """Episodes, of all copies."""

    @property
    def last_fault(self) -> str:
        """What went wrong last."""
        return self._env.last_fault

    def reset(self, *, seed: int | None = None) -> TimeStep:
        """Begins an episode in every copy."""
        self._attend()
        return self._env.reset(seed=seed)

    def step(self, action: NDArray[np.float32]) -> TimeStep:
        """One step of every copy; action [N, A]."""
        self._attend()
        time_step = self._env.step(action)
        self.ended += int(np.count_nonzero(time_step.is_last))
        return time_step

    def close(self) -> None:
        """Frees the simulators."""
        self._env.close()


def told(env: FaultTolerantEnv, clock: Clock, *, episodes: int) -> Attended:
    """An env that says on stderr now and then how many of the `episodes` are played."""
    began_s, due = clock.now(), Every(FEW_S)
    due(began_s)

    def say() -> None:
        if due(clock.now()):
            share = attended.ended / episodes if attended.ended else None
            text = progress_text("evaluating", share, clock.now() - began_s)
            sys.stderr.write(f"{text} ({min(attended.ended, episodes)} of {episodes} episodes)\n")

    attended = Attended(env, say)
    return attended
