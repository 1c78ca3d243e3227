"""Assembles what N copies returned into one TimeStep, and says which copies left their space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.envs.protocol import Observation, SingleStep
from actors.envs.simulator import Limits
from system.errors import EnvironmentFault
from system.specs import EnvSpec
from system.types import Array, TimeStep

LARGEST = np.finfo(np.float32).max


class Column(NamedTuple):
    """Where one observation of all copies lies."""

    key: str
    shape: tuple[int, ...]
    """Of one copy."""
    first: int
    past: int
    """Its elements in the numbers of all Rows, [first, past); an image has none."""

    @property
    def is_image(self) -> bool:
        """Whether it is uint8, and an array of its own."""
        return self.first == self.past


class Layout:
    """What all Rows of an environment have in common.

    Numbers (float32 observations, each [N, ...], then the reward [N]) lie in one piece, so that two
    comparisons judge them all.
    """

    def __init__(self, spec: EnvSpec, limits: Mapping[str, Limits], num_copies: int) -> None:
        self.num_copies, self.columns, past = num_copies, [], 0
        for key, array in spec.observation.items():
            first, past = past, past + (num_copies * array.size if array.dtype == "float32" else 0)
            self.columns.append(Column(key, array.shape, first, past))
        self.num_numbers = past
        self.low = np.full(past + num_copies, -LARGEST, np.float32)
        """What is finite and within bounds is at least this, float32 [numbers]."""
        self.high = -self.low
        """At most this; no comparison holds for NaN."""
        for key, _, first, past in self.columns:
            if key in limits and past > first:
                self.low[first:past] = np.tile(limits[key].low.ravel(), num_copies)
                self.high[first:past] = np.tile(limits[key].high.ravel(), num_copies)
        np.clip(self.low, -LARGEST, LARGEST, out=self.low)
        np.clip(self.high, -LARGEST, LARGEST, out=self.high)


class Rows:
    """Fresh arrays for N copies; each copy's row is put once, then `time_step` hands them out.

    Nothing writes to them afterwards, so a TimeStep never changes.
    """

    def __init__(self, layout: Layout) -> None:
        num_copies = layout.num_copies
        self._layout = layout
        self._numbers = np.zeros(len(layout.low), np.float32)
        self._reward = self._numbers[layout.num_numbers :]
        self._observation: dict[str, Array] = {
            column.key: np.zeros((num_copies, *column.shape), np.uint8)
            if column.is_image
            else self._numbers[column.first : column.past].reshape(num_copies, *column.shape)
            for column in layout.columns
        }
        self._is_first, self._is_last, self._is_terminal = np.zeros((3, num_copies), np.bool_)

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
        inside = self._numbers >= self._layout.low
        inside &= self._numbers <= self._layout.high
        if np.count_nonzero(inside) == len(inside):
            return {}
        found = ((copy, self._describe(copy, inside)) for copy in copies)
        return {copy: fault for copy, fault in found if fault is not None}

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
        for column in self._layout.columns:
            key, shape, _, _ = column
            seen = observation[key]
            # Checked, because a shorter row would silently broadcast.
            if seen.shape != shape:
                raise EnvironmentFault(
                    "outside_space",
                    f"{key!r} has shape {seen.shape} instead of {shape}: mend the environment or "
                    "its observation space",
                )
            # Numbers are converted; what is no uint8 is no image, and would silently wrap around.
            if column.is_image and seen.dtype != np.uint8:
                raise EnvironmentFault(
                    "outside_space",
                    f"{key!r} is {seen.dtype} instead of uint8: mend the environment or its "
                    "observation space",
                )
            self._observation[key][copy] = seen

    def _describe(self, copy: int, inside: NDArray[np.bool_]) -> EnvironmentFault | None:
        """Names the first bad element of each observation; whole arrays would be too long."""
        layout, reward = self._layout, self._reward[copy]
        found = [] if inside[layout.num_numbers + copy] else [f"reward is {reward}"]
        for key, shape, first, past in layout.columns:
            if past > first:
                good = inside[first:past].reshape(layout.num_copies, *shape)[copy]
                for where in np.argwhere(~good)[:1]:
                    index = tuple(where.tolist())
                    value = self._observation[key][copy][index]
                    found.append(f"{key}{list(index)} is {value}")
        if not found:
            return None
        return EnvironmentFault("outside_space", f"not finite or out of bounds: {', '.join(found)}")
