"""Dreams made fast: the hand-written gradient against autograd, bfloat16 against float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learner.behavior import ActorCritic
from learner.fused_dream import FusedDream
from learner.imagination import frozen, imagine
from learner.precision import rounds_products
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
from tests.system.models.test_fused import needs_kernels, printed

ACTION, H, N = 3, 4, 6


def _setup(kind="continuous"):
    torch.manual_seed(0)
    world_model = WorldModel(MODEL, make_spec(kind, ACTION))
    perturb(world_model)
    policy = Policy(MODEL, make_spec(kind, ACTION).action)
    perturb(policy, 1)
    index = torch.randint(MODEL.classes, (N, MODEL.stoch))
    stoch = torch.nn.functional.one_hot(index, MODEL.classes).float()
    return world_model, policy, Latent(torch.tanh(torch.randn(N, MODEL.deter)), stoch)


def _plain_roll(dynamics, policy, start, nudge, seed):
    """Step by step, with the noise drawn as the fused one draws it: [N, H + 1, ...]."""
    torch.manual_seed(seed)
    eps, noise = torch.randn(N, H + 1, ACTION), torch.rand(N, H, MODEL.stoch)
    latent, features, actions = start, [], []
    for t in range(H + 1):
        features.append(latent.feature)
        chosen = policy.distribution(latent.feature)
        actions.append(chosen.mean + chosen.std * eps[:, t] + nudge[:, t])
        if t < H:
            stoch = latent.stoch.flatten(-2)
            deter = dynamics.recur(latent.deter, stoch, dynamics.action_part(actions[t]))
            latent = Latent(deter, dynamics.prior(deter).sample(noise[:, t].unsqueeze(-1)))
    return torch.stack(features, 1), torch.stack(actions, 1)


def _nudge():
    return torch.zeros(N, H + 1, ACTION, requires_grad=True)


@needs_kernels
def test_rolling_there_and_back_equals_autograd():
    world_model, policy, start = _setup()
    results = []
    for fast in (True, False):
        nudge = _nudge()
        with frozen(world_model):
            if fast:
                torch.manual_seed(5)
                dream = FusedDream(world_model.dynamics, policy)
                feature, action = dream.roll_with_gradient(start, nudge)
            else:
                with kernels.switched_off():
                    feature, action = _plain_roll(world_model.dynamics, policy, start, nudge, 5)
        weight = torch.randn(feature.shape, generator=torch.Generator().manual_seed(8))
        (slope,) = torch.autograd.grad((feature * weight).sum(), nudge)
        results.append([feature, action, slope])
    for mine, twin in zip(*results, strict=True):
        size = twin.detach().abs().max().clamp(min=1e-3)
        torch.testing.assert_close(mine, twin, atol=2e-5 * size, rtol=1e-3)
    slope = results[0][2]
    assert slope[:, :-1].abs().min() > 0
    assert not slope[:, -1].any()  # the last one changes nothing


@needs_kernels
def test_a_second_way_back_gives_the_same():
    world_model, policy, start = _setup()
    nudge = _nudge()
    with frozen(world_model):
        feature, _ = FusedDream(world_model.dynamics, policy).roll_with_gradient(start, nudge)
    first, second = (
        torch.autograd.grad(feature.square().sum(), nudge, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def _dream_of_a_wide_model():
    """There and back: 64 rows that need some 3 MB between the products."""
    torch.manual_seed(0)
    wide = replace(MODEL, deter=2048, hidden=64, stoch=32, classes=16)
    world_model = WorldModel(wide, make_spec()).requires_grad_(False)
    policy = Policy(wide, make_spec().action)
    start = world_model.dynamics.initial(64)
    nudge = torch.zeros(64, 2, policy.action_size, requires_grad=True)
    feature, _ = FusedDream(world_model.dynamics, policy).roll_with_gradient(start, nudge)
    feature.sum().backward()


@needs_kernels
def test_a_wide_model_fits_into_a_thread_of_little_stack():
    """In another process, as what does not fit ends it."""
    code = (
        "import threading; from tests.learner import test_fused_dream as t;"
        "threading.stack_size(1024**2);"
        "thread = threading.Thread(target=t._dream_of_a_wide_model); thread.start(); thread.join();"
        "print('woke')"
    )
    assert printed(code) == "woke\n"


@needs_kernels
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_dream_follows_the_same_world(kind, rounded):
    world_model, policy, start = _setup(kind)
    let_speak(world_model.reward, 0, 1.0)
    with kernels.rounding(rounded):
        dream = imagine(world_model, policy, start, H)
    near = 0.05 if rounded else 1e-5
    deter, stoch = dream.feature.split([MODEL.deter, MODEL.stoch * MODEL.classes], -1)
    latent = Latent(deter, stoch.unflatten(-1, (MODEL.stoch, MODEL.classes)))
    with torch.no_grad(), kernels.switched_off():
        reward, alive = world_model.predict_reward(latent), world_model.predict_continue(latent)
        torch.testing.assert_close(dream.reward, reward, atol=near, rtol=near)
        torch.testing.assert_close(dream.alive, alive, atol=near, rtol=near)
        for t in range(H):
            part = world_model.dynamics.action_part(dream.action[:, t])
            found = world_model.dynamics.recur(deter[:, t], stoch[:, t], part)
            torch.testing.assert_close(found, deter[:, t + 1], atol=near, rtol=near)
    assert torch.equal(latent.stoch.sum(-1), torch.ones(N, H + 1, MODEL.stoch))
    if kind == "discrete":
        assert torch.equal(dream.action.sum(-1), torch.ones(N, H + 1))


@needs_kernels
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_dream_samples_what_its_distributions_say(kind):
    """Many dreams of one start: frequencies of classes and actions, against their probabilities."""
    world_model, policy, start = _setup(kind)
    many = Latent(*(part[:1].repeat_interleave(20_000, 0) for part in start))
    dream = imagine(world_model, policy, many, 1)
    chosen = policy.distribution(start.feature[:1])
    with torch.no_grad():
        if kind == "discrete":
            wanted = chosen.probs[0]
        else:
            wanted = chosen.mean[0]
            torch.testing.assert_close(dream.action[:, 0].std(0), chosen.std[0], atol=0.02, rtol=0)
        torch.testing.assert_close(dream.action[:, 0].mean(0), wanted, atol=0.02, rtol=0)
        prior = world_model.dynamics.prior(dream.feature[:, 1, : MODEL.deter]).probs.mean(0)
    stoch = dream.feature[:, 1, MODEL.deter :].mean(0).view_as(prior)
    torch.testing.assert_close(stoch, prior, atol=0.02, rtol=0)


@needs_kernels
def test_rounded_losses_and_gradients_point_where_the_others_do():
    world_model, policy, start = _setup()
    behavior = ActorCritic(learner_config(), MODEL, policy)
    let_speak(behavior.value, 2, 1.0)
    let_speak(behavior.slow_value, 3, 1.0)
    dream = imagine(world_model, policy, start, H)
    gradients, losses = [], []
    for rounded in (True, False):
        behavior.scale.low.zero_()
        behavior.scale.high.zero_()
        with kernels.rounding(rounded):
            loss = behavior.loss(dream)
            total = loss.policy.mean() + loss.value.mean()
            trained = [p for p in behavior.parameters() if p.requires_grad]
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, trained)]))
        losses.append(total.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.02, abs=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@needs_kernels
def test_auto_rounds_wide_models_only_and_settings_win():
    wide = replace(MODEL, deter=512)
    tiles = kernels.has_tiles()
    assert not rounds_products(learner_config(precision="auto"), MODEL)
    assert rounds_products(learner_config(precision="auto"), wide) == tiles
    assert rounds_products(learner_config(precision="bf16"), MODEL) == tiles
    assert not rounds_products(learner_config(precision="fp32"), wide)


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
