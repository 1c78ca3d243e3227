"""Scalar transforms of DreamerV3 (Hafner et al., Nature 2025, Methods)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BIN_LIMIT = 20.0
"""symexp(20) is the largest value a two-hot head can express [natural log units]."""


def symlog(x: Tensor) -> Tensor:
    """sign(x) * log(1 + abs(x)), elementwise."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`, elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def two_hot_bins(num_bins: int) -> Tensor:
    """float32 [V] exponentially spaced bins, mirrored around an exact zero.

    Args:
      num_bins: V, odd.
    """
    # On the host also where models are only described: there, torch would load its compiler for it.
    exponents = torch.linspace(
        -BIN_LIMIT, 0.0, (num_bins - 1) // 2 + 1, dtype=torch.float32, device="cpu"
    )
    half = symexp(exponents)
    return torch.cat([half, -half[:-1].flip(0)])


@dataclass(frozen=True, slots=True)
class TwoHotTarget:
    """Weights on two neighboring bins whose expectation is the value."""

    below: Tensor
    """int64 [...]: index of the lower bin; the upper one is the next."""
    share_above: Tensor
    """float32 [...] in [0, 1]: weight of the upper bin; the lower one has the rest."""


def two_hot(values: Tensor, bins: Tensor) -> TwoHotTarget:
    """Splits each value [...] between its two neighbors among the growing `bins` [V].

    Values beyond the outermost bins go to these.
    """
    values = values.clamp(bins[0], bins[-1]).contiguous()
    below = torch.searchsorted(bins, values, right=True).sub_(1).clamp_(0, len(bins) - 2)
    low, high = bins[below], bins[below + 1]
    return TwoHotTarget(below, (values - low) / (high - low))


def two_hot_mean(probs: Tensor, bins: Tensor) -> Tensor:
    """Expectation of a two-hot distribution, float32 [..., V] -> [...].

    The bins mirror each other, so each pair contributes (p_positive - p_negative) * bin: equal
    weights give exactly 0, although the outermost bins are near 5e8.
    """
    half = (len(bins) - 1) // 2
    negative = probs[..., :half].flip(-1)
    # No matrix product: autocast would round the bins.
    return ((probs[..., half + 1 :] - negative) * bins[half + 1 :]).sum(-1)


def unrounded(x: Tensor) -> Tensor:
    """What a product in bfloat16 left, to go on in float32; all else as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x
