"""Which recorded stretches to dream beside: the newest, and rather those not trained on yet."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.arena import NONE, Arena, Ordinals
from system.chunk_check import expected_columns
from system.types import IS_FIRST, OBSERVATION_PREFIX

WINDOW = 8
"""The newest so many times the wanted Steps are looked through."""
VARIANCE_STEPS = 4096
"""Most Steps behind a variance, evenly spaced over the arena."""
VARIANCE_BYTES = 32 * 1024**2
"""And what they may take while it is computed, in float64 [bytes]."""


def newest_stretches(arena: Arena, *, count: int, context: int, horizon: int) -> Ordinals:
    """Up to `count` stretches of `context` + `horizon` Steps that share no Step, the best first.

    The episode of the context reaches at least one Step further. Those of which more dreamed Steps
    were never trained on come first, then the newer ones.

    Returns:
      int64 [N]: their context Steps, as `Arena.sample` takes them.
    """
    length = context + horizon
    first = max(arena.oldest, arena.end - WINDOW * count * length)
    starts = np.arange(first, arena.end)
    starts = starts[arena.columns.known[starts % arena.capacity]]
    steps = _walk(arena, starts, length)
    usable = (steps >= arena.oldest).all(1)
    usable &= ~arena.storage.read(IS_FIRST, steps[:, 1 : context + 1] % arena.capacity).any(1)
    starts, steps = starts[usable], steps[usable]
    unseen = ~arena.columns.known[steps[:, context:] % arena.capacity]
    order = np.lexsort((-starts, -unseen.mean(1))) if len(starts) else starts
    taken: set[int] = set()
    chosen: list[int] = []
    for place in order:
        if len(chosen) == count:
            break
        own = steps[place].tolist()
        if taken.isdisjoint(own):
            taken.update(own)
            chosen.append(int(place))
    return starts[chosen]


def _walk(arena: Arena, starts: Ordinals, length: int) -> NDArray[np.int64]:
    """The `length` Steps after each start, int64 [starts, length]; NONE where there are none."""
    steps = np.full((len(starts), length), NONE, np.int64)
    current = starts
    for place in range(length):
        following = arena.columns.successor[current % arena.capacity]
        current = np.where(current == NONE, NONE, following)
        steps[:, place] = current
    return steps


def variances(arena: Arena) -> dict[str, Tensor]:
    """By observation: the variance of each element over the whole arena, float32 [...]."""
    found = {}
    for name, (_, shape) in expected_columns(arena.spec).items():
        if name.startswith(OBSERVATION_PREFIX):
            row_bytes = max(1, math.prod(shape)) * np.dtype(np.float64).itemsize
            most = max(2, min(VARIANCE_STEPS, VARIANCE_BYTES // row_bytes))
            rows = np.unique(np.linspace(arena.oldest, arena.end - 1, most).astype(np.int64))
            values = arena.storage.read(name, rows % arena.capacity).astype(np.float64)
            variance = torch.from_numpy(np.asarray(values.var(0))).float().to(arena.device)
            found[name.removeprefix(OBSERVATION_PREFIX)] = variance
    return found
