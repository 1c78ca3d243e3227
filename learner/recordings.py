"""Which recorded stretches to dream beside: the newest, and rather those not trained on yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.arena import NONE, Arena, Ordinals
from system.types import IS_FIRST, OBSERVATION_PREFIX

WINDOW = 8
"""The newest so many times the wanted Steps are looked through."""
VARIANCE_STEPS = 4096
VARIANCE_IMAGES = 256
"""Steps behind a variance, evenly spaced over the arena."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretches:
    """Where N Sequences begin, the best ones first."""

    contexts: Ordinals
    """int64 [N]: their context Steps, as `Arena.sample` takes them."""
    unseen_share: float
    """Share of the dreamed Steps that no update had been trained on [ratio]."""


def newest_stretches(arena: Arena, *, count: int, context: int, horizon: int) -> Stretches:
    """Up to `count` stretches of `context` + `horizon` Steps that share no Step.

    The episode of the context reaches at least one Step further. Those of which more dreamed Steps
    were never trained on come first, then the newer ones.
    """
    length = context + horizon
    first = max(arena.oldest, arena.end - WINDOW * count * length)
    starts = np.arange(first, arena.end)
    starts = starts[arena.columns.known[starts % arena.capacity]]
    steps = _walk(arena, starts, length)
    usable = (steps >= arena.oldest).all(1)
    usable &= ~arena.columns.fields[IS_FIRST][steps[:, 1 : context + 1] % arena.capacity].any(1)
    starts, steps = starts[usable], steps[usable]
    unseen = ~arena.columns.known[steps[:, context:] % arena.capacity]
    order = np.lexsort((-starts, -unseen.mean(1))) if len(starts) else starts
    taken: set[int] = set()
    chosen: list[int] = []
    for place in order:
        own = steps[place].tolist()
        if len(chosen) < count and taken.isdisjoint(own):
            taken.update(own)
            chosen.append(int(place))
    share = float(unseen[chosen].mean()) if chosen else 0.0
    return Stretches(contexts=starts[chosen], unseen_share=share)


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
    for name, column in arena.columns.fields.items():
        if name.startswith(OBSERVATION_PREFIX):
            most = VARIANCE_IMAGES if column.ndim == 4 else VARIANCE_STEPS
            rows = np.unique(np.linspace(arena.oldest, arena.end - 1, most).astype(np.int64))
            values = column[rows % arena.capacity].astype(np.float64)
            variance = torch.from_numpy(values.var(0)).float().to(arena.device)
            found[name.removeprefix(OBSERVATION_PREFIX)] = variance
    return found
