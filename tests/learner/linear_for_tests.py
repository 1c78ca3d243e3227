"""A world whose latent moves linearly: the interface `imagine` and `ActorCritic` use, no more."""

from __future__ import annotations

import torch
from torch import nn

from system.config import ModelConfig
from system.models.dynamics import Latent

LINEAR = ModelConfig(
    size="linear", deter=4, hidden=4, classes=2, units=8, stoch=1, blocks=1, bins=41,
    policy_layers=1, value_layers=1,
)  # fmt: skip
ACTION = 2


class LinearDynamics(nn.Module):
    """z' = M z + N a; the stochastic part stays zero."""

    def __init__(self, generator):
        super().__init__()
        self.carry = nn.Parameter(0.4 * torch.randn(4, 4, generator=generator))
        self.control = nn.Parameter(torch.randn(ACTION, 4, generator=generator))

    def imagine_step(self, carry, action):
        return Latent(carry.deter @ self.carry + action @ self.control, carry.stoch)


class LinearWorldModel(nn.Module):
    """Reward r.z; the continuation a sigmoid of c.z, or certain."""

    def __init__(self, seed=0, *, certain=False):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.dynamics = LinearDynamics(generator)
        self.reward = nn.Parameter(torch.randn(4, generator=generator))
        self.alive = nn.Parameter(0.3 * torch.randn(4, generator=generator))
        self.certain = certain

    def predict_reward(self, latent):
        return latent.deter @ self.reward

    def predict_continue(self, latent):
        if self.certain:
            return torch.full_like(latent.deter[..., 0], 0.99)
        return torch.sigmoid(2.0 + latent.deter @ self.alive)


def starts(N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Latent(torch.randn(N, 4, generator=generator), torch.zeros(N, 1, 2))


def double(latent):
    return Latent(latent.deter.double(), latent.stoch.double())
