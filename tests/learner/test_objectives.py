"""One whole world-model loss, continue targets and replay-value targets against the twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import references
from tests.learning_for_tests import let_speak, make_batch, make_learning, make_spec, perturb


def _arrays(batch):
    return {
        "observation": {k: v.double().numpy() for k, v in batch.observation.items()},
        "previous_action": batch.previous_action.double().numpy(),
        "reward": batch.reward.double().numpy(),
        "is_first": batch.is_first.numpy(),
        "is_terminal": batch.is_terminal.numpy(),
        "deter": batch.context.deter.double().numpy(),
        "stoch": batch.context.stoch.double().numpy(),
    }


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@pytest.mark.parametrize(("B", "T"), [(1, 2), (3, 5)])
@torch.no_grad()
def test_whole_world_model_loss(B, T, kind):
    learning = make_learning(kind, free_nats=0.2)
    perturb(learning.world_model)
    perturb(learning.decoder)
    batch = make_batch(make_spec(kind), B, T)
    world = learning.objective.loss(batch)
    samples = world.latents.stoch.double().numpy()
    deters, wanted = references.world_model_losses(
        references.parameters_of(learning.world_model),
        references.parameters_of(learning.decoder),
        learning.world_model.config,
        learning._config,
        _arrays(batch),
        samples,
    )
    np.testing.assert_allclose(world.latents.deter, deters, atol=1e-5)
    assert set(world.losses) == set(wanted)
    for name, loss in world.losses.items():
        assert loss.shape == (B, T)
        np.testing.assert_allclose(loss, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_scales_are_the_authors_and_name_every_loss():
    learning = make_learning()
    losses = learning.objective.loss(make_batch(make_spec())).losses
    assert set(learning.objective.scales) == set(losses)
    assert learning.objective.scales == {
        "reconstruction": 1.0, "reward": 1.0, "continue": 1.0, "dynamics": 1.0,
        "representation": 0.1,
    }  # fmt: skip


def test_the_total_names_every_loss_of_the_update():
    learning = make_learning()
    metrics = learning.update(make_batch(make_spec())).metrics
    names = {name.removeprefix("loss/") for name in metrics if name.startswith("loss/")}
    assert names == {*learning.objective.scales, "policy", "value", "replay_value"}
    scales = {name: learning._scale(name) for name in names}
    assert scales["replay_value"] == 0.3
    assert scales["policy"] == scales["value"] == 1.0
    with pytest.raises(KeyError):
        learning._scale("unheard of")


def test_free_nats_stop_the_gradient():
    learning = make_learning(free_nats=1e6)
    losses = learning.objective.loss(make_batch(make_spec())).losses
    (losses["dynamics"].sum() + losses["representation"].sum()).backward()
    assert learning.optimizer.gradient.abs().max() == 0
    assert (losses["dynamics"] == 1e6).all()


def test_each_kl_moves_only_its_side():
    # T = 1: across time the posterior's samples reach later priors through the recurrence.
    batch = make_batch(make_spec(), 8, 1)
    for name, moved, still in (
        ("dynamics", "prior_out", "posterior_out"),
        ("representation", "posterior_out", "prior_out"),
    ):
        learning = make_learning(free_nats=1e-9)
        perturb(learning.world_model)
        learning.objective.loss(batch).losses[name].sum().backward()
        dynamics = learning.world_model.dynamics
        assert getattr(dynamics, moved).bias.grad.abs().max() > 0, name
        assert getattr(dynamics, still).bias.grad.abs().max() == 0, name


def test_continue_target_holds_the_discount():
    assert references.continue_target(False, 333) == 1 - 1 / 333
    assert references.continue_target(True, 333) == 0.0


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("B", "T"), [(1, 2), (4, 9)])
@torch.no_grad()
def test_replay_value_loss(B, T):
    learning = make_learning()
    behavior = learning.behavior
    perturb(behavior, seed=1)
    let_speak(behavior.value, 1)
    let_speak(behavior.slow_value, 2)
    batch = make_batch(make_spec(), B, T, seed=4)
    feature = torch.randn(B, T, learning.world_model.config.feature)
    worth = 10 * torch.randn(B, T)
    ours = behavior.replay_loss(feature, batch, worth)
    targets, counts = references.replay_value_targets(
        batch.reward.double().numpy(), batch.is_last.numpy(), batch.is_terminal.numpy(),
        worth.double().numpy(), 333.0, 0.95,
    )  # fmt: skip
    bins = references.two_hot_bins(learning.world_model.config.bins)
    value, slow = (references.parameters_of(head) for head in (behavior.value, behavior.slow_value))
    assert ours.shape == (B, T - 1)
    for b, t in np.ndindex(B, T - 1):
        x = feature[b, t].double().numpy()
        logits = references.head(x, value)
        pull = references.two_hot_mean(references.head(x, slow), bins)
        wanted = references.two_hot_cross_entropy(logits, targets[b, t], bins)
        wanted += references.two_hot_cross_entropy(logits, pull, bins)
        assert ours[b, t].item() == pytest.approx(counts[b, t] * wanted, rel=1e-4, abs=1e-5)
