"""How far dreams are from what happened: error against horizon, parting step, gap. Pure.

`docs/decisions/0013-dreams-beside-reality.md` says why so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from system.dream import Gap

PARTING_ERROR = 0.5
"""A dream has parted when it explains less than half of the variance [ratio]."""
LEAST_VARIANCE = 1e-8
"""An element that varies less says nothing [squared unit of the observation]."""
MAX_ERROR = 1e30
"""Told of a model that has gone wild: float32 holds it [ratio]."""
LEAST_REWARD = 0.01
"""Returns smaller than those of so much reward per agent step count as these [reward]."""


def error_by_horizon(
    dreamed: dict[str, Tensor], real: dict[str, Tensor], here: Tensor, variance: dict[str, Tensor]
) -> Tensor:
    """Mean squared error relative to the variance: 1 is as bad as predicting the mean.

    Each element of a vector counts as one; so does an image (three axes): its pixels are added up.

    Args:
      dreamed: by name float32 [N, H, ...].
      real: of the same names, the same shapes.
      here: bool [N, H], False where the episode has ended; each column has a True.
      variance: by name float32 [...], of each element over the replay.

    Returns:
      float32 [H] [ratio].
    """
    shares = []
    weight = here.double() / here.sum(0)
    for name, prediction in dreamed.items():
        error = (prediction.double() - real[name]).square().reshape(*here.shape, -1)
        by_step = torch.einsum("nhd,nh->hd", error, weight)
        spread = variance[name].double().flatten()
        if variance[name].ndim == 3:
            by_step, spread = by_step.sum(1, keepdim=True), spread.sum(0, keepdim=True)
        varies = spread > LEAST_VARIANCE
        shares.append(by_step[:, varies] / spread[varies])
    joined = torch.cat(shares, 1)
    mean = joined.mean(1) if joined.shape[1] else joined.new_zeros(len(joined))
    return mean.clamp(max=MAX_ERROR).float()


def parting_step(error: Tensor) -> int | None:
    """The first dreamed Step (1 .. H) whose error exceeds `PARTING_ERROR`; None if none does."""
    beyond = (error > PARTING_ERROR).nonzero()
    return int(beyond[0]) + 1 if len(beyond) else None


def windowed_return(reward: Tensor, alive: Tensor, counts: Tensor) -> Tensor:
    """Discounted rewards of H Steps.

    Args:
      reward: float32 [..., H], arrived with each Step after the start.
      alive: float32 [..., H], discount times probability that the future goes on after each.
      counts: bool [..., H], False where nothing is known of reality.

    Returns:
      float64 [...].
    """
    ones = torch.ones_like(alive[..., :1])
    weight = torch.cumprod(torch.cat([ones, alive[..., :-1]], -1), -1)
    return (weight.double() * reward * counts).sum(-1)


def gap_of(real: Tensor, dreamed: Tensor, policy: Tensor, *, horizon: int, discount: float) -> Gap:
    """Compares returns [N] from the same starts, the dreamed ones averaged over dreams."""
    least = LEAST_REWARD * sum(discount**k for k in range(horizon))
    scale = max(float(real.abs().mean()), least)
    return Gap(
        real_return=float(real.mean()),
        dreamed_return=float(dreamed.mean()),
        policy_return=float(policy.mean()),
        ratio=float((dreamed - real).abs().mean()) / scale,
        policy_ratio=float((policy - real).abs().mean()) / scale,
    )
