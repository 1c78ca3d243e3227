"""Our code draws what theirs drew: torch's random functions answer from a list."""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import torch


def noise_for(logits, drawn, unimix):
    """Uniform noise [..., S] for which `OneHot.sample` draws these one-hot rows [..., S, K].

    It lies in the middle of the class's share of the cumulative probability.
    """
    probs = (1 - unimix) * torch.softmax(logits, -1) + unimix / logits.shape[-1]
    ends = probs.cumsum(-1)
    return ((ends - probs / 2) * drawn).sum(-1)


class Draws:
    """Noise of one update: posteriors [B, T, S], dreamed codes [N, H, S], actions [N, H + 1, A]."""

    def __init__(self, posterior, dream, action):
        self._posterior, self._dream, self._action = posterior, dream, action
        self._dreamed = self._acted = 0

    @contextmanager
    def given(self):
        """Inside, torch draws these, in the order of time, step by step or all at once."""
        self._dreamed = self._acted = 0
        uniform, normal = self._uniform, self._normal
        with (
            patch.object(torch, "rand", lambda *shape, **_: uniform(shape)),
            patch.object(torch, "rand_like", lambda x, **_: uniform(x.shape)),
            patch.object(torch, "randn", lambda *shape, **_: normal(shape)),
            patch.object(torch, "randn_like", lambda x, **_: normal(x.shape)),
        ):
            yield

    def _uniform(self, shape):
        B, T, S = self._posterior.shape
        N, H, _ = self._dream.shape
        if tuple(shape[:3]) == (T, B, S):
            return self._posterior.transpose(0, 1).reshape(shape).clone()
        if tuple(shape[:3]) == (N, H, S):
            return self._dream.reshape(shape).clone()
        assert tuple(shape[:2]) == (N, S), f"what is drawn as {tuple(shape)}?"
        self._dreamed += 1
        return self._dream[:, self._dreamed - 1].reshape(shape).clone()

    def _normal(self, shape):
        if tuple(shape) == tuple(self._action.shape):
            return self._action.clone()
        assert tuple(shape) == tuple(self._action[:, 0].shape), f"what is drawn as {tuple(shape)}?"
        self._acted += 1
        return self._action[:, self._acted - 1].clone()
