"""One copy made of a simulator: action repeat, reward sums and the time limit.

::

    SingleEnv.step(action)  -> up to `action_repeat` x simulator.advance(action), then observe()
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.config import EnvConfig
from actors.envs.actions import executed
from actors.envs.protocol import Observation, SingleStep
from system.specs import ActionSpec, ArraySpec, EnvSpec

TOLERANCE = 0.01
"""How far outside finite bounds an observation may lie, as a share of their span (at least 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of one observation array; infinite where the environment states none."""

    low: NDArray[np.float32]
    """float32 [...], the stated bound less the tolerance."""
    high: NDArray[np.float32]
    """float32 [...], the stated bound plus the tolerance."""

    @classmethod
    def around(cls, low: NDArray[np.float64], high: NDArray[np.float64]) -> Limits:
        """Limits with tolerance around stated bounds, each [...]."""
        bounded = np.isfinite(low) & np.isfinite(high)
        span = np.where(bounded, np.where(bounded, high, 1) - np.where(bounded, low, 0), 1)
        slack = TOLERANCE * np.maximum(span, 1)
        return cls(low=(low - slack).astype(np.float32), high=(high + slack).astype(np.float32))


class Advance(NamedTuple):
    """What one simulator step came to."""

    reward: float
    terminated: bool
    truncated: bool


class Simulator(Protocol):
    """One simulator behind normalized actions; adapters implement it.

    The loop that uses it::

        simulator.reset(seed=0)
        while not (advance.terminated or advance.truncated):
            observation = simulator.observe()
            advance = simulator.advance(action)
    """

    observation: dict[str, ArraySpec]
    action: ActionSpec
    limits: dict[str, Limits]
    """Bounds of those observation arrays that have finite ones."""

    def reset(self, *, seed: int | None) -> None:
        """Starts an episode."""
        ...

    def advance(self, action: NDArray[np.float32]) -> Advance:
        """One simulator step with an executed action, float32 [A]."""
        ...

    def observe(self) -> Observation:
        """What is seen now: fresh arrays, as in `observation`."""
        ...

    def close(self) -> None:
        """Frees the simulator."""
        ...


class SimulatorEnv:
    """A SingleEnv that repeats actions and counts the time limit in simulator steps."""

    def __init__(self, simulator: Simulator, config: EnvConfig) -> None:
        self._simulator = simulator
        self._repeat = config.action_repeat
        self._time_limit = config.time_limit
        self._simulator_steps = 0
        self.limits = simulator.limits
        # Pictures taken otherwise are other data: they are part of the digest.
        seen = {} if config.pixels.show == "off" else {"pixels": asdict(config.pixels)}
        self.spec = EnvSpec(
            name=config.name,
            observation=simulator.observation,
            action=simulator.action,
            action_repeat=config.action_repeat,
            env_args={**config.args, **seen},
        )

    def reset(self, *, seed: int | None) -> Observation:
        """Starts an episode; returns the first observation."""
        self._simulator.reset(seed=seed)
        self._simulator_steps = 0
        return self._simulator.observe()

    def step(self, action: NDArray[np.float32]) -> SingleStep:
        """One agent step. action float32 [A], clipped to what the environment can execute."""
        action = executed(self.spec.action, action)
        reward = 0.0
        for _ in range(self._repeat):
            advance = self._simulator.advance(action)
            reward += advance.reward
            self._simulator_steps += 1
            late = 0 < self._time_limit <= self._simulator_steps
            truncated = advance.truncated or late
            if advance.terminated or truncated:
                break
        return SingleStep(
            observation=self._simulator.observe(),
            reward=reward,
            terminated=advance.terminated,
            truncated=truncated,
        )

    def close(self) -> None:
        """Frees the simulator."""
        self._simulator.close()
