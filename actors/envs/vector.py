"""Vector environments of gymnasium, whichever way they reset themselves, as rows of our Tracks.

A tick of a vector environment in NEXT_STEP mode is one row per copy. In SAME_STEP and DISABLED
mode a copy that ends brings two rows at the same tick, the last of one episode and the first of
the next, while the other copies bring one. So an adapter hands out a list of (TimeStep, copies)::

    mode        tick at which copy 1 of 2 ends                  next tick
    NEXT_STEP   [o0, last1] of copies 0, 1                      [o0, first1] (action ignored)
    SAME_STEP   [-, last1] of copy 1, then [o0, first1]         [o0, o1]
    DISABLED    like SAME_STEP; we call reset(reset_mask) ourselves

`BatchedEnv` over single copies (`make_env`) does not need this; it is for environments that only
exist as a vector (simulators on an accelerator).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from actors.envs.actions import executed
from actors.envs.spaces import ActionWriter, ObservationReader
from system.errors import ConfigError
from system.specs import EnvSpec
from system.types import TimeStep

Tick = list[tuple[TimeStep, NDArray[np.int64]]]
"""What one call brought: TimeSteps [N] in order, each with the copies whose rows count."""


class VectorRows:
    """Rows of a vector environment.

    The loop that uses it::

        rows = from_vector(env)
        tick = rows.reset(seeds)
        while True:
            for time_step, copies in tick:
                chunks = chunker.add(time_step, action(time_step), 0, latent, copies=copies)
            tick = rows.step(action(tick[-1][0]))
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str, mode: AutoresetMode) -> None:
        self._env, self._mode = env, mode
        self.num_copies = env.num_envs
        reader = ObservationReader(name, env.single_observation_space)
        writer = ActionWriter(name, env.single_action_space)
        self._read, self._native = reader.read, writer.native
        self.spec = EnvSpec(name=name, observation=reader.specs, action=writer.spec)
        self._all = np.arange(self.num_copies)
        self._none = np.zeros(self.num_copies, np.bool_)
        self._over = self._none

    def reset(self, seeds: list[int]) -> Tick:
        """Starts an episode in every copy, seeded one by one."""
        seen, _ = self._env.reset(seed=seeds)
        self._over = self._none
        return [(self._first(self._rows_of(seen), ~self._none), self._all)]

    def step(self, action: NDArray[np.float32]) -> Tick:
        """Steps every copy once. action float32 [N, A], for the last TimeStep of the last tick."""
        native = [self._native(row) for row in executed(self.spec.action, action)]
        seen, reward, terminated, truncated, info = self._env.step(np.stack(native))
        rows, over = self._rows_of(seen), terminated | truncated
        started = self._over if self._mode is AutoresetMode.NEXT_STEP else self._none
        last = self._time_step(rows, reward, started, over, terminated)
        self._over = over
        if self._mode is AutoresetMode.NEXT_STEP or not over.any():
            return [(last, self._all)]
        if self._mode is AutoresetMode.SAME_STEP:
            final = [self._read(info["final_obs"][i]) for i in np.flatnonzero(over)]
            return self._two(rows, final, last, over)
        after, _ = self._env.reset(options={"reset_mask": over.copy()})
        final = [{key: array[i] for key, array in rows.items()} for i in np.flatnonzero(over)]
        return self._two(self._rows_of(after), final, last, over)

    def close(self) -> None:
        """Frees the simulators."""
        self._env.close()

    def _two(
        self,
        after: dict[str, NDArray[np.float32]],
        final: list[dict[str, NDArray[np.float32]]],
        last: TimeStep,
        over: NDArray[np.bool_],
    ) -> Tick:
        """The last rows of the copies that ended, then a row of every copy."""
        ended = np.flatnonzero(over)
        observation = {key: array.copy() for key, array in after.items()}
        for i, seen in zip(ended, final, strict=True):
            for key, array in seen.items():
                observation[key][i] = array
        ends = self._time_step(observation, last.reward, self._none, over, last.is_terminal)
        goes_on = self._time_step(
            after, np.where(over, 0, last.reward), over, self._none, self._none
        )
        return [(ends, ended), (goes_on, self._all)]

    def _rows_of(self, seen: Any) -> dict[str, NDArray[np.float32]]:  # noqa: ANN401
        """Batched native observations -> float32 [N, ...] by key."""
        rows = [self._read(row) for row in iterate(self._env.observation_space, seen)]
        return {key: np.stack([row[key] for row in rows]) for key in self.spec.observation}

    def _first(
        self, observation: dict[str, NDArray[np.float32]], started: NDArray[np.bool_]
    ) -> TimeStep:
        reward = np.zeros(self.num_copies, np.float32)
        return self._time_step(observation, reward, started, self._none, self._none)

    @staticmethod
    def _time_step(
        observation: dict[str, NDArray[np.float32]],
        reward: NDArray[Any],
        is_first: NDArray[np.bool_],
        is_last: NDArray[np.bool_],
        is_terminal: NDArray[np.bool_],
    ) -> TimeStep:
        return TimeStep(
            observation=observation,
            reward=reward.astype(np.float32),
            is_first=is_first.copy(),
            is_last=is_last.copy(),
            is_terminal=is_terminal.copy(),
        )


def from_vector(env: VectorEnv[Any, Any, Any], *, name: str = "") -> VectorRows:
    """Adapts a vector environment by the autoreset mode it declares.

    Args:
      env: any gymnasium vector environment; `metadata["autoreset_mode"]` says how it resets.
      name: recorded in the spec and in every Chunk; the id of the environment by default.

    Raises:
      ConfigError: it does not say how it resets, or its spaces are not supported.
    """
    name = name or (env.spec.id if env.spec else type(env).__name__)
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise ConfigError(
            f"vector environment {name!r} does not say how it resets; set "
            f"metadata['autoreset_mode'] to one of {[str(each) for each in AutoresetMode]}"
        )
    return VectorRows(env, name, mode)
