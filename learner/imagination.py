"""Imagination: rolling the world model forward without looking at the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.fused_dream import FusedDream
from system.models import kernels
from system.models.dynamics import RSSM, Latent
from system.models.heads import Policy, TwoHotHead
from system.models.world_model import WorldModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Dream:
    """N dreams of H steps; index 0 is the start, a posterior from the Batch."""

    feature: Tensor
    """float32 [N, H + 1, F]."""
    action: Tensor
    """float32 [N, H + 1, A]: chosen after each feature."""
    reward: Tensor
    """float32 [N, H + 1]: predicted on arriving; [:, 0] belongs to the start."""
    alive: Tensor
    """float32 [N, H + 1]: predicted probability, times discount, that the future goes on."""
    nudge: Tensor
    """float32 [N, H + 1, A]: zeros added to the actions. If the dream is differentiable, their
    gradient says what each action is worth, through all that follows from it."""


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through these modules but do not reach their parameters."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def imagine(
    world_model: WorldModel,
    policy: Policy,
    start: Latent,
    horizon: int,
    *,
    differentiable: bool = False,
    readers: Sequence[TwoHotHead] = (),
) -> Dream:
    """Dreams `horizon` steps from every start under the policy.

    Args:
      world_model: reads its dynamics and its heads.
      policy: samples every action.
      start: [N, ...], detached.
      horizon: H [agent steps].
      differentiable: keep the graph, so that imagined returns have gradients for the actions (and
        for nothing else).
      readers: heads that will read the features; on a CPU cheapest while these are being made.

    Returns:
      A Dream of [N, H + 1].
    """
    dynamics = world_model.dynamics
    N, A = len(start.deter), policy.action_size
    nudge = start.deter.new_zeros(N, horizon + 1, A, requires_grad=differentiable)
    fused = isinstance(dynamics, RSSM) and kernels.usable(start.deter)
    if fused and (not differentiable or policy.kind == "continuous"):
        dream = FusedDream(
            dynamics, policy, [world_model.reward, world_model.continuation, *readers]
        )
        return _imagine_fused(dream, world_model, start, nudge)
    with torch.set_grad_enabled(differentiable), frozen(world_model, policy):
        latents, actions = [start], []
        for t in range(horizon + 1):
            actions.append(policy.distribution(latents[-1].feature).sample() + nudge[:, t])
            if t < horizon:
                latents.append(dynamics.imagine_step(latents[-1], actions[-1]))
        # H + 1 times [N, ...] -> [N, H + 1, ...]
        dreamed = Latent(
            torch.stack([latent.deter for latent in latents], 1),
            torch.stack([latent.stoch for latent in latents], 1),
        )
        return Dream(
            feature=dreamed.feature,
            action=torch.stack(actions, 1),
            reward=world_model.predict_reward(dreamed),
            alive=world_model.predict_continue(dreamed),
            nudge=nudge,
        )


def _imagine_fused(
    dream: FusedDream, world_model: WorldModel, start: Latent, nudge: Tensor
) -> Dream:
    """The same by kernels."""
    with torch.set_grad_enabled(nudge.requires_grad), frozen(world_model):
        feature, action = (
            dream.roll_with_gradient(start, nudge)
            if nudge.requires_grad
            else dream.roll(start, nudge.shape[1] - 1)
        )
        return Dream(
            feature=feature,
            action=action,
            reward=world_model.reward.predict(feature).mean(),
            alive=world_model.continuation.logit(feature).sigmoid(),
            nudge=nudge,
        )
