"""What the world model is trained on: reconstruction, reward, continuation and two KLs.

(DreamerV3, Nature 2025, Methods: world model learning.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from learner.batch import Batch
from learner.config import LearnerConfig
from system.models.decoder import Decoder
from system.models.distributions import OneHot, kl_divergence
from system.models.dynamics import Latent
from system.models.world_model import WorldModel


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldModelLoss:
    """Losses per Step, and what the rest of the update continues from."""

    losses: dict[str, Tensor]
    """Each float32 [B, T], unscaled."""
    latents: Latent
    """Posteriors [B, T, ...] with their gradients."""


class ReconstructionObjective:
    """Predict what was seen, what it was worth, and whether it went on."""

    def __init__(self, config: LearnerConfig, world_model: WorldModel, decoder: Decoder) -> None:
        self._config = config
        self._world_model = world_model
        self._decoder = decoder

    @property
    def scales(self) -> dict[str, float]:
        """Weight of each loss of `loss`."""
        return {
            "reconstruction": 1.0,
            "reward": 1.0,
            "continue": 1.0,
            "dynamics": self._config.dynamics_scale,
            "representation": self._config.representation_scale,
        }

    def loss(self, batch: Batch) -> WorldModelLoss:
        """Batch [B, T] -> losses [B, T] and posteriors [B, T, ...]."""
        model = self._world_model
        embedding = model.encoder.encode(batch.observation)
        observed = model.dynamics.observe(
            batch.context, batch.previous_action, embedding, batch.is_first
        )
        feature = observed.latent.feature
        losses = {
            "reconstruction": self._reconstruction(feature, batch),
            "reward": model.reward.predict(feature).cross_entropy(batch.reward),
            "continue": self._continuation(feature, batch),
            "dynamics": self._kl(_detach(observed.posterior), observed.prior),
            "representation": self._kl(observed.posterior, _detach(observed.prior)),
        }
        return WorldModelLoss(losses=losses, latents=observed.latent)

    def _reconstruction(self, feature: Tensor, batch: Batch) -> Tensor:
        """Squared error of symlog vectors and of images in 0..1, summed over elements -> [B, T]."""
        total = feature.new_zeros(feature.shape[:2])
        for name, prediction in self._decoder.decode(feature).items():
            error = (prediction - self._decoder.target(name, batch.observation[name])).square()
            total = total + (error.flatten(2).sum(-1) if error.ndim > 2 else error)
        return total

    def _continuation(self, feature: Tensor, batch: Batch) -> Tensor:
        """The target already holds the discount (`contdisc` in the authors' code)."""
        discount = self._config.discount
        target = (~batch.is_terminal).to(feature.dtype) * discount
        logit = self._world_model.continuation.logit(feature)
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none")

    def _kl(self, p: OneHot, q: OneHot) -> Tensor:
        """Summed over groups, then clipped below at the free nats -> [B, T]."""
        return kl_divergence(p, q).clamp(min=self._config.free_nats)


def _detach(distribution: OneHot) -> OneHot:
    return OneHot(distribution.probs.detach())
