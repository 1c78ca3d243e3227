"""Encoder of vector observations: dict of observations -> embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from system.config import ModelConfig
from system.models.layers import MLP
from system.models.numerics import symlog
from system.specs import ArraySpec


class VectorEncoder(nn.Module):
    """symlog of all vectors, concatenated by sorted name, through an MLP."""

    def __init__(self, config: ModelConfig, observation: dict[str, ArraySpec]) -> None:
        super().__init__()
        self.names = sorted(observation)
        self._ndim = {name: len(observation[name].shape) for name in self.names}
        width = sum(observation[name].size for name in self.names)
        self.mlp = MLP(width, config.units, config.encoder_layers)
        self.out_features = self.mlp.out_features

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        """Dict of float32 [..., *shape] -> embedding float32 [..., E]."""
        # Every array ends in its own shape, so what is left in front are the batch axes.
        flat = [
            observation[name].flatten(observation[name].ndim - self._ndim[name])
            if self._ndim[name]
            else observation[name].unsqueeze(-1)
            for name in self.names
        ]
        return self.mlp(symlog(torch.cat(flat, -1)))  # type: ignore[no-any-return]
