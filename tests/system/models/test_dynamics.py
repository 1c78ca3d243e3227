"""The RSSM against its per-block twin; resets; imagination."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from system.models.distributions import OneHot
from system.models.dynamics import RSSM, Latent
from tests import references
from tests.learning_for_tests import MODEL, perturb

EMBEDDING, ACTION = 6, 3


def _rssm(blocks=4, seed=0):
    torch.manual_seed(seed)
    rssm = RSSM(dataclasses.replace(MODEL, blocks=blocks), embedding=EMBEDDING, action=ACTION)
    perturb(rssm)
    return rssm


def _inputs(B, T, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(MODEL.classes, (B, MODEL.stoch), generator=generator)
    stoch = torch.nn.functional.one_hot(index, MODEL.classes).float()
    carry = Latent(torch.randn(B, MODEL.deter, generator=generator), stoch)
    action = 2 * torch.randn(B, T, ACTION, generator=generator)
    return carry, action, torch.randn(B, T, EMBEDDING, generator=generator)


@pytest.mark.parametrize("blocks", [1, 2, 8])
@pytest.mark.parametrize("B", [1, 5])
@torch.no_grad()
def test_recurrence_equals_the_per_block_twin(B, blocks):
    rssm = _rssm(blocks)
    carry, action, _ = _inputs(B, 1)
    deter = rssm.recur(carry.deter, carry.stoch.flatten(-2), rssm.action_part(action[:, 0]))
    parameters = references.parameters_of(rssm)
    for b in range(B):
        wanted = references.gru_step(
            parameters,
            carry.deter[b].double().numpy(),
            carry.stoch[b].double().numpy().ravel(),
            action[b, 0].double().numpy(),
            blocks,
        )
        np.testing.assert_allclose(deter[b], wanted, atol=1e-5)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("B", "T"), [(1, 1), (2, 7), (4, 3)])
@torch.no_grad()
def test_observe_equals_the_twin(B, T):
    rssm = _rssm()
    carry, action, embedding = _inputs(B, T)
    is_first = torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < 0.3
    observed = rssm.observe(carry, action, embedding, is_first)
    batch = {
        "deter": carry.deter.double().numpy(),
        "stoch": carry.stoch.double().numpy(),
        "previous_action": action.double().numpy(),
        "is_first": is_first.numpy(),
    }
    deters, posteriors, priors = references.observe(
        references.parameters_of(rssm),
        rssm.config,
        batch,
        embedding.double().numpy(),
        observed.latent.stoch.double().numpy(),
    )
    np.testing.assert_allclose(observed.latent.deter, deters, atol=1e-5)
    np.testing.assert_allclose(observed.posterior.probs, posteriors, atol=1e-5)
    np.testing.assert_allclose(observed.prior.probs, priors, atol=1e-5)
    assert torch.equal(observed.latent.stoch.sum(-1), torch.ones(B, T, MODEL.stoch))


@torch.no_grad()
def test_is_first_forgets_carry_and_action():
    rssm = _rssm()
    carry, action, embedding = _inputs(2, 6)
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[0, 3] = True
    torch.manual_seed(1)
    observed = rssm.observe(carry, action, embedding, is_first)
    action[0, :4] += 1.0
    carry.deter[0] += 1.0
    embedding[0, :3] += 1.0
    torch.manual_seed(1)
    changed = rssm.observe(carry, action, embedding, is_first)
    for before, after in zip(observed.latent, changed.latent, strict=True):
        assert torch.equal(before[0, 3:], after[0, 3:])
        assert torch.equal(before[1], after[1])
    assert not torch.equal(observed.latent.deter[0, :3], changed.latent.deter[0, :3])
    # It starts from the initial latent and no action.
    first = rssm.recur(*_flat(rssm.initial(1)), rssm.action_part(torch.zeros(1, ACTION)))
    torch.testing.assert_close(observed.latent.deter[:1, 3], first)


@torch.no_grad()
def test_reset_is_what_initial_gives():
    rssm = _rssm()
    assert all((part == 0).all() for part in rssm.initial(3))
    assert rssm.initial(3).stoch.shape == (3, MODEL.stoch, MODEL.classes)


def test_no_gradient_flows_across_a_reset():
    rssm = _rssm()
    carry, action, embedding = _inputs(1, 4)
    embedding.requires_grad_()
    is_first = torch.tensor([[False, False, True, False]])
    observed = rssm.observe(carry, action, embedding, is_first)
    observed.latent.feature[:, 2:].square().sum().backward()
    assert (embedding.grad[:, :2] == 0).all()
    assert (embedding.grad[:, 2:] != 0).any()


@torch.no_grad()
def test_observe_in_two_halves_equals_once():
    rssm = _rssm()
    carry, action, embedding = _inputs(3, 6)
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    torch.manual_seed(0)
    whole = rssm.observe(carry, action, embedding, is_first).latent
    torch.manual_seed(0)
    half = rssm.observe(carry, action[:, :3], embedding[:, :3], is_first[:, :3]).latent
    rest = rssm.observe(
        Latent(half.deter[:, -1], half.stoch[:, -1]), action[:, 3:], embedding[:, 3:],
        is_first[:, 3:],
    ).latent  # fmt: skip
    torch.testing.assert_close(torch.cat([half.deter, rest.deter], 1), whole.deter)
    assert torch.equal(torch.cat([half.stoch, rest.stoch], 1), whole.stoch)


@torch.no_grad()
def test_imagine_step_samples_the_prior_of_the_same_recurrence():
    rssm = _rssm()
    carry, action, _ = _inputs(1, 1)
    many = Latent(carry.deter.expand(20_000, -1), carry.stoch.expand(20_000, -1, -1))
    torch.manual_seed(0)
    dreamed = rssm.imagine_step(many, action[:, 0].expand(20_000, -1))
    deter = rssm.recur(*_flat(carry), rssm.action_part(action[:, 0]))
    torch.testing.assert_close(dreamed.deter[:1], deter)
    wanted = references.prior(
        references.parameters_of(rssm), deter[0].double().numpy(), rssm.config
    )
    frequency = dreamed.stoch.mean(0)
    error = 4.5 * np.sqrt(wanted * (1 - wanted) / 20_000)
    assert (np.abs(frequency.numpy() - wanted) <= error).all()


@torch.no_grad()
def test_actions_beyond_one_count_as_one():
    rssm = _rssm()
    large = torch.tensor([[3.0, -7.0, 0.5]])
    torch.testing.assert_close(
        rssm.action_part(large), rssm.action_part(torch.tensor([[1.0, -1.0, 0.5]]))
    )


def test_straight_through_reaches_the_posterior_through_time():
    rssm = _rssm()
    carry, action, embedding = _inputs(1, 3)
    embedding.requires_grad_()
    observed = rssm.observe(carry, action, embedding, torch.zeros(1, 3, dtype=torch.bool))
    observed.latent.deter[:, 2].sum().backward()
    assert (embedding.grad[:, :2] != 0).any(-1).all()
    assert (embedding.grad[:, 2] == 0).all()


def test_feature_is_deter_then_flattened_stoch():
    carry, _, _ = _inputs(2, 1)
    wanted = np.concatenate([carry.deter, carry.stoch.reshape(2, -1)], 1)
    np.testing.assert_array_equal(carry.feature, wanted)


def test_distribution_reads_group_by_group():
    rssm = _rssm()
    logits = torch.randn(2, MODEL.stoch * MODEL.classes)
    distribution = rssm.distribution(logits)
    assert isinstance(distribution, OneHot)
    wanted = references.unimix(logits.view(2, MODEL.stoch, MODEL.classes).double().numpy(), 0.01)
    np.testing.assert_allclose(distribution.probs, wanted, atol=1e-6)


def _flat(latent):
    return latent.deter, latent.stoch.flatten(-2)
