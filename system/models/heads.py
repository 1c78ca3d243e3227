"""Heads on the feature: reward, continuation, value, policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from system.config import ModelConfig
from system.models import kernels
from system.models.distributions import (
    ActionDistribution,
    BoundedNormal,
    FusedTwoHot,
    OneHot,
    ScalarDistribution,
    TwoHot,
)
from system.models.fused import Projection
from system.models.layers import MLP, Linear
from system.models.numerics import two_hot_bins, unrounded
from system.specs import ActionSpec

POLICY_SCALE = 0.01


class TwoHotHead(nn.Module):
    """A scalar (reward or value) as a two-hot distribution; starts at exactly 0."""

    bins: Tensor

    def __init__(self, config: ModelConfig, layers: int) -> None:
        super().__init__()
        self.mlp = MLP(config.feature, config.units, layers)
        self.out = Linear(self.mlp.out_features, config.bins, scale=0.0)
        self.register_buffer("bins", two_hot_bins(config.bins), persistent=False)

    def predict(self, feature: Tensor) -> ScalarDistribution:
        """float32 [..., F] -> distribution of scalars [...]."""
        hidden = self.mlp(feature)
        if kernels.usable(hidden):
            return FusedTwoHot(hidden, Projection(self.out.weight, self.out.bias, self.bins))
        return TwoHot(unrounded(self.out(hidden)), self.bins)


class BinaryHead(nn.Module):
    """Whether the episode continues after this Step."""

    def __init__(self, config: ModelConfig, layers: int) -> None:
        super().__init__()
        self.mlp = MLP(config.feature, config.units, layers)
        self.out = Linear(self.mlp.out_features, 1)

    def logit(self, feature: Tensor) -> Tensor:
        """float32 [..., F] -> logits [...]."""
        return unrounded(self.out(self.mlp(feature)).squeeze(-1))


class Policy(nn.Module):
    """Map from feature to action distribution."""

    def __init__(self, config: ModelConfig, action: ActionSpec) -> None:
        super().__init__()
        self.kind, self.action_size = action.kind, action.size
        self.unimix = config.unimix
        self.mlp = MLP(config.feature, config.units, config.policy_layers)
        width = action.size * (2 if action.kind == "continuous" else 1)
        self.out = Linear(self.mlp.out_features, width, scale=POLICY_SCALE)

    def distribution(self, feature: Tensor) -> ActionDistribution:
        """float32 [..., F] -> distribution over [..., A]."""
        out = self.out(self.mlp(feature))
        if self.kind == "discrete":
            return OneHot.from_logits(out, self.unimix)
        mean, std = torch.chunk(out, 2, -1)
        return BoundedNormal.from_outputs(mean, std)
