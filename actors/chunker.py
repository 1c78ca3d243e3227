"""Cuts the Tracks of N copies into Chunks. Pure: no clock, no threads, no store.

::

    rows of copy 0   | . . . . | . . . . | . .       L = 4, N = 2
    rows of copy 1   | . . | . . . . | . . . .       its first Chunk is short, so that the copies
                           ^         ^               do not all seal at the same step
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        self._copies = np.arange(num_copies)
        self._rows = np.zeros(num_copies, np.int64)
        self._lengths = chunk_length - self._copies * chunk_length // num_copies
        self._chunk_length = chunk_length
        self._first_step = np.zeros(num_copies, np.int64)
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
        self._cut(time_step.is_first)
        self._start(self._copies[self._rows == 0], version, latent)
        for name, values in _values(time_step, executed(self._spec.action, action)).items():
            self._columns[name][self._copies, self._rows] = values
        np.maximum(self._version_max, version, out=self._version_max)
        np.minimum(self._version_min, version, out=self._version_min)
        self._rows += 1
        return self._seal(self._copies[self._rows == self._lengths], {})

    def flush(self) -> list[Chunk]:
        """Seals what is there, flagged `partial`."""
        return self._seal(self._copies[self._rows > 0], {"partial": True})

    def _cut(self, is_first: NDArray[np.bool_]) -> None:
        """Ends the episodes whose next row starts another; an `is_last` row stays as it is."""
        cut = is_first & (self._rows > 0)
        if cut.any():
            before = (self._copies[cut], self._rows[cut] - 1)
            self._columns[IS_LAST][before] = True
            self._columns[ACTION][before] = 0

    def _start(self, copies: NDArray[np.int64], version: int, latent: LatentOf) -> None:
        if not len(copies):
            return
        arrays = latent()
        for copy in copies:
            self._latent[copy] = {name: array[copy].copy() for name, array in arrays.items()}
        self._version_min[copies] = self._version_max[copies] = version

    def _seal(
        self, copies: Sequence[int] | NDArray[np.int64], flags: dict[str, bool]
    ) -> list[Chunk]:
        return [self._seal_one(int(copy), flags) for copy in copies]

    def _seal_one(self, copy: int, flags: dict[str, bool]) -> Chunk:
        self._sequence += 1
        num_steps = int(self._rows[copy])
        chunk = Chunk(
            spec_digest=self._digest,
            env=self._spec.name,
            slot=self._slot,
            incarnation=self._incarnation,
            sequence=self._sequence,
            copy=copy,
            first_step=int(self._first_step[copy]),
            policy_version_min=int(self._version_min[copy]),
            policy_version_max=int(self._version_max[copy]),
            flags=dict(flags),
            fields={
                name: column[copy, :num_steps].copy() for name, column in self._columns.items()
            },
            latent=self._latent[copy],
        )
        self._first_step[copy] += num_steps
        self._rows[copy] = 0
        self._lengths[copy] = self._chunk_length
        return chunk


def _columns(spec: EnvSpec, num_copies: int, chunk_length: int) -> dict[str, Array]:
    """Zeroed columns [N, L, ...] for every field of a Step."""
    shape = (num_copies, chunk_length)
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


def _values(time_step: TimeStep, action: NDArray[np.float32]) -> dict[str, Array]:
    """One row [N, ...] per field; nothing follows a last Step, so its action is padding."""
    observation: dict[str, Array] = {
        OBSERVATION_PREFIX + key: array for key, array in time_step.observation.items()
    }
    return {
        **observation,
        ACTION: np.where(time_step.is_last[:, None], np.float32(0), action),
        REWARD: time_step.reward,
        IS_FIRST: time_step.is_first,
        IS_LAST: time_step.is_last,
        IS_TERMINAL: time_step.is_terminal,
    }
