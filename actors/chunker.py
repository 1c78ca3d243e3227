"""Cuts the Tracks of N copies into Chunks. Pure: no clock, no threads, no store.

::

    rows of copy 0   | . . . . | . . . . | . .       L = 4, N = 2
    rows of copy 1   | . . | . . . . | . . . .       its first Chunk is short, so that the copies
                           ^         ^               do not all seal at the same step
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from actors.envs.actions import executed
from system.specs import EnvSpec
from system.types import (
    ACTION,
    IS_FIRST,
    IS_LAST,
    IS_TERMINAL,
    OBSERVATION_PREFIX,
    REWARD,
    Array,
    Chunk,
    TimeStep,
)

LatentOf = Callable[[], dict[str, Array]]


class Chunker:
    """Collects Steps and seals Chunks.

    The loop that uses it::

        for chunk in chunker.add(time_step, action, version, carry.latent):
            writer.offer(chunk)

    Sequence numbers count from 1 in the order of sealing. A row marked `is_first` whose
    predecessor was not `is_last` shows an episode cut by a fault: if the predecessor is still here
    it is marked `is_last` (if it was sealed already, the reader derives it).
    """

    def __init__(
        self, spec: EnvSpec, *, slot: int, incarnation: int, num_copies: int, chunk_length: int
    ) -> None:
        self._spec, self._digest = spec, spec.digest
        self._slot, self._incarnation = slot, incarnation
        self._sequence = 0
        self._columns = _columns(spec, num_copies, chunk_length)
        self._observed = [
            (key, self._columns[OBSERVATION_PREFIX + key]) for key in spec.observation
        ]
        self._time = 0
        """Rows that every copy has had; row t lies at t modulo L."""
        self._chunk_length = chunk_length
        self._begins = [0] * num_copies
        """Time of the first row of each copy's Chunk."""
        self._ends = [chunk_length - i * chunk_length // num_copies for i in range(num_copies)]
        """Time when it is full."""
        self._next_end = min(self._ends)
        self._begun = False
        """Whether every copy's Chunk has a row."""
        self._version = 0
        self._version_min = np.zeros(num_copies, np.int64)
        self._version_max = np.zeros(num_copies, np.int64)
        self._latent: list[dict[str, Array]] = [{} for _ in range(num_copies)]

    def add(
        self,
        time_step: TimeStep,
        action: NDArray[np.float32],
        version: int,
        latent: LatentOf,
    ) -> list[Chunk]:
        """Adds one Step per copy.

        Args:
          time_step: TimeStep [N].
          action: float32 [N, A], chosen after it; stored as executed, zero where `is_last`.
          version: of the policy that chose it.
          latent: the posterior after `time_step`, arrays [N, ...]; called only when a Chunk starts.

        Returns:
          The Chunks this call filled, by copy; usually none.
        """
        if np.count_nonzero(time_step.is_first):
            self._cut(time_step.is_first)
        if not self._begun or version != self._version:
            self._begin(version, latent)
        self._put(time_step, executed(self._spec.action, action))
        self._time += 1
        return self._seal({}) if self._time == self._next_end else []

    def flush(self) -> list[Chunk]:
        """Seals what is there, flagged `partial`."""
        self._ends = [self._time] * len(self._ends)
        return self._seal({"partial": True})

    def _put(self, time_step: TimeStep, action: NDArray[np.float32]) -> None:
        """One row of every copy; nothing follows a last Step, so its action is padding."""
        columns, row = self._columns, self._time % self._chunk_length
        for key, column in self._observed:
            column[row] = time_step.observation[key]
        columns[ACTION][row] = action
        columns[REWARD][row] = time_step.reward
        columns[IS_FIRST][row] = time_step.is_first
        columns[IS_LAST][row] = time_step.is_last
        columns[IS_TERMINAL][row] = time_step.is_terminal
        if np.count_nonzero(time_step.is_last):
            columns[ACTION][row, time_step.is_last] = 0

    def _cut(self, is_first: NDArray[np.bool_]) -> None:
        """Ends the episodes whose next row starts another; an `is_last` row stays as it is."""
        cut = is_first & (np.array(self._begins) < self._time)
        before = (self._time - 1) % self._chunk_length
        self._columns[IS_LAST][before, cut] = True
        self._columns[ACTION][before, cut] = 0

    def _begin(self, version: int, latent: LatentOf) -> None:
        """Notes what acts from here on, and with which latent the Chunks start that start here."""
        copies = [i for i, begin in enumerate(self._begins) if begin == self._time]
        arrays = latent() if copies else {}
        for copy in copies:
            self._latent[copy] = {name: array[copy].copy() for name, array in arrays.items()}
        self._version_min[copies] = self._version_max[copies] = version
        np.maximum(self._version_max, version, out=self._version_max)
        np.minimum(self._version_min, version, out=self._version_min)
        self._version, self._begun = version, True

    def _seal(self, flags: dict[str, bool]) -> list[Chunk]:
        """The Chunks that end here; those without a row are none."""
        chunks = []
        for copy, end in enumerate(self._ends):
            if end == self._time:
                if self._begins[copy] < end:
                    chunks.append(self._seal_one(copy, flags))
                self._begins[copy], self._ends[copy] = end, end + self._chunk_length
                self._begun = False
        self._next_end = min(self._ends)
        return chunks

    def _seal_one(self, copy: int, flags: dict[str, bool]) -> Chunk:
        self._sequence += 1
        rows = np.arange(self._begins[copy], self._time) % self._chunk_length
        return Chunk(
            spec_digest=self._digest,
            env=self._spec.name,
            slot=self._slot,
            incarnation=self._incarnation,
            sequence=self._sequence,
            copy=copy,
            first_step=self._begins[copy],
            policy_version_min=int(self._version_min[copy]),
            policy_version_max=int(self._version_max[copy]),
            flags=dict(flags),
            fields={name: column[rows, copy] for name, column in self._columns.items()},
            latent=self._latent[copy],
        )


def _columns(spec: EnvSpec, num_copies: int, chunk_length: int) -> dict[str, Array]:
    """Zeroed columns [L, N, ...] for every field of a Step, in the order of a Chunk."""
    shape = (chunk_length, num_copies)
    observation: dict[str, Array] = {
        OBSERVATION_PREFIX + key: np.zeros((*shape, *array.shape), array.dtype)
        for key, array in spec.observation.items()
    }
    return {
        **observation,
        ACTION: np.zeros((*shape, spec.action.size), np.float32),
        REWARD: np.zeros(shape, np.float32),
        IS_FIRST: np.zeros(shape, np.bool_),
        IS_LAST: np.zeros(shape, np.bool_),
        IS_TERMINAL: np.zeros(shape, np.bool_),
    }
