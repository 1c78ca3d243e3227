"""Does a decoded Chunk obey the EnvSpec it names? Pure: arrays in, RejectedChunk or nothing out."""

from __future__ import annotations

from itertools import chain

import numpy as np

from system.errors import RejectedChunk
from system.specs import ActionSpec, EnvSpec
from system.types import (
    ACTION,
    IS_FIRST,
    IS_LAST,
    IS_TERMINAL,
    OBSERVATION_PREFIX,
    REWARD,
    Array,
    Chunk,
)

ACTION_TOLERANCE = 1e-5
"""How far a continuous action may lie outside [-1, 1]: rounding, not a different scale."""


def check_chunk(chunk: Chunk, spec: EnvSpec) -> None:
    """Returns if the Chunk is what `spec` promises: names, shapes, dtypes, finite, in range.

    Raises:
      RejectedChunk: reason digest, field, shape, dtype, nan, action or flags.
    """
    if chunk.spec_digest != spec.digest:
        raise RejectedChunk("digest", f"spec {chunk.spec_digest}, expected {spec.digest}")
    expected = expected_columns(spec)
    if set(chunk.fields) != set(expected):
        odd = sorted(set(chunk.fields) ^ set(expected))
        raise RejectedChunk("field", f"missing or unknown: {', '.join(odd)}"[:200])
    if chunk.fields[IS_FIRST].ndim != 1:
        raise RejectedChunk("shape", f"{IS_FIRST} has {chunk.fields[IS_FIRST].ndim} axes, not 1")
    for name, (dtype, shape) in expected.items():
        _check_column(name, chunk.fields[name], dtype, (chunk.num_steps, *shape))
    for name, array in chain(chunk.fields.items(), chunk.latent.items()):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RejectedChunk("nan", f"{name} holds a value that is not finite")
    if np.greater(chunk.fields[IS_TERMINAL], chunk.fields[IS_LAST]).any():
        raise RejectedChunk("flags", "a terminal Step that is not the last of its episode")
    _check_action(chunk.fields[ACTION], chunk.fields[IS_LAST], spec.action)


def expected_columns(spec: EnvSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Column name -> (dtype name, shape without the leading L)."""
    columns: dict[str, tuple[str, tuple[int, ...]]] = {
        OBSERVATION_PREFIX + key: (array.dtype, tuple(array.shape))
        for key, array in spec.observation.items()
    }
    columns[ACTION] = ("float32", (spec.action.size,))
    columns[REWARD] = ("float32", ())
    columns.update(dict.fromkeys((IS_FIRST, IS_LAST, IS_TERMINAL), ("bool", ())))
    return columns


def _check_column(name: str, array: Array, dtype: str, shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(dtype):  # its name is slow to ask for
        raise RejectedChunk("dtype", f"{name} is {array.dtype.name}, expected {dtype}")
    if array.shape != shape:
        raise RejectedChunk("shape", f"{name} is {array.shape}, expected {shape}")


def _check_action(action: Array, is_last: Array, spec: ActionSpec) -> None:
    """Continuous: within [-1, 1]. Discrete: one-hot, or all zeros on the last Step."""
    values = action.astype(np.float32)
    if spec.kind == "continuous":
        worst = float(np.abs(values).max())
        if worst > 1.0 + ACTION_TOLERANCE:
            raise RejectedChunk("action", f"|action| reaches {worst:.6g}, at most 1 is allowed")
        return
    ones = (values == 1.0).sum(axis=-1)
    zeros = (values == 0.0).sum(axis=-1)
    one_hot = (ones == 1) & (zeros == spec.size - 1)
    padding = (zeros == spec.size) & is_last.astype(bool)
    if not (one_hot | padding).all():
        raise RejectedChunk("action", "a discrete action that is not one-hot")
