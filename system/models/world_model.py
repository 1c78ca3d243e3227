"""The world model put together: what it sees with, remembers with, and predicts."""

from __future__ import annotations

from torch import Tensor, nn

from system.config import ModelConfig
from system.models.dynamics import RSSM, Latent
from system.models.encoder import Encoder
from system.models.heads import BinaryHead, TwoHotHead
from system.specs import EnvSpec


class WorldModel(nn.Module):
    """Encoder, dynamics, and heads for reward and continuation.

    The dream that uses it::

        latent = ...                                   # a posterior
        for _ in range(horizon):
            action = policy.distribution(latent.feature).sample()
            latent = world_model.dynamics.imagine_step(latent, action)
    """

    def __init__(self, config: ModelConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, spec.observation)
        self.dynamics = RSSM(config, embedding=self.encoder.out_features, action=spec.action.size)
        self.reward = TwoHotHead(config, config.reward_layers)
        self.continuation = BinaryHead(config, config.continue_layers)

    def predict_reward(self, latent: Latent) -> Tensor:
        """Expected reward on arriving here, [..., ...] -> [...]."""
        return self.reward.predict(latent.feature).mean()

    def predict_continue(self, latent: Latent) -> Tensor:
        """Probability that the future goes on (discount included if trained so) -> [...]."""
        return self.continuation.logit(latent.feature).sigmoid()
