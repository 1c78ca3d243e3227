"""Assembles what N copies returned into one TimeStep, and says which copies left their space."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from actors.envs.protocol import Observation, SingleStep
from actors.envs.simulator import Limits
from system.errors import EnvironmentFault
from system.specs import EnvSpec
from system.types import TimeStep


class Rows:
    """Fresh arrays for N copies; each copy's row is put once, then `time_step` hands them out.

    Nothing writes to them afterwards, so a TimeStep never changes.
    """

    def __init__(self, spec: EnvSpec, limits: dict[str, Limits], num_copies: int) -> None:
        self._spec, self._limits = spec, limits
        self._observation = {
            key: np.zeros((num_copies, *array.shape), array.dtype)
            for key, array in spec.observation.items()
        }
        self._numbers = [k for k, array in spec.observation.items() if array.dtype == "float32"]
        """Which may be not finite or out of bounds."""
        self._reward = np.zeros(num_copies, np.float32)
        self._is_first = np.zeros(num_copies, np.bool_)
        self._is_last = np.zeros(num_copies, np.bool_)
        self._is_terminal = np.zeros(num_copies, np.bool_)

    def put_first(self, copy: int, observation: Observation) -> None:
        """Row of an episode's first observation. Raises EnvironmentFault on a wrong shape."""
        self._put(copy, observation)
        self._reward[copy] = 0
        self._is_first[copy] = True
        self._is_last[copy] = self._is_terminal[copy] = False

    def put_step(self, copy: int, step: SingleStep) -> None:
        """Row of a step. Raises EnvironmentFault on a wrong shape."""
        self._put(copy, step.observation)
        self._reward[copy] = step.reward
        self._is_last[copy] = step.terminated or step.truncated
        self._is_terminal[copy] = step.terminated

    def outside(self, copies: Iterable[int]) -> dict[int, EnvironmentFault]:
        """Which of these copies hold a value that is not finite or is out of bounds."""
        good = np.isfinite(self._reward)
        for key in self._numbers:
            good &= self._inside(key).reshape(len(good), -1).all(axis=1)
        if good.all():
            return {}
        return {copy: self._describe(copy) for copy in copies if not good[copy]}

    def time_step(self) -> TimeStep:
        """The arrays themselves: put nothing afterwards."""
        return TimeStep(
            observation=self._observation,
            reward=self._reward,
            is_first=self._is_first,
            is_last=self._is_last,
            is_terminal=self._is_terminal,
        )

    def _put(self, copy: int, observation: Observation) -> None:
        if observation.keys() != self._observation.keys():
            raise EnvironmentFault(
                "outside_space",
                f"shows {sorted(observation)} instead of {sorted(self._observation)}",
            )
        for key, array in self._observation.items():
            # Checked, because a shorter row would silently broadcast.
            if observation[key].shape != array.shape[1:]:
                raise EnvironmentFault(
                    "outside_space",
                    f"{key!r} has shape {observation[key].shape} instead of {array.shape[1:]}: "
                    "mend the environment or its observation space",
                )
            # Numbers are converted; what is no uint8 is no image, and would silently wrap around.
            if array.dtype == np.uint8 and observation[key].dtype != np.uint8:
                raise EnvironmentFault(
                    "outside_space",
                    f"{key!r} is {observation[key].dtype} instead of uint8: mend the environment "
                    "or its observation space",
                )
            array[copy] = observation[key]

    def _inside(self, key: str) -> NDArray[np.bool_]:
        """Which elements [N, ...] are finite and within bounds."""
        array = self._observation[key]
        inside: NDArray[np.bool_] = np.isfinite(array)
        if key in self._limits:
            inside &= (array >= self._limits[key].low) & (array <= self._limits[key].high)
        return inside

    def _describe(self, copy: int) -> EnvironmentFault:
        """Names the first bad element of each observation; whole arrays would be too long."""
        found = [] if np.isfinite(self._reward[copy]) else [f"reward is {self._reward[copy]}"]
        for key in self._numbers:
            for where in np.argwhere(~self._inside(key)[copy])[:1]:
                index = tuple(where.tolist())
                found.append(f"{key}{list(index)} is {self._observation[key][copy][index]}")
        return EnvironmentFault("outside_space", f"not finite or out of bounds: {', '.join(found)}")
