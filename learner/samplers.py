"""Which Sequences to train on: every fresh one once, the rest uniformly."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from learner.arena import Arena, Ordinals


class Sampler(Protocol):
    """Draws context Steps; the arena gathers the Sequences after them."""

    def draw(self, arena: Arena, count: int) -> Ordinals:
        """Ordinals int64 [up to count] of Steps that can be a context."""
        ...


class FreshSampler:
    """Each Track's Steps in order, without overlap, each trained once as soon as it can be.

    (The "online queue" of the authors' code.) It may return fewer than `count`.
    """

    def draw(self, arena: Arena, count: int) -> Ordinals:
        """Ordinals int64 [0..count], at most one per Track."""
        drawn: list[int] = []
        for track in arena.tracks.values():
            if len(drawn) == count:
                break
            if arena.can_be_context(np.array([track.fresh]))[0]:
                drawn.append(track.fresh)
                track.fresh = _after(arena, track.fresh)
        return np.array(drawn, np.int64)


def _after(arena: Arena, context: int) -> int:
    """The context of the next fresh Sequence: T Steps on, the last Step of this one."""
    for _ in range(arena.batch_length):
        context = int(arena.columns.successor[context % arena.capacity])
    return context


class UniformSampler:
    """Every Step that can be a context is equally likely."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def draw(self, arena: Arena, count: int) -> Ordinals:
        """Ordinals int64 [count]; empty if no Step can be a context yet."""
        drawn = np.empty(0, np.int64)
        for _ in range(8):
            guess = self.generator.integers(arena.oldest, max(arena.end, 1), 4 * count)
            drawn = np.concatenate([drawn, guess[arena.can_be_context(guess)]])
            if len(drawn) >= count:
                return drawn[:count]
        # Few Steps qualify (the start of a run): list them all instead of guessing on.
        everything = np.arange(arena.oldest, arena.end)
        contexts = everything[arena.can_be_context(everything)]
        if not len(contexts):
            return contexts
        return self.generator.choice(contexts, count)


class FreshThenUniform:
    """Fresh Sequences first, the rest of the Batch uniformly."""

    def __init__(self, seed: int) -> None:
        self.fresh = FreshSampler()
        self.uniform = UniformSampler(seed)

    def draw(self, arena: Arena, count: int) -> Ordinals:
        """Ordinals int64 [count], or empty while nothing can be sampled."""
        fresh = self.fresh.draw(arena, count)
        rest = self.uniform.draw(arena, count - len(fresh)) if len(fresh) < count else fresh[:0]
        drawn = np.concatenate([fresh, rest])
        if len(drawn) == count or not len(drawn):
            return drawn
        # Only fresh ones exist so far: repeat them to fill the Batch.
        return np.resize(drawn, count)
