"""What an actor steps: N copies of one environment behind one batched interface."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from system.specs import EnvSpec
from system.types import Array, TimeStep

Observation = dict[str, Array]
"""Each float32 [...], images uint8 [H, W, C], as in `EnvSpec.observation`."""


class SingleStep(NamedTuple):
    """What one copy returns after one agent step."""

    observation: Observation
    reward: float
    """Sum over the repeated simulator steps."""
    terminated: bool
    truncated: bool
    """Stopped from outside (time limit): the value after it is not zero."""


class SingleEnv(Protocol):
    """One copy. Adapters (gymnasium, dm_control) have this shape; the reset is the caller's.

    The loop that uses it::

        observation = env.reset(seed=0)
        while True:
            step = env.step(action)
            if step.terminated or step.truncated:
                observation = env.reset(seed=None)
    """

    spec: EnvSpec

    def reset(self, *, seed: int | None) -> Observation:
        """Starts an episode; returns the first observation."""
        ...

    def step(self, action: NDArray[np.float32]) -> SingleStep:
        """One agent step: `action_repeat` simulator steps, rewards summed, stopping at an end."""
        ...

    def close(self) -> None:
        """Frees the simulator."""
        ...


class BatchedEnv(Protocol):
    """N copies.

    A copy whose TimeStep `is_last` is reset by the next `step`: that step ignores its action and
    hands out the first observation of a new episode with reward 0 and `is_first`.
    """

    spec: EnvSpec
    num_copies: int

    @property
    def last_fault(self) -> str:
        """What went wrong last, in any copy; empty if nothing did."""
        ...

    def reset(self, *, seed: int | None = None) -> TimeStep:
        """Starts an episode in every copy; TimeStep [N] with `is_first`.

        Args:
          seed: begins the randomness of every copy anew, each differently; None goes on.
        """
        ...

    def step(self, action: NDArray[np.float32]) -> TimeStep:
        """Steps every copy once. action float32 [N, A] -> TimeStep [N]."""
        ...

    def close(self) -> None:
        """Frees the simulators."""
        ...
