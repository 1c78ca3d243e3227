"""Lambda-returns and their scale (DreamerV3, Nature 2025, Methods: actor critic learning)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lambda_return(
    reward: Tensor, alive: Tensor, flows: Tensor, bootstrap: Tensor, return_lambda: float
) -> Tensor:
    """R_t = r' + alive' * ((1 - c') * v' + c' * R'), primes at t + 1, c = flows * lambda.

    Args:
      reward: float32 [N, T], arrived WITH each Step.
      alive: float32 [N, T], discount times probability that the future goes on after each Step.
      flows: float32 [N, T], 0 where a return may not be followed further (last Step of an
        episode), else 1.
      bootstrap: float32 [N, T], value of each Step.
      return_lambda: share of the longer return.

    Returns:
      float32 [N, T - 1]: the returns of all Steps but the last.
    """
    carried = flows[:, 1:] * return_lambda
    one_step = reward[:, 1:] + alive[:, 1:] * (1.0 - carried) * bootstrap[:, 1:]
    decay = alive[:, 1:] * carried
    returns = [bootstrap[:, -1]]
    for t in reversed(range(one_step.shape[1])):
        returns.append(torch.addcmul(one_step[:, t], decay[:, t], returns[-1]))
    return torch.stack(returns[:0:-1], 1)


class ReturnScale(nn.Module):
    """max(1, P95 - P5) of imagined returns, with slowly moving percentiles."""

    low: Tensor
    high: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Follows the percentiles of `returns` [...] and gives the scale, float32 []."""
        ordered = returns.detach().flatten().float().sort().values
        last = ordered.numel() - 1
        low, high = ordered[round(0.05 * last)], ordered[round(0.95 * last)]
        self.low.lerp_(low, self._rate)
        self.high.lerp_(high, self._rate)
        return (self.high - self.low).clamp(min=1.0)
