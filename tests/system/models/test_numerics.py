"""Scalar transforms against their twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.models.distributions import TwoHot
from system.models.heads import TwoHotHead
from system.models.numerics import symexp, symlog, two_hot, two_hot_bins, two_hot_mean
from tests import references
from tests.learning_for_tests import MODEL

VALUES = [0.0, 1e-9, -1e-9, 1e-3, -0.3, 0.5, 1.0, -7.25, 123.0, -4.5e3, 1e6, -4.8e8, 4.85e8]
BINS = [21, 41, 127, 255]


@pytest.mark.parametrize("value", VALUES)
def test_symlog_and_symexp(value):
    x = torch.tensor(value, dtype=torch.float64)
    assert symlog(x).item() == pytest.approx(references.symlog(value), rel=1e-9, abs=1e-15)
    small = max(-20.0, min(20.0, value))
    assert symexp(x.clamp(-20, 20)).item() == pytest.approx(
        references.symexp(small), rel=1e-9, abs=1e-15
    )
    assert symexp(symlog(x)).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("num_bins", BINS)
def test_bins_grow_and_mirror_each_other_around_an_exact_zero(num_bins):
    bins = two_hot_bins(num_bins)
    np.testing.assert_allclose(bins, references.two_hot_bins(num_bins), rtol=2e-5, atol=1e-7)
    assert bins.shape == (num_bins,)
    assert (bins.diff() > 0).all()
    assert torch.equal(bins, -bins.flip(0))
    assert bins[num_bins // 2] == 0


@pytest.mark.parametrize("num_bins", BINS)
@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)])
def test_two_hot_splits_as_the_twin_and_keeps_the_expectation(num_bins, batch):
    bins = two_hot_bins(num_bins)
    random = np.random.default_rng(num_bins)
    values = symexp(torch.from_numpy(random.uniform(-21, 21, batch))).float()
    split = two_hot(values, bins)
    for index in np.ndindex(*batch):
        expected = references.two_hot(values[index].item(), bins.double().numpy())
        dense = np.zeros(num_bins)
        dense[split.below[index]] = 1 - split.share_above[index]
        dense[split.below[index] + 1] += split.share_above[index].item()
        np.testing.assert_allclose(dense, expected, atol=1e-5)
        inside = values[index].clamp(bins[0], bins[-1]).item()
        assert dense @ bins.double().numpy() == pytest.approx(inside, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("k", [0, 20, 40])
def test_a_value_on_a_bin_goes_to_that_bin_alone(k):
    bins = two_hot_bins(41)
    loss = TwoHot(torch.log_softmax(50.0 * torch.eye(41)[k], -1), bins).cross_entropy(bins[k])
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("num_bins", BINS)
def test_mean_of_logits(num_bins):
    bins = two_hot_bins(num_bins)
    logits = np.random.default_rng(0).normal(size=(6, num_bins)) * 3
    # Far bins are unlikely, as in a trained head: otherwise 5e8 * p hides everything else.
    logits -= 3 * np.abs(np.linspace(-10, 10, num_bins))
    mean = TwoHot(torch.from_numpy(logits).float(), bins).mean()
    expected = [references.two_hot_mean(row, references.two_hot_bins(num_bins)) for row in logits]
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_bins", BINS)
def test_equal_weights_mean_exactly_zero(num_bins):
    bins = two_hot_bins(num_bins)
    assert TwoHot(torch.zeros(4, num_bins), bins).mean().tolist() == [0.0] * 4
    assert two_hot_mean(torch.full((num_bins,), 1 / num_bins), bins).item() == 0.0


@pytest.mark.parametrize("layers", [1, 3])
def test_a_fresh_two_hot_head_predicts_exactly_zero(layers):
    head = TwoHotHead(MODEL, layers)
    assert head.predict(torch.randn(5, 4, MODEL.feature)).mean().abs().max() == 0.0


@pytest.mark.parametrize("batch", [1, 5])
def test_cross_entropy_and_its_gradient(batch):
    bins = two_hot_bins(127)
    random = np.random.default_rng(batch)
    logits = torch.from_numpy(random.normal(size=(batch, 127))).requires_grad_()
    targets = torch.from_numpy(random.normal(size=batch) * 50).requires_grad_()
    loss = TwoHot(logits, bins.double()).cross_entropy(targets)
    rows = logits.detach().numpy()
    exact = bins.double().numpy()
    expected = [
        references.two_hot_cross_entropy(row, target.item(), exact)
        for row, target in zip(rows, targets, strict=True)
    ]
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-6)
    loss.sum().backward()
    assert targets.grad is None
    for row, target, gradient in zip(rows, targets, logits.grad, strict=True):
        wanted = references.softmax(row) - references.two_hot(target.item(), exact)
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)
