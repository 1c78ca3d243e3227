"""Dreams beside what was recorded: of a known world they are exact, of any model they are blind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from learner.batch import Batch
from learner.dream_measure import Measuring, measure
from learner.open_loop import MAX_VALUE, Models, bounded, changed, here, open_loop, shown
from system.models.dynamics import Latent, Observed
from system.models.numerics import symlog
from tests.learning_for_tests import make_batch, make_learning, make_spec, perturb

C, H, K = 3, 6, 4
DISCOUNT = 0.9


class KnownDynamics(nn.Module):
    """x' = M x + N a, seen as it is."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.carry = 0.5 * torch.randn(4, 4, generator=generator)
        self.control = torch.randn(2, 4, generator=generator)

    def observe(self, carry, action, embedding, is_first):
        nothing = torch.zeros(*embedding.shape[:2], 1, 2)
        return Observed(Latent(embedding, nothing), None, None)

    def imagine_step(self, carry, action):
        return Latent(carry.deter @ self.carry + action @ self.control, carry.stoch)


class KnownWorld(nn.Module):
    """What such a world is worth: the sum of x; it ends never."""

    def __init__(self):
        super().__init__()
        self.dynamics = KnownDynamics()

    @property
    def encoder(self):
        return self

    def encode(self, observation):
        return observation["x"]

    def predict_reward(self, latent):
        return latent.deter.sum(-1)

    def predict_continue(self, latent):
        return torch.full(latent.deter.shape[:-1], DISCOUNT)


class Window(nn.Module):
    """Decodes x, or always the mean."""

    vectors = {"x": None}

    def __init__(self, mean=None):
        super().__init__()
        self.mean = mean

    def decode(self, feature):
        x = feature[..., :4]
        return {"x": symlog(x if self.mean is None else self.mean.expand_as(x))}


class Still(nn.Module):
    """Always does the same."""

    def distribution(self, feature):
        return self

    def sample(self):
        return torch.full((2,), 0.25)


def models(mean=None):
    return Models(world_model=KnownWorld(), decoder=Window(mean), policy=Still())


def known_batch(N=6, seed=1):
    """Recorded in the known world itself, one step at a time."""
    generator = torch.Generator().manual_seed(seed)
    world = KnownWorld()
    x, before = torch.randn(N, 4, generator=generator), torch.zeros(N, 2)
    steps, actions, previous = [], [], []
    for _ in range(C + H):
        action = torch.randn(N, 2, generator=generator)
        steps.append(x)
        actions.append(action)
        previous.append(before)
        x, before = x @ world.dynamics.carry + action @ world.dynamics.control, action
    x = torch.stack(steps, 1)
    never = torch.zeros(N, C + H, dtype=torch.bool)
    return Batch(
        observation={"x": x}, action=torch.stack(actions, 1),
        previous_action=torch.stack(previous, 1), reward=x.sum(-1), is_first=never,
        is_last=never, is_terminal=never, context=Latent(torch.zeros(N, 4), torch.zeros(N, 1, 2)),
        ordinals=np.arange(N * (C + H)).reshape(N, C + H),
    )  # fmt: skip


def variance_of(batch):
    return {name: values.flatten(0, 1).var(0) for name, values in batch.observation.items()}


HOW = Measuring(context=C, samples=K, discount=DISCOUNT)


def test_a_perfect_model_dreams_what_happened():
    batch = known_batch()
    latent = open_loop(models(), batch, context=C, samples=K)
    seen = shown(Window(), latent)["x"]
    assert seen.shape == (6, K, C + H, 4)
    for k in range(K):
        torch.testing.assert_close(seen[:, k], batch.observation["x"], atol=1e-5, rtol=1e-4)
    measured = measure(models(), batch, variance_of(batch), HOW)
    assert measured.model_error.tolist() == pytest.approx([0.0] * H, abs=1e-8)
    assert measured.parting_step is None
    assert measured.gap.ratio == pytest.approx(0.0, abs=1e-5)
    assert measured.gap.real_return == pytest.approx(measured.gap.dreamed_return, rel=1e-4)


def test_a_model_that_predicts_the_mean_has_error_1():
    batch = known_batch(N=500)
    x = batch.observation["x"][:, C:].flatten(0, 1)
    variance = {"x": x.var(0, unbiased=False)}
    measured = measure(models(mean=x.mean(0)), batch, variance, HOW)
    assert float(measured.model_error.mean()) == pytest.approx(1.0, abs=1e-3)
    assert measured.parting_step == 1


def test_repeating_the_last_observation_is_a_baseline():
    batch = known_batch()
    measured = measure(models(), batch, variance_of(batch), HOW)
    x, variance = batch.observation["x"], variance_of(batch)["x"]
    for h in range(H):
        off = (x[:, C - 1] - x[:, C + h]).square().mean(0) / variance
        assert measured.repeat_error[h] == pytest.approx(float(off.mean()), rel=1e-4)


def test_the_policy_acts_if_it_is_asked_to():
    batch = known_batch(N=2)
    free = open_loop(models(), batch, context=C, samples=1, recorded_actions=False)
    world, x = KnownWorld(), batch.observation["x"][:, C - 1]
    for h in range(H):
        x = x @ world.dynamics.carry + torch.full((2,), 0.25) @ world.dynamics.control
        torch.testing.assert_close(free.deter[:, 0, C + h], x)
    measured = measure(models(), batch, variance_of(batch), replace(HOW, policy_acts=True))
    first = measured.examples[0].vectors[0]
    assert first.mean.tolist() == pytest.approx(free.deter[0, 0, :, 0].tolist(), abs=1e-4)
    assert measured.model_error.tolist() == pytest.approx([0.0] * H, abs=1e-8)


def test_a_dream_sees_nothing_after_its_context_and_obeys_each_action_in_time():
    learning = make_learning()
    perturb(learning.world_model)
    world = Models(
        world_model=learning.world_model, decoder=learning.decoder,
        policy=learning.behavior.policy,
    )  # fmt: skip
    batch = make_batch(make_spec(), B=2, T=C + H)
    batch = replace(batch, is_first=torch.zeros_like(batch.is_first))

    def dreamed(of):
        torch.manual_seed(5)
        return open_loop(world, of, context=C, samples=K)

    before = dreamed(batch)
    assert before.deter.shape == (2, K, C + H, learning.world_model.config.deter)
    blinded = {
        name: torch.cat([v[:, :C], torch.full_like(v[:, C:], 7.0)], 1)
        for name, v in batch.observation.items()
    }
    assert torch.equal(dreamed(replace(batch, observation=blinded)).deter, before.deter)
    other = batch.previous_action.clone()
    other[:, C + 2] += 1.0
    after = dreamed(replace(batch, previous_action=other))
    assert torch.equal(after.deter[:, :, : C + 2], before.deter[:, :, : C + 2])
    assert not torch.equal(after.deter[:, :, C + 2], before.deter[:, :, C + 2])
    torch.manual_seed(5)
    observed = learning.world_model.dynamics.observe(
        batch.context, batch.previous_action[:, :C],
        learning.world_model.encoder.encode(
            {name: v[:, :C] for name, v in batch.observation.items()}
        ),
        batch.is_first[:, :C],
    )  # fmt: skip
    for k in range(K):
        torch.testing.assert_close(before.deter[:, k, :C], observed.latent.deter)


def test_steps_of_the_next_episode_do_not_count():
    batch = known_batch(N=2)
    is_first = batch.is_first.clone()
    is_first[0, 0] = True
    is_first[1, C + 2] = True
    batch = replace(batch, is_first=is_first)
    expected = torch.ones(2, H, dtype=torch.bool)
    expected[1, 2:] = False
    assert torch.equal(here(batch, C), expected)
    batch.observation["x"][1, C + 2 :] = 1e6
    batch.reward[1, C + 2 :] = 1e6
    measured = measure(models(), batch, {"x": torch.ones(4)}, HOW)
    assert measured.model_error.max() < 1e-6
    assert measured.gap.ratio < 1e-5
    assert [example.steps for example in measured.examples] == [C + H, C + 2]


def test_after_a_terminal_step_the_dream_may_not_earn_on():
    batch = known_batch(N=1)
    reward, terminal, first = (
        batch.reward.clone(),
        batch.is_terminal.clone(),
        batch.is_first.clone(),
    )
    terminal[0, C], first[0, C + 1] = True, True
    batch = replace(batch, reward=reward, is_terminal=terminal, is_first=first)
    measured = measure(models(), batch, {"x": torch.ones(4)}, HOW)
    assert measured.gap.real_return == pytest.approx(float(reward[0, C]), rel=1e-5)
    dreamed, weight = 0.0, 1.0
    for h in range(1):
        dreamed, weight = dreamed + weight * float(reward[0, C + h]), weight * DISCOUNT
    assert measured.gap.dreamed_return == pytest.approx(dreamed, rel=1e-4), (
        "only what is looked at is dreamed: one Step"
    )
    assert measured.examples[0].continues.real.tolist() == [1.0] * C + [0.0]
    assert measured.examples[0].continues.mean.tolist() == pytest.approx([1.0] * (C + 1))


def test_an_end_that_the_dream_does_not_foresee_widens_the_gap():
    batch = known_batch(N=2)
    terminal, first = batch.is_terminal.clone(), batch.is_first.clone()
    terminal[0, C], first[0, C + 1] = True, True
    batch = replace(batch, is_terminal=terminal, is_first=first)
    measured = measure(models(), batch, {"x": torch.ones(4)}, HOW)
    rewards, weight, unforeseen = batch.reward[0, C:].tolist(), 1.0, 0.0
    for reward in rewards:
        unforeseen, weight = unforeseen + weight * reward, weight * DISCOUNT
    other, weight = 0.0, 1.0
    for reward in batch.reward[1, C:].tolist():
        other, weight = other + weight * reward, weight * DISCOUNT
    assert measured.gap.real_return == pytest.approx((rewards[0] + other) / 2, rel=1e-4)
    assert measured.gap.dreamed_return == pytest.approx((unforeseen + other) / 2, rel=1e-3)
    assert measured.gap.ratio > 1e-3


def test_a_batch_is_cut_whole():
    batch = make_batch(make_spec(), B=2, T=5)
    short = changed(batch, lambda array: array[:, :2])
    assert short.ordinals.tolist() == batch.ordinals[:, :2].tolist()
    for name in ("action", "previous_action", "reward", "is_first", "is_last", "is_terminal"):
        assert torch.equal(getattr(short, name), getattr(batch, name)[:, :2])
    for name, values in short.observation.items():
        assert torch.equal(values, batch.observation[name][:, :2])
    assert short.context is batch.context


def test_what_is_not_a_number_becomes_one():
    wild = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e38, 2.0])
    largest = torch.tensor(MAX_VALUE)
    assert torch.equal(bounded(wild), torch.stack([torch.tensor(0.0), largest, -largest, largest,
                                                   torch.tensor(2.0)]))  # fmt: skip
