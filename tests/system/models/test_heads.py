"""Encoder, decoder, heads and policy against their twins; initialization."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.models.decoder import Decoder
from system.models.encoder import Encoder
from system.models.heads import BinaryHead, Policy, TwoHotHead
from system.models.layers import Linear, Norm
from system.models.world_model import WorldModel
from tests import references
from tests.learning_for_tests import MODEL, let_speak, make_batch, make_spec, perturb


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 5)])
@torch.no_grad()
def test_encoder_and_decoder(B, T):
    spec = make_spec()
    encoder, decoder = (kind(MODEL, spec.observation) for kind in (Encoder, Decoder))
    perturb(encoder), perturb(decoder)
    batch = make_batch(spec, B, T)
    embedding = encoder.encode(batch.observation)
    feature = torch.randn(B, T, MODEL.feature)
    decoded = decoder.decode(feature)
    for b, t in np.ndindex(B, T):
        one = {name: array[b, t].double().numpy() for name, array in batch.observation.items()}
        wanted = references.encode(references.parameters_of(encoder), one)
        np.testing.assert_allclose(embedding[b, t], wanted, atol=1e-5)
        flat = references.head(feature[b, t].double().numpy(), references.parameters_of(decoder))
        ours = np.concatenate([np.ravel(decoded[name][b, t]) for name in sorted(decoded)])
        np.testing.assert_allclose(ours, flat, atol=1e-5)
    for name, array in spec.observation.items():
        assert decoded[name].shape == (B, T, *array.shape)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("batch", [(1,), (2, 3)])
@torch.no_grad()
def test_reward_and_continuation(batch):
    world_model = WorldModel(MODEL, make_spec())
    perturb(world_model)
    let_speak(world_model.reward)
    feature = torch.randn(*batch, MODEL.feature)
    reward = world_model.reward.predict(feature).mean()
    alive = world_model.continuation.logit(feature).sigmoid()
    parameters = references.parameters_of(world_model)
    bins = references.two_hot_bins(MODEL.bins)
    for index in np.ndindex(*batch):
        x = feature[index].double().numpy()
        logits = references.head(x, references.part(parameters, "reward"))
        wanted = references.two_hot_mean(logits, bins)
        assert reward[index].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        logit = references.head(x, references.part(parameters, "continuation"))[0]
        assert alive[index].item() == pytest.approx(references.sigmoid(logit), abs=1e-5)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@torch.no_grad()
def test_policy(kind):
    policy = Policy(MODEL, make_spec(kind, 3).action)
    perturb(policy)
    feature = torch.randn(4, MODEL.feature)
    distribution = policy.distribution(feature)
    for i in range(4):
        x = feature[i].double().numpy()
        out = references.head(x, references.parameters_of(policy))
        if kind == "discrete":
            wanted = references.unimix(out, 0.01)
            np.testing.assert_allclose(distribution.probs[i], wanted, atol=1e-5)
        else:
            mean, std = references.bounded_normal(out[:3], out[3:])
            np.testing.assert_allclose(distribution.mean[i], mean, atol=1e-5)
            np.testing.assert_allclose(distribution.std[i], std, atol=1e-5)


def test_initial_scales():
    torch.manual_seed(0)
    weight = Linear(400, 300).weight
    std = 400**-0.5
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    assert weight.abs().max() <= 2 * 1.1368 * std * 1.0001
    assert Linear(400, 300, scale=0.01).weight.std().item() == pytest.approx(std / 100, rel=0.01)
    assert (Linear(4, 3, scale=0.0).weight == 0).all()
    for module in (TwoHotHead(MODEL, 1), BinaryHead(MODEL, 1), WorldModel(MODEL, make_spec())):
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                assert (parameter == 0).all()
            if name.endswith("scale"):
                assert (parameter == 1).all()
    assert (TwoHotHead(MODEL, 1).out.weight == 0).all()


def test_a_fresh_policy_is_almost_indifferent():
    torch.manual_seed(0)
    feature = torch.randn(100, MODEL.feature)
    probs = Policy(MODEL, make_spec("discrete", 3).action).distribution(feature).probs
    assert (probs - 1 / 3).abs().max() < 0.03
    mean = Policy(MODEL, make_spec("continuous", 3).action).distribution(feature).mean
    assert mean.abs().max() < 0.1


def test_norm_has_the_authors_epsilon_inside_the_root():
    x = torch.tensor([[0.01, -0.02, 0.03]])
    wanted = references.norm_silu(x[0].double().numpy(), np.ones(3))
    np.testing.assert_allclose(Norm(3)(x).detach()[0], wanted, atol=1e-6)


def test_size_1m_has_as_many_parameters_as_the_authors_on_walker():
    """Torchrl counted 640,867 for size1m on walker proprio (dreamerv3.md 1.1)."""
    presets = pytest.importorskip("deploy.presets")
    sizes = getattr(presets, "SIZES", None)
    if sizes is None or "1m" not in sizes:
        pytest.skip("no size table")
    from learner.config import LearnerConfig
    from learner.update import Learning
    from system.specs import ActionSpec, ArraySpec, EnvSpec

    spec = EnvSpec(
        name="walker",
        observation={
            "height": ArraySpec(shape=()),
            "orientations": ArraySpec(shape=(14,)),
            "velocity": ArraySpec(shape=(9,)),
        },
        action=ActionSpec(kind="continuous", size=6),
    )
    learning = Learning(LearnerConfig(), sizes["1m"], spec, torch.device("cpu"))
    count = sum(p.numel() for p in learning.parameters() if p.requires_grad)
    assert count == 640_867
