"""Categoricals with unimix and the bounded normal, against their twins and their own samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.models.distributions import BoundedNormal, OneHot, kl_divergence
from tests import references


def _logits(*shape, seed=0, size=3.0):
    return np.random.default_rng([seed, *shape]).normal(size=shape) * size


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("shape", [(4,), (1, 3), (5, 2, 8)])
def test_unimix_log_prob_and_entropy(shape, share):
    logits = _logits(*shape)
    distribution = OneHot.from_logits(torch.from_numpy(logits).float(), share)
    probs = references.unimix(logits, share)
    np.testing.assert_allclose(distribution.probs, probs, atol=1e-6)
    assert (distribution.probs >= share / shape[-1] * 0.999).all()
    value = np.eye(shape[-1])[np.random.default_rng(0).integers(shape[-1], size=shape[:-1])]
    np.testing.assert_allclose(
        distribution.log_prob(torch.from_numpy(value).float()),
        np.log((probs * value).sum(-1)),
        atol=1e-5,
    )
    np.testing.assert_allclose(distribution.entropy(), -(probs * np.log(probs)).sum(-1), atol=1e-5)
    np.testing.assert_array_equal(distribution.mode().argmax(-1), probs.argmax(-1))


def test_huge_logits_stay_finite():
    distribution = OneHot.from_logits(torch.tensor([[1e4, -1e4, 0.0]]), 0.01)
    assert torch.isfinite(distribution.log_probs).all()


@pytest.mark.parametrize("batch", [1, 6])
def test_kl_against_the_twin(batch):
    p, q = _logits(batch, 4, 5, seed=1), _logits(batch, 4, 5, seed=2)
    kl = kl_divergence(
        OneHot.from_logits(torch.from_numpy(p).float(), 0.01),
        OneHot.from_logits(torch.from_numpy(q).float(), 0.01),
    )
    for b in range(batch):
        wanted = references.kl_with_free_nats(
            references.unimix(p[b], 0.01), references.unimix(q[b], 0.01), 0.0
        )
        assert kl[b].item() == pytest.approx(wanted, rel=1e-5)
        assert references.kl_with_free_nats(p_ := references.unimix(p[b], 0.01), p_, 1.0) == 1.0


def test_sample_frequencies_follow_the_probabilities():
    torch.manual_seed(0)
    distribution = OneHot.from_logits(torch.tensor([0.0, 2.0, -3.0, 1.0, -9.0]), 0.01)
    num = 200_000
    many = OneHot(distribution.probs.expand(num, 5))
    samples = many.sample()
    assert torch.equal(samples.sum(-1), torch.ones(num))
    counts, wanted = samples.sum(0).double(), distribution.probs.double() * num
    assert (((counts - wanted) ** 2) / wanted).sum() < 23.5  # chi-square, 4 degrees, p = 1e-4


def test_a_sample_is_the_first_class_whose_cumulative_probability_exceeds_the_noise():
    probs = torch.tensor([0.25, 0.25, 0.5])
    noise = torch.tensor([[0.0], [0.2499], [0.25], [0.4999], [0.5], [0.99999994]])
    drawn = OneHot(probs.expand(6, 3)).sample(noise).argmax(-1)
    assert drawn.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_last_class_takes_what_rounding_leaves():
    short = torch.tensor([[0.3, 0.3, 0.3999]])  # sums to 0.9999
    assert OneHot(short).sample(torch.tensor([[0.99999]])).tolist() == [[0.0, 0.0, 1.0]]


def test_straight_through_gradient():
    logits = torch.randn(3, 2, 5, requires_grad=True, dtype=torch.float64)
    torch.manual_seed(0)
    distribution = OneHot.from_logits(logits, 0.01)
    sample = distribution.sample()
    hard = torch.nn.functional.one_hot(sample.argmax(-1), 5)
    np.testing.assert_allclose(sample.detach(), hard, atol=1e-12)
    upstream = torch.randn(3, 2, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((sample * upstream).sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(
        (distribution.probs * upstream).sum(), logits, retain_graph=True
    )
    torch.testing.assert_close(gradient, wanted)
    assert gradient.abs().max() > 0
    again = distribution.drawn(sample.detach())
    torch.testing.assert_close(again, sample)
    (repeated,) = torch.autograd.grad((again * upstream).sum(), logits)
    torch.testing.assert_close(repeated, wanted)


def test_no_gradient_no_straight_through_residue():
    sample = OneHot.from_logits(torch.randn(64, 5), 0.01).sample()
    assert set(sample.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("shape", [(1,), (5, 2), (2, 3, 4)])
def test_bounded_normal_against_the_twin(shape):
    mean_output, std_output, x = (_logits(*shape, seed=s, size=2) for s in range(3))
    distribution = BoundedNormal.from_outputs(
        torch.from_numpy(mean_output).float(), torch.from_numpy(std_output).float()
    )
    mean, std = references.bounded_normal(mean_output, std_output)
    np.testing.assert_allclose(distribution.mean, mean, atol=1e-6)
    np.testing.assert_allclose(distribution.std, std, atol=1e-6)
    np.testing.assert_allclose(
        distribution.log_prob(torch.from_numpy(x).float()),
        references.normal_log_prob(x, mean, std),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(distribution.entropy(), references.normal_entropy(std), atol=1e-5)
    assert torch.equal(distribution.mode(), distribution.mean)


def test_bounded_normal_std_limits():
    std = BoundedNormal.from_outputs(torch.zeros(2), torch.tensor([-100.0, 100.0])).std
    assert std.tolist() == pytest.approx([0.1, 1.0])


def test_bounded_normal_samples_have_its_moments_and_its_gradient():
    torch.manual_seed(0)
    outputs = torch.tensor([[0.3, -1.0]]).expand(100_000, 2), torch.tensor([[0.0, -2.0]])
    distribution = BoundedNormal.from_outputs(outputs[0], outputs[1].expand(100_000, 2))
    sample = distribution.sample()
    error = (sample.mean(0) - distribution.mean[0]).abs() / distribution.std[0]
    assert (error < 4 / 100_000**0.5).all()
    np.testing.assert_allclose(sample.std(0), distribution.std[0], rtol=0.01)
    mean, std = torch.zeros(4, requires_grad=True), torch.ones(4, requires_grad=True)
    distribution = BoundedNormal(mean, std)
    sample = distribution.sample()
    for drawn in (sample, distribution.drawn(sample.detach())):
        of_mean, of_std = torch.autograd.grad(drawn.sum(), (mean, std))
        assert of_mean.tolist() == [1.0] * 4
        torch.testing.assert_close(of_std, sample.detach())
