"""PolicyAgent: what an actor runs equals the model's own filter."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from system.models import acting, kernels
from system.models.agent import PolicyAgent, acting_modules, model_digest
from system.models.dynamics import Latent
from system.models.weights import to_bytes
from system.types import Snapshot, TimeStep
from tests.learning_for_tests import MODEL, make_spec, perturb


def _agent(kind="continuous", seed=0):
    agent = PolicyAgent(MODEL, make_spec(kind, 3), seed=seed)
    perturb(agent.world_model), perturb(agent.policy)
    return agent


def _time_step(N, seed=0, first=None):
    random = np.random.default_rng(seed)
    return TimeStep(
        observation={
            name: random.normal(size=(N, *array.shape)).astype(np.float32)
            for name, array in make_spec().observation.items()
        },
        reward=np.zeros(N, np.float32),
        is_first=np.zeros(N, bool) if first is None else np.array(first),
        is_last=np.zeros(N, bool),
        is_terminal=np.zeros(N, bool),
    )


@pytest.mark.parametrize("N", [1, 4])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_shapes_and_ranges(kind, deterministic, N):
    agent = _agent(kind)
    carry = agent.initial_carry(N)
    for seed in range(3):
        decision = agent.act(_time_step(N, seed), carry, deterministic=deterministic)
        carry = decision.carry
        assert decision.action.shape == (N, 3)
        assert decision.action.dtype == np.float32
        assert np.abs(decision.action).max() <= 1.0
        if kind == "discrete":
            assert (decision.action.sum(-1) == 1).all()
            assert set(decision.action.ravel()) == {0.0, 1.0}
        latent = carry.latent()
        assert latent["deter"].shape == (N, MODEL.deter)
        assert latent["deter"].dtype == np.float16
        assert latent["stoch"].shape == (N, MODEL.stoch)
        assert latent["stoch"].dtype == np.uint8
        np.testing.assert_array_equal(latent["stoch"], carry.stoch.argmax(-1))


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_same_seed_same_actions_and_deterministic_takes_the_mode(kind):
    runs = []
    for deterministic in (False, False, True):
        torch.manual_seed(3)
        agent = _agent(kind)
        torch.manual_seed(4)
        decision = agent.act(_time_step(5), agent.initial_carry(5), deterministic=deterministic)
        runs.append(decision)
    np.testing.assert_array_equal(runs[0].action, runs[1].action)
    carry = runs[2].carry
    with torch.no_grad():
        mode = agent.policy.distribution(Latent(carry.deter, carry.stoch).feature).mode()
    torch.testing.assert_close(torch.from_numpy(runs[2].action), mode)


def test_building_an_agent_leaves_the_random_numbers_alone():
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    first = PolicyAgent(MODEL, make_spec(), seed=1)
    assert torch.equal(torch.rand(3), wanted)
    second = PolicyAgent(MODEL, make_spec(), seed=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True)
    )


def test_is_first_forgets_only_that_copy():
    agent = _agent()
    carry = agent.act(_time_step(3), agent.initial_carry(3), deterministic=True).carry
    step = _time_step(3, 1, [False, True, False])
    torch.manual_seed(0)
    used = agent.act(step, carry, deterministic=True).carry
    torch.manual_seed(0)
    fresh = agent.act(step, agent.initial_carry(3), deterministic=True).carry
    assert torch.equal(used.deter[1], fresh.deter[1])
    assert torch.equal(used.stoch[1], fresh.stoch[1])
    assert not torch.equal(used.deter[0], fresh.deter[0])
    assert not torch.equal(used.deter[2], fresh.deter[2])


def test_acting_step_by_step_equals_observing_the_sequence(monkeypatch):
    agent = _agent()
    N, T = 2, 6
    noise = torch.rand(T, N, MODEL.stoch)
    turn = iter(range(T))
    monkeypatch.setattr(
        agent.world_model.dynamics,
        "_noise",
        lambda time, _: noise if time == T else noise[next(turn)].unsqueeze(0),
    )
    firsts = np.zeros((T, N), bool)
    firsts[0], firsts[3, 1] = True, True
    steps = [_time_step(N, t, firsts[t]) for t in range(T)]
    carry, decisions = agent.initial_carry(N), []
    for step in steps:
        decisions.append(agent.act(step, carry, deterministic=False))
        carry = decisions[-1].carry
    observation = {
        name: torch.stack([torch.from_numpy(s.observation[name]) for s in steps], 1)
        for name in steps[0].observation
    }
    actions = torch.stack([torch.from_numpy(d.action) for d in decisions], 1)
    previous = torch.cat([torch.zeros(N, 1, 3), actions[:, :-1]], 1)
    model = agent.world_model
    with torch.no_grad():
        latents = model.dynamics.observe(
            model.dynamics.initial(N),
            previous,
            model.encoder.encode(observation),
            torch.from_numpy(firsts.T.copy()),
        ).latent
    acted = torch.stack([d.carry.deter for d in decisions], 1)
    torch.testing.assert_close(acted, latents.deter, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.stack([d.carry.stoch for d in decisions], 1), latents.stoch)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_the_kernels_act_as_the_modules_do(kind, deterministic):
    N, runs = 3, []
    for way in (contextlib.nullcontext, kernels.switched_off):
        torch.manual_seed(6)
        agent = _agent(kind)
        assert acting.usable(agent.world_model, agent.policy), "no C compiler?"
        carry, decisions = agent.initial_carry(N), []
        with way():
            for t in range(5):
                step = _time_step(N, t, [t == 0, t in (0, 3), t == 0])
                decisions.append(agent.act(step, carry, deterministic=deterministic))
                carry = decisions[-1].carry
        assert (agent._acting(N) is None) == (way is kernels.switched_off)
        runs.append(decisions)
    for ours, plain in zip(*runs, strict=True):
        np.testing.assert_allclose(ours.action, plain.action, atol=1e-5)
        torch.testing.assert_close(ours.carry.deter, plain.carry.deter, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours.carry.stoch, plain.carry.stoch)


def test_what_was_remembered_never_changes():
    agent = _agent()
    first = agent.act(_time_step(2), agent.initial_carry(2), deterministic=False)
    kept = [first.action.copy(), first.carry.deter.clone(), first.carry.stoch.clone()]
    agent.act(_time_step(2, 1), first.carry, deterministic=False)
    assert np.array_equal(first.action, kept[0])
    assert torch.equal(first.carry.deter, kept[1])
    assert torch.equal(first.carry.stoch, kept[2])


def _snapshot(agent, **changes):
    values = {
        "epoch": 2, "version": 9, "update": 1, "agent_steps": 1, "elapsed_s": 0.0, "time_s": 0.0,
        "model_digest": agent.digest,
        "weights": to_bytes(acting_modules(agent.world_model, agent.policy)),
    }  # fmt: skip
    return Snapshot(**values | changes)


def test_a_broadcast_is_adopted_whole():
    source, target = _agent(), PolicyAgent(MODEL, make_spec("continuous", 3), seed=5)
    # What was laid out for the policy before must be gone.
    target.act(_time_step(2), target.initial_carry(2), deterministic=False)
    target.load(_snapshot(source))
    assert (target.epoch, target.version) == (2, 9)
    decisions = []
    for agent in (source, target):
        torch.manual_seed(0)
        decisions.append(agent.act(_time_step(2), agent.initial_carry(2), deterministic=False))
    np.testing.assert_array_equal(decisions[0].action, decisions[1].action)


def test_another_models_broadcast_is_refused():
    agent = _agent()
    message = f"^policy 9 is for model feedbeef, this actor runs {agent.digest}$"
    with pytest.raises(ValueError, match=message):
        agent.load(_snapshot(agent, model_digest="feedbeef"))
    assert agent.version == 0


def test_model_digest_follows_sizes_and_spec():
    base = model_digest(MODEL, make_spec())
    assert base == model_digest(dataclasses.replace(MODEL), make_spec())
    assert base != model_digest(dataclasses.replace(MODEL, deter=32), make_spec())
    assert base != model_digest(MODEL, make_spec("discrete"))
