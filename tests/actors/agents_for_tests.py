"""An agent that counts: its action and its latent are functions of what it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class CountingCarry:
    seen: np.ndarray

    def latent(self):
        return {
            "deter": self.seen.astype(np.float16)[:, None],
            "stoch": np.full((len(self.seen), 3), 7, np.uint8),
        }


@dataclass
class CountingDecision:
    action: np.ndarray
    carry: CountingCarry


class CountingAgent:
    """Counts the steps of each episode; acts by `action_of`."""

    def __init__(self, spec, digest="good"):
        self.spec, self.digest = spec, digest
        self.epoch = self.version = 0
        self.deterministic = []

    def initial_carry(self, num_copies):
        return CountingCarry(np.zeros(num_copies))

    def act(self, time_step, carry, *, deterministic):
        self.deterministic.append(deterministic)
        seen = np.where(time_step.is_first, 1, carry.seen + 1)
        return CountingDecision(action_of(self.spec, time_step), CountingCarry(seen))

    def load(self, snapshot):
        if snapshot.model_digest != self.digest:
            raise ValueError(f"policy is for {snapshot.model_digest}, this is {self.digest}")
        self.epoch, self.version = snapshot.epoch, snapshot.version


def action_of(spec, time_step):
    """float32 [N, A] in [-1.5, 1.5]: a function of the observation alone."""
    first = next(iter(time_step.observation.values()))
    total = first.reshape(len(first), -1).sum(axis=1)
    return np.float32(1.5) * np.sin(total[:, None] + np.arange(spec.action.size, dtype=np.float32))
