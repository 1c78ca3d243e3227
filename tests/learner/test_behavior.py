"""Behavior losses against their twin; who receives whose gradient."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from learner.behavior import ActorCritic
from learner.config import LearnerConfig
from learner.imagination import frozen, imagine
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.world_model import WorldModel
from tests import references
from tests.learner.linear_for_tests import (
    ACTION,
    LINEAR,
    LinearWorldModel,
    double,
    starts,
)
from tests.learning_for_tests import (
    MODEL,
    learner_config,
    let_speak,
    make_batch,
    make_learning,
    make_spec,
    perturb,
)

GRADIENTS = ["reinforce", "analytic", "mixed"]
KINDS = ["continuous", "discrete"]


def _world(kind="continuous", seed=0, *, model=MODEL):
    torch.manual_seed(seed)
    world_model = WorldModel(model, make_spec(kind, 3))
    perturb(world_model, seed)
    let_speak(world_model.reward, seed, 2.0)
    with torch.no_grad():
        world_model.continuation.out.bias.fill_(3.0)
    return world_model


def _behavior(kind, seed=0, *, model=MODEL, **changes):
    torch.manual_seed(seed)
    behavior = ActorCritic(
        learner_config(**changes), model, Policy(model, make_spec(kind, 3).action)
    )
    perturb(behavior.policy, seed)
    let_speak(behavior.value, seed, 2.0)
    let_speak(behavior.slow_value, seed + 1, 2.0)
    return behavior


def _starts(N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(MODEL.classes, (N, MODEL.stoch), generator=generator)
    stoch = torch.nn.functional.one_hot(index, MODEL.classes).float()
    return Latent(torch.tanh(torch.randn(N, MODEL.deter, generator=generator)), stoch)


def _log_prob_and_entropy(kind, out, action):
    if kind == "discrete":
        probs = references.unimix(out, 0.01)
        return float(np.log(probs) @ action.round()), -float(probs @ np.log(probs))
    mean, std = references.bounded_normal(out[:3], out[3:])
    return references.normal_log_prob(action, mean, std), references.normal_entropy(std)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("N", [1, 6])
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_equal_the_twin(kind, gradient, N):
    world_model, behavior = _world(kind), _behavior(kind, gradient=gradient)
    behavior.scale.low.fill_(-300.0)  # a scale above its floor of 1
    dream = imagine(world_model, behavior.policy, _starts(N), 4, differentiable=True)
    loss = behavior.loss(dream)
    reward, alive, action, feature = (
        x.detach().double().numpy()
        for x in (dream.reward, dream.alive, dream.action, dream.feature)
    )
    bins = references.two_hot_bins(MODEL.bins)
    value, slow, policy = (
        references.parameters_of(m) for m in (behavior.value, behavior.slow_value, behavior.policy)
    )
    logits = np.array([[references.head(x, value) for x in row] for row in feature])
    means = np.array([[references.two_hot_mean(x, bins) for x in row] for row in logits])
    returns = references.lambda_return(reward, alive, np.ones_like(reward), means, 0.95)
    np.testing.assert_allclose(loss.returns, returns, rtol=1e-4, atol=1e-4)
    scale = references.return_scale(-300.0, 0.0, returns, 0.01)[2]
    assert scale > 250
    weight = references.chance_to_be_here(alive)
    for n, t in np.ndindex(N, 4):
        out = references.head(feature[n, t], policy)
        log_prob, entropy = _log_prob_and_entropy(kind, out, action[n, t])
        reinforce = log_prob * (returns[n, t] - means[n, t]) / scale
        analytic = returns[n, t] / scale
        score = {
            "reinforce": reinforce,
            "analytic": analytic,
            "mixed": 0.1 * analytic + 0.9 * reinforce,
        }[gradient]
        wanted = -weight[n, t] * (score + 3e-4 * entropy)
        assert loss.policy[n, t].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        pull = references.two_hot_mean(references.head(feature[n, t], slow), bins)
        wanted = references.two_hot_cross_entropy(logits[n, t], returns[n, t], bins)
        wanted += references.two_hot_cross_entropy(logits[n, t], pull, bins)
        assert loss.value[n, t].item() == pytest.approx(weight[n, t] * wanted, rel=1e-4, abs=1e-5)


def test_the_dream_lies_in_time_as_documented():
    world_model, behavior = _world(), _behavior("continuous")
    start = _starts(5)
    dream = imagine(world_model, behavior.policy, start, 4)
    assert dream.feature.shape == (5, 5, MODEL.feature)
    assert dream.action.shape == (5, 5, 3)
    assert torch.equal(dream.feature[:, 0], start.feature)
    latent = Latent(dream.feature[:, :, :16], dream.feature[:, :, 16:].unflatten(-1, (3, 4)))
    with torch.no_grad():
        torch.testing.assert_close(dream.reward, world_model.predict_reward(latent))
        torch.testing.assert_close(dream.alive, world_model.predict_continue(latent))
        for t in range(4):
            # The deterministic part follows from the latent and action before it.
            deter = world_model.dynamics.recur(
                latent.deter[:, t],
                latent.stoch[:, t].flatten(-2),
                world_model.dynamics.action_part(dream.action[:, t]),
            )
            torch.testing.assert_close(deter, latent.deter[:, t + 1])
    assert not dream.feature.requires_grad


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_behavior_losses_do_not_reach_the_world_model_and_the_policy_loss_not_the_value(
    kind, gradient
):
    world_model, behavior = _world(kind), _behavior(kind, gradient=gradient)
    start = Latent(*(part.requires_grad_() for part in _starts(4)))
    dream = imagine(
        world_model, behavior.policy, start.detach(), 3, differentiable=gradient != "reinforce"
    )
    loss = behavior.loss(dream)
    loss.policy.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in world_model.parameters())
    assert all(p.grad is None for p in behavior.value.parameters())
    assert all(p.grad is not None for p in behavior.policy.parameters())
    assert any(p.grad.abs().max() > 0 for p in behavior.policy.parameters())
    for parameter in behavior.policy.parameters():
        parameter.grad = None
    loss.value.sum().backward()
    assert all(p.grad is None for p in world_model.parameters())
    assert all(p.grad is None for p in behavior.policy.parameters())
    assert all(p.grad is None for p in behavior.slow_value.parameters())
    assert any(p.grad.abs().max() > 0 for p in behavior.value.parameters())


def test_the_replay_value_loss_reaches_the_world_model_but_not_its_targets():
    learning = make_learning()
    perturb(learning.world_model)
    let_speak(learning.behavior.value, 0, 2.0)
    batch = make_batch(make_spec(), B=4, T=6)
    latents = learning.objective.loss(batch).latents
    worth = torch.randn(4, 6, requires_grad=True)
    learning.behavior.replay_loss(latents.feature, batch, worth).mean().backward()
    assert worth.grad is None
    world = learning.world_model
    for name in ("encoder", "dynamics.posterior_out", "dynamics.gates"):
        module = world.get_submodule(name)
        assert any(p.grad.abs().max() > 0 for p in module.parameters()), name
    assert any(p.grad.abs().max() > 0 for p in learning.behavior.value.parameters())
    assert all(p.grad.abs().max() == 0 for p in learning.behavior.policy.parameters())
    assert all(p.grad.abs().max() == 0 for p in world.reward.parameters())


def test_frozen_passes_gradients_and_restores_what_was():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[1].bias.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    x = torch.ones(1, 2, requires_grad=True)
    with frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        out = model(x).sum()
    assert [p.requires_grad for p in model.parameters()] == before
    out.backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="stop"), frozen(model):
        raise RuntimeError("stop")
    assert [p.requires_grad for p in model.parameters()] == before


def test_slow_value_starts_equal_and_follows():
    behavior = make_learning().behavior
    fast, slow = list(behavior.value.parameters()), list(behavior.slow_value.parameters())
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))
    assert not any(p.requires_grad for p in slow)
    perturb(behavior.value)
    before = [p.clone() for p in slow]
    behavior.follow()
    for new, old, target in zip(slow, before, fast, strict=True):
        torch.testing.assert_close(new, 0.98 * old + 0.02 * target.detach())


@pytest.mark.parametrize("dream_starts", [0, 1, 4, 7, 15])
def test_worth_is_the_imagined_return_where_a_dream_started_else_the_value(dream_starts):
    learning = make_learning(dream_starts=dream_starts)
    let_speak(learning.behavior.value, 0, 2.0)
    latents = learning.objective.loss(make_batch(make_spec())).latents.detach()
    starts_ = learning._starts(latents.flatten_time())
    count = dream_starts or 15
    assert len(starts_.deter) == count
    dream = imagine(learning.world_model, learning.behavior.policy, starts_, 4)
    behavior = learning.behavior.loss(dream)
    worth = learning._worth(latents, behavior).flatten()
    value = learning.behavior.predict_value(latents.feature).flatten()
    where = [i * 15 // count for i in range(count)]
    assert len(set(where)) == count
    for i in range(15):
        wanted = behavior.returns[where.index(i), 0] if i in where else value[i]
        assert worth[i] == wanted
        if i in where:
            assert torch.equal(starts_.deter[where.index(i)], latents.deter.flatten(0, 1)[i])


# the gradient through the dream is the gradient.


def _linear_case(gradient, N=6, **changes):
    world_model = LinearWorldModel(0).double()
    torch.manual_seed(1)
    behavior = ActorCritic(
        learner_config(gradient=gradient, entropy_scale=0.0, horizon=5, **changes),
        LINEAR,
        Policy(LINEAR, make_spec("continuous", ACTION).action),
    )
    perturb(behavior.policy)
    let_speak(behavior.value, 3, 1.0)
    behavior.double()
    behavior.scale.float()
    behavior.scale.low.fill_(-200.0)
    return world_model, behavior, double(starts(N))


def _dream(world_model, behavior, start):
    torch.manual_seed(9)  # the same policy noise every time
    return imagine(world_model, behavior.policy, start, 5, differentiable=True)


def _policy_gradients(gradient):
    world_model, behavior, start = _linear_case(gradient)
    loss = behavior.loss(_dream(world_model, behavior, start)).policy.mean()
    return torch.autograd.grad(loss, list(behavior.policy.parameters()))


def test_analytic_gradient_equals_the_finite_difference():
    """Of -mean(weight * return) / scale, the weights and the scale held as they are."""
    world_model, behavior, start = _linear_case("analytic")
    with torch.no_grad():
        alive = _dream(world_model, behavior, start).alive.numpy()
    weight = references.chance_to_be_here(alive)[:, :-1]

    @torch.no_grad()
    def objective():
        dream = _dream(world_model, behavior, start)
        returns = references.lambda_return(
            dream.reward.numpy(), dream.alive.numpy(), np.ones_like(alive),
            behavior.predict_value(dream.feature).numpy(), 0.95,
        )  # fmt: skip
        return -(weight * returns).mean()

    loss = behavior.loss(_dream(world_model, behavior, start)).policy.mean()
    scale = (behavior.scale.high - behavior.scale.low).clamp(min=1.0).double().item()
    parameters = list(behavior.policy.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    assert loss.item() == pytest.approx(objective() / scale, rel=1e-6)
    generator, step = torch.Generator().manual_seed(0), 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for _ in range(3):
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                above = objective()
                parameter.sub_(direction, alpha=2 * step)
                below = objective()
                parameter.add_(direction, alpha=step)
            finite = (above - below) / (2 * step) / scale
            assert abs(finite) > 1e-7
            assert (gradient * direction).sum().item() == pytest.approx(finite, rel=1e-4)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_no_action_pulls_more_than_the_limit(limit):
    """In a world that doubles every step; the slope of each action by finite difference."""
    world_model, behavior, start = _linear_case("analytic", slope_limit=limit)
    behavior.scale.low.zero_()
    with torch.no_grad():
        world_model.dynamics.carry.copy_(2.0 * torch.eye(4))
    loss = behavior.loss(_dream(world_model, behavior, start)).policy.sum()
    scale = (behavior.scale.high - behavior.scale.low).clamp(min=1.0).double().item()
    gradient = torch.autograd.grad(loss, behavior.policy.out.bias)[0]
    dream = _dream(world_model, behavior, start)
    weight = references.chance_to_be_here(dream.alive.detach().numpy())[:, :-1]
    wanted, cut = torch.zeros_like(gradient), 0
    for n, t, a in np.ndindex(len(start.deter), 5, ACTION):
        above, below = (
            _score(world_model, behavior, start, weight, (n, t, a), step) for step in (1e-5, -1e-5)
        )
        slope = (above - below) / 2e-5 / scale
        cut += limit and abs(slope) > limit
        slope = np.clip(slope, -limit, limit) if limit else slope
        chosen = behavior.policy.distribution(dream.feature[n, t].detach())
        drawn = chosen.drawn(dream.action[n, t].detach())[a]
        wanted -= slope * torch.autograd.grad(drawn, behavior.policy.out.bias)[0]
    assert 10 < cut < 50 if limit else cut == 0
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def _score(world_model, behavior, start, weight, where, step):
    """Sum of the weighted returns of a dream, one of whose actions is nudged by a step."""
    torch.manual_seed(9)
    latents, (n, t, a) = [start], where
    for time in range(5):
        action = behavior.policy.distribution(latents[-1].feature).sample()
        if time == t:
            action[n, a] += step
        latents.append(world_model.dynamics.imagine_step(latents[-1], action))
    dreamed = Latent(*(torch.stack(parts, 1) for parts in zip(*latents, strict=True)))
    reward, alive = world_model.predict_reward(dreamed), world_model.predict_continue(dreamed)
    value = behavior.predict_value(dreamed.feature)
    parts = (x.numpy() for x in (reward, alive, torch.ones_like(reward), value))
    return (weight * references.lambda_return(*parts, 0.95)).sum()


def test_mixed_is_the_stated_mixture():
    reinforce, analytic, mixed = (_policy_gradients(gradient) for gradient in GRADIENTS)
    for r, a, m in zip(reinforce, analytic, mixed, strict=True):
        assert (r - a).abs().max() > 1e-5
        torch.testing.assert_close(m, 0.1 * a + 0.9 * r, rtol=1e-8, atol=1e-12)


def test_reinforce_and_analytic_agree_in_expectation():
    """One imagined step, exact value 0: both estimate the same gradient of the mean reward."""
    world_model = LinearWorldModel(0, certain=True)
    means = []
    for gradient in ("reinforce", "analytic"):
        torch.manual_seed(1)
        behavior = ActorCritic(
            learner_config(gradient=gradient, entropy_scale=0.0),
            LINEAR,
            Policy(LINEAR, make_spec("continuous", ACTION).action),
        )
        torch.manual_seed(2)
        start = Latent(*(part.expand(200_000, *part.shape[1:]) for part in starts(1)))
        dream = imagine(world_model, behavior.policy, start, 1, differentiable=True)
        loss = behavior.loss(dream).policy.mean() * max(
            1.0, (behavior.scale.high - behavior.scale.low).item()
        )
        means.append(torch.autograd.grad(loss, behavior.policy.out.bias)[0][:ACTION])
    torch.testing.assert_close(means[0], means[1], rtol=0.03, atol=0.01)


# sign: learning raises the imagined return.


@torch.no_grad()
def _imagined_return(world_model, policy, start):
    torch.manual_seed(5)
    dream = imagine(world_model, policy, start, 6)
    alive = torch.cumprod(
        torch.cat([torch.ones_like(dream.alive[:, :1]), dream.alive[:, 1:]], 1), 1
    )
    return (dream.reward[:, 1:] * alive[:, :-1]).sum(1).mean().item()


def _train(world_model, behavior, start, gradient, updates=100):
    from learner.optimizer import LaProp

    trained = [p for p in behavior.parameters() if p.requires_grad]
    optimizer = LaProp(trained, learning_rate=3e-3, warmup_updates=1, clip=0.3)
    for _ in range(updates):
        dream = imagine(
            world_model, behavior.policy, start, 6, differentiable=gradient != "reinforce"
        )
        loss = behavior.loss(dream)
        (loss.policy.mean() + loss.value.mean()).backward()
        optimizer.step()
        behavior.follow()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_100_updates_raise_the_imagined_return(kind, gradient):
    world_model = _world(kind, 2)
    torch.manual_seed(0)
    policy = Policy(MODEL, make_spec(kind, 3).action)
    behavior = ActorCritic(learner_config(gradient=gradient, horizon=6), MODEL, policy)
    start, unseen = _starts(64), _starts(512, 1)
    before = _imagined_return(world_model, policy, unseen)
    _train(world_model, behavior, start, gradient)
    after = _imagined_return(world_model, policy, unseen)
    assert after > before + 0.1 * max(1.0, abs(before)), (before, after)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_100_updates_raise_the_imagined_return_of_the_linear_model(gradient):
    world_model = LinearWorldModel(0)
    torch.manual_seed(0)
    behavior = ActorCritic(
        learner_config(gradient=gradient, horizon=6),
        LINEAR,
        Policy(LINEAR, make_spec("continuous", ACTION).action),
    )
    frozen_copy = copy.deepcopy(world_model)
    before = _imagined_return(world_model, behavior.policy, starts(512, 1))
    _train(world_model, behavior, starts(64), gradient)
    after = _imagined_return(world_model, behavior.policy, starts(512, 1))
    assert after > before + 0.5, (before, after)
    for new, old in zip(world_model.parameters(), frozen_copy.parameters(), strict=True):
        assert torch.equal(new, old)


def test_a_whole_update_trains_every_part():
    learning = make_learning(learning_rate=1e-3)
    batch = make_batch(make_spec())
    learning.update(batch)  # the first step of the warm-up has rate 0
    before = {name: p.detach().clone() for name, p in learning.named_parameters()}
    for _ in range(3):
        learning.update(batch)
    for part in ("world_model.encoder", "world_model.dynamics", "decoder", "behavior.policy",
                 "behavior.value", "behavior.slow_value", "world_model.reward"):  # fmt: skip
        moved = [
            name for name, p in learning.named_parameters()
            if name.startswith(part) and not torch.equal(p, before[name])
        ]  # fmt: skip
        assert moved, part


def test_updates_are_reproducible_bitwise():
    runs = []
    for _ in range(2):
        learning = make_learning(dream_starts=7, gradient="mixed", learning_rate=1e-3)
        for seed in range(3):
            learning.update(make_batch(make_spec(), seed=seed))
        runs.append(learning.optimizer.flat.clone())
    assert torch.equal(runs[0], runs[1])


@pytest.mark.parametrize(
    ("gradient", "kind", "wanted"),
    [
        ("auto", "continuous", "analytic"),
        ("auto", "discrete", "reinforce"),
        ("mixed", "discrete", "mixed"),
        ("reinforce", "continuous", "reinforce"),
    ],
)
def test_auto_is_analytic_where_actions_are_continuous(gradient, kind, wanted):
    assert LearnerConfig(gradient=gradient).gradient_for(kind) == wanted
