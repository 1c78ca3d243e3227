"""The behavior: a policy and a value learned inside dreams, and a value loss on replay.

(DreamerV3, Nature 2025, Methods: actor learning, critic learning; and the authors' code.)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.batch import Batch
from learner.config import LearnerConfig
from learner.imagination import Dream, frozen
from learner.returns import ReturnScale, lambda_return
from system.config import ModelConfig
from system.models.distributions import ScalarDistribution
from system.models.heads import Policy, TwoHotHead


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviorLoss:
    """Losses of one Dream."""

    policy: Tensor
    value: Tensor
    """float32 [N, H], weighted by the chance to be still alive there."""
    returns: Tensor
    """float32 [N, H]: imagined lambda-returns, detached."""
    entropy: Tensor
    """float32 []: mean over the Dream [nats]."""


class ActorCritic(nn.Module):
    """Policy, value, and the slowly following value that steadies it."""

    def __init__(self, config: LearnerConfig, model: ModelConfig, policy: Policy) -> None:
        super().__init__()
        self._config = config
        self.gradient = config.gradient_for(policy.kind)
        shares = {"reinforce": 0.0, "mixed": config.mixed_share, "analytic": 1.0}
        self._analytic_share = shares[self.gradient]
        self.policy = policy
        self.value = TwoHotHead(model, model.value_layers)
        self.slow_value = copy.deepcopy(self.value).requires_grad_(False)
        self.scale = ReturnScale(config.return_rate)

    def loss(self, dream: Dream) -> BehaviorLoss:
        """Dream [N, H + 1] -> losses of all its Steps but the last.

        Once for each dream, which must be differentiable unless the gradient is reinforce.
        """
        config = self._config
        feature = dream.feature.detach()
        value = self.value.predict(feature)
        with torch.no_grad():
            value_mean, slow_mean = value.mean(), self.slow_value.predict(feature).mean()
            weight = _chance_to_be_here(dream.alive.detach())[:, :-1]
        bootstrap = value_mean
        if self.gradient != "reinforce":
            with frozen(self.value):
                bootstrap = self.value.predict(dream.feature).mean()
        returns = lambda_return(
            dream.reward, dream.alive, torch.ones_like(dream.reward), bootstrap,
            config.return_lambda,
        )  # fmt: skip
        target = returns.detach()
        scale = self.scale.update(target)
        # All H + 1 features: cheaper than a copy of the first H.
        action = self.policy.distribution(feature)
        entropy = action.entropy()[:, :-1]
        chosen, score = dream.action.detach(), target / scale
        if self.gradient != "analytic":
            log_prob = action.log_prob(chosen)[:, :-1]
            reinforce = log_prob * ((target - value_mean[:, :-1]) / scale)
            share = self._analytic_share
            score = reinforce.lerp(score, share) if share else reinforce
        policy = -weight * (score + config.entropy_scale * entropy)
        if self.gradient != "reinforce":
            slope = self._slope(weight * returns / scale, dream.nudge)
            gain = (slope * action.drawn(chosen)).sum(-1)[:, :-1]
            policy = policy - self._analytic_share * (gain - gain.detach())  # gradient alone
        padded = torch.cat([target, torch.zeros_like(target[:, :1])], 1)
        return BehaviorLoss(
            policy=policy,
            value=weight * self._value_loss(value, padded, slow_mean)[:, :-1],
            returns=target,
            entropy=entropy.detach().mean(),
        )

    def _slope(self, weighted: Tensor, nudge: Tensor) -> Tensor:
        """What a unit more of each action [N, H + 1, A] adds to its dream's scores [N, H] together.

        It grows with every step of an unstable world: one dream of a hundred can outweigh all
        others. A score spans about 1, and so does an action; what is far steeper is cut.
        """
        with torch.autocast(nudge.device.type, enabled=False):
            (slope,) = torch.autograd.grad(weighted.sum(), nudge)
        limit = self._config.slope_limit
        if self.policy.kind == "discrete":
            # One-hot: what all classes share means nothing, and must not be what is cut.
            slope = slope - slope.mean(-1, keepdim=True)
        return slope.clamp(-limit, limit) if limit else slope

    def replay_loss(self, feature: Tensor, batch: Batch, imagined: Tensor) -> Tensor:
        """The value's loss on replayed Steps, whose gradient reaches the world model.

        Args:
          feature: float32 [B, T, F] posteriors, with gradient.
          batch: rewards and episode ends.
          imagined: float32 [B, T] what each Step is worth: the imagined return that starts there,
            or the value where no dream started.

        Returns:
          float32 [B, T - 1], zero at the last Step of an episode.
        """
        discount = self._config.discount
        alive = (~batch.is_terminal).to(feature.dtype) * discount
        flows = (~batch.is_last).to(feature.dtype)
        target = lambda_return(
            batch.reward, alive, flows, imagined.detach(), self._config.return_lambda
        )
        value = self.value.predict(feature)
        with torch.no_grad():
            slow_mean = self.slow_value.predict(feature).mean()
        padded = torch.cat([target, torch.zeros_like(target[:, :1])], 1)
        loss = self._value_loss(value, padded, slow_mean)
        return (flows * loss)[:, :-1]

    @torch.no_grad()
    def predict_value(self, feature: Tensor) -> Tensor:
        """float32 [..., F] -> [...]."""
        return self.value.predict(feature).mean()

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the slow value a little towards the value; call after each update."""
        for slow, fast in zip(self.slow_value.parameters(), self.value.parameters(), strict=True):
            slow.lerp_(fast, self._config.slow_value_rate)

    def _value_loss(self, value: ScalarDistribution, target: Tensor, slow_mean: Tensor) -> Tensor:
        return value.cross_entropy(target, slow_mean, self._config.slow_value_scale)


def _chance_to_be_here(alive: Tensor) -> Tensor:
    """Product of `alive` over all earlier Steps and this one, [N, H + 1] -> the same."""
    return torch.cumprod(alive, 1)
