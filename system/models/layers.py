"""Layers of DreamerV3: linear, norm, SiLU; block-diagonal linear; their initialization."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from system.models import fused, kernels
from system.models.numerics import unrounded
from system.models.packed import LayerWeights

NORM_EPS = 1e-4
TRUNCATION = 2.0
"""Weights are drawn within this many standard deviations."""
TRUNCATION_GAIN = 1.1368
"""1 / standard deviation of a unit normal truncated at +-2."""


def init_weight(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """Truncated normal with variance scale^2 / fan_in, in place."""
    std = scale * TRUNCATION_GAIN * math.sqrt(1.0 / fan_in)
    if scale == 0.0:
        nn.init.zeros_(weight)
    else:
        nn.init.trunc_normal_(weight, std=std, a=-TRUNCATION * std, b=TRUNCATION * std)


class Linear(nn.Linear):
    """`nn.Linear` with our initialization; `scale` shrinks output layers (0 means all zeros)."""

    def __init__(self, in_features: int, out_features: int, *, scale: float = 1.0) -> None:
        self._scale = scale
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        """Truncated-normal weight, zero bias."""
        init_weight(self.weight, self.in_features, self._scale)
        nn.init.zeros_(self.bias)


class Norm(nn.Module):
    """RMSNorm over the last axis with a learned scale, then SiLU."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        if kernels.usable(x):
            return fused.norm_silu(x, self.scale)
        return F.silu(F.rms_norm(unrounded(x), self.scale.shape, self.scale, NORM_EPS))


class Block(nn.Module):
    """Linear -> RMSNorm -> SiLU."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = Linear(in_features, out_features)
        self.norm = Norm(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return self.norm(self.linear(x))  # type: ignore[no-any-return]

    def weights(self) -> LayerWeights:
        """Its parameters, for the kernels."""
        return LayerWeights(self.linear.weight, self.linear.bias, self.norm.scale)


class MLP(nn.Module):
    """`layers` Blocks of `units`."""

    def __init__(self, in_features: int, units: int, layers: int) -> None:
        super().__init__()
        sizes = [in_features] + [units] * layers
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in pairwise(sizes)])
        self.out_features = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., units]."""
        return through(self.blocks, x)


def through(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Blocks of one width, one after the other: [..., in] -> [..., out]."""
    if len(blocks) and kernels.usable(x):
        return fused.blocks(x, weights_of(blocks))
    return blocks(x)  # type: ignore[no-any-return]


def weights_of(blocks: Iterable[nn.Module]) -> list[LayerWeights]:
    """Parameters of Blocks, for the kernels."""
    return [block.weights() for block in blocks if isinstance(block, Block)]


class BlockLinear(nn.Module):
    """`outputs` block-diagonal matrices, each of G blocks, applied to the same input."""

    def __init__(self, outputs: int, blocks: int, block_in: int, block_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, blocks, block_in, block_out))
        self.bias = nn.Parameter(torch.zeros(outputs, blocks, 1, block_out))
        # As in the authors' code, the fan-in is that of all blocks together.
        init_weight(self.weight, blocks * block_in)

    def forward(self, x: Tensor) -> Tensor:
        """[G, B, block_in] -> [outputs, G, B, block_out]."""
        return torch.matmul(x, self.weight) + self.bias
