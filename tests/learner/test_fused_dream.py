"""Dreams made fast: the hand-written gradient against autograd, bfloat16 against float32."""

from __future__ import annotations

import pytest
import torch

from learner.behavior import ActorCritic
from learner.fused_dream import FusedDream
from learner.imagination import Dream, frozen, imagine
from learner.precision import dream_dtype
from system.models import kernels
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.world_model import WorldModel
from tests.learning_for_tests import (
    MODEL,
    learner_config,
    let_speak,
    make_batch,
    make_learning,
    make_spec,
    perturb,
)
from tests.system.models.test_fused import needs_kernels

ACTION, H, N = 3, 4, 6


def _setup():
    torch.manual_seed(0)
    world_model = WorldModel(MODEL, make_spec("continuous", ACTION))
    perturb(world_model)
    policy = Policy(MODEL, make_spec("continuous", ACTION).action)
    perturb(policy, 1)
    index = torch.randint(MODEL.classes, (N, MODEL.stoch))
    stoch = torch.nn.functional.one_hot(index, MODEL.classes).float()
    return world_model, policy, Latent(torch.tanh(torch.randn(N, MODEL.deter)), stoch)


def _plain_roll(dynamics, policy, start, seed):
    """Step by step, with the noise drawn as the fused one draws it: [H + 1, N, ...]."""
    torch.manual_seed(seed)
    eps, noise = torch.randn(H + 1, N, ACTION), torch.rand(H, N, MODEL.stoch)
    latent, features, actions = start, [], []
    for t in range(H + 1):
        features.append(latent.feature)
        chosen = policy.distribution(latent.feature)
        actions.append(chosen.mean + chosen.std * eps[t])
        if t < H:
            stoch = latent.stoch.flatten(-2)
            deter = dynamics.recur(latent.deter, stoch, dynamics.action_part(actions[t]))
            latent = Latent(deter, dynamics.prior(deter).sample(noise[t].unsqueeze(-1)))
    return torch.stack(features), torch.stack(actions)


@needs_kernels
def test_rolling_there_and_back_equals_autograd():
    world_model, policy, start = _setup()
    results = []
    for fast in (True, False):
        with frozen(world_model):
            if fast:
                torch.manual_seed(5)
                feature, action = FusedDream(world_model.dynamics, policy).roll(start, H)
            else:
                with kernels.switched_off():
                    feature, action = _plain_roll(world_model.dynamics, policy, start, 5)
        weight = torch.randn(feature.shape, generator=torch.Generator().manual_seed(8))
        gradients = torch.autograd.grad((feature * weight).sum(), list(policy.parameters()))
        results.append([feature, action, *gradients])
    for mine, twin in zip(*results, strict=True):
        size = twin.detach().abs().max().clamp(min=1e-3)
        torch.testing.assert_close(mine, twin, atol=2e-5 * size, rtol=1e-3)
    assert all(gradient.abs().max() > 0 for gradient in results[0][2:])


@needs_kernels
def test_a_bfloat16_dream_follows_the_same_world():
    world_model, policy, start = _setup()
    let_speak(world_model.reward, 0, 1.0)
    dream = imagine(world_model, policy, start, H, dtype=torch.bfloat16)
    assert dream.feature.dtype == torch.bfloat16
    assert dream.reward.dtype == dream.alive.dtype == dream.action.dtype == torch.float32
    feature = dream.feature.float()
    latent = Latent(
        feature[..., : MODEL.deter],
        feature[..., MODEL.deter :].unflatten(-1, (MODEL.stoch, MODEL.classes)),
    )
    with torch.no_grad():
        reward, alive = world_model.predict_reward(latent), world_model.predict_continue(latent)
        torch.testing.assert_close(dream.reward, reward, atol=0.05, rtol=0.05)
        torch.testing.assert_close(dream.alive, alive, atol=0.02, rtol=0.02)
        for t in range(H):
            deter = world_model.dynamics.recur(
                latent.deter[:, t],
                latent.stoch[:, t].flatten(-2),
                world_model.dynamics.action_part(dream.action[:, t]),
            )
            torch.testing.assert_close(deter, latent.deter[:, t + 1], atol=0.03, rtol=0.03)


@needs_kernels
def test_bfloat16_losses_and_gradients_point_where_those_of_float32_do():
    world_model, policy, start = _setup()
    behavior = ActorCritic(learner_config(), MODEL, policy)
    let_speak(behavior.value, 2, 1.0)
    let_speak(behavior.slow_value, 3, 1.0)
    low = imagine(world_model, policy, start, H, dtype=torch.bfloat16)
    high = Dream(feature=low.feature.float(), action=low.action, reward=low.reward, alive=low.alive)
    gradients, losses = [], []
    for dream in (low, high):
        behavior.scale.low.zero_()
        behavior.scale.high.zero_()
        loss = behavior.loss(dream)
        total = loss.policy.mean() + loss.value.mean()
        trained = [p for p in behavior.parameters() if p.requires_grad]
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, trained)]))
        losses.append(total.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.02, abs=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@needs_kernels
def test_auto_is_float32_for_small_dreams_and_settings_win():
    small = learner_config()
    assert dream_dtype(small, MODEL) == torch.float32
    assert dream_dtype(learner_config(precision="bf16"), MODEL) == torch.bfloat16
    with kernels.switched_off():
        assert dream_dtype(learner_config(precision="bf16"), MODEL) == torch.float32


@pytest.mark.parametrize("gradient", ["reinforce", "analytic"])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_an_update_runs_with_and_without_kernels(kind, gradient):
    losses = []
    for fast in (True, False):
        learning = make_learning(kind, gradient=gradient)
        batch = make_batch(make_spec(kind))
        torch.manual_seed(1)
        if fast:
            result = learning.update(batch)
        else:
            with kernels.switched_off():
                result = learning.update(batch)
        losses.append({k: v.item() for k, v in result.metrics.items() if k.startswith("loss/")})
    for name in ("reconstruction", "reward", "continue", "dynamics", "representation"):
        mine, twin = (each[f"loss/{name}"] for each in losses)
        assert mine == pytest.approx(twin, rel=1e-4, abs=1e-5)
