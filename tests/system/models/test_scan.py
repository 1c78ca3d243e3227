"""The scan with its gradient written by hand against autograd through the plain loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from system.models import kernels
from system.models.dynamics import RSSM, Latent
from tests.learning_for_tests import MODEL, perturb
from tests.system.models.test_fused import needs_kernels

EMBEDDING, ACTION = 6, 3


def _rssm(model=MODEL):
    torch.manual_seed(0)
    rssm = RSSM(model, embedding=EMBEDDING, action=ACTION)
    perturb(rssm)
    return rssm


def _inputs(B, T):
    generator = torch.Generator().manual_seed(B * 100 + T)
    index = torch.randint(MODEL.classes, (B, MODEL.stoch), generator=generator)
    stoch = torch.nn.functional.one_hot(index, MODEL.classes).float()
    return {
        "deter": torch.tanh(torch.randn(B, MODEL.deter, generator=generator)).requires_grad_(),
        "stoch": stoch.requires_grad_(),
        "action": torch.randn(B, T, ACTION, generator=generator).requires_grad_(),
        "embedding": torch.randn(B, T, EMBEDDING, generator=generator).requires_grad_(),
        "is_first": torch.rand(B, T, generator=generator) < 0.3,
    }


def _observe(rssm, deter, stoch, action, embedding, is_first):
    """What comes out, and the gradients of a weighted sum of all of it."""
    torch.manual_seed(3)
    observed = rssm.observe(Latent(deter, stoch), action, embedding, is_first)
    parts = [*observed.latent, observed.posterior.probs, observed.prior.probs]
    generator = torch.Generator().manual_seed(4)
    total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in parts)
    wanted = {"deter": deter, "stoch": stoch, "action": action, "embedding": embedding}
    wanted |= dict(rssm.named_parameters())
    gradients = torch.autograd.grad(total, list(wanted.values()))
    return parts, dict(zip(wanted, gradients, strict=True))


def _stored_time_first(x):
    """The same numbers, of which those of one step lie far apart."""
    return x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_(x.requires_grad)


@needs_kernels
@pytest.mark.parametrize("changes", [{}, {"blocks": 1}, {"unimix": 1.0}])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 7), (9, 2)])
def test_scan_and_every_gradient_equal_autograd(B, T, changes):
    _assert_equals_autograd(_rssm(replace(MODEL, **changes)), _inputs(B, T))


@needs_kernels
def test_what_a_scan_reads_may_lie_anywhere():
    inputs = {name: _stored_time_first(each) for name, each in _inputs(3, 7).items()}
    _assert_equals_autograd(_rssm(), inputs)


def _assert_equals_autograd(rssm, inputs):
    found, gradients = _observe(rssm, **inputs)
    with kernels.switched_off():
        wanted, twins = _observe(rssm, **inputs)
    for mine, twin in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, twin, atol=2e-6, rtol=1e-5)
    for name, twin in twins.items():
        size = twin.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(
            gradients[name], twin, atol=2e-5 * size, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@needs_kernels
def test_a_second_way_back_gives_the_same():
    rssm, inputs = _rssm(), _inputs(3, 4)
    carry = Latent(inputs.pop("deter"), inputs.pop("stoch"))
    latent = rssm.observe(carry, **inputs).latent
    gradients = []
    for _ in range(2):
        found = torch.autograd.grad(
            latent.feature.square().sum(), [rssm.hidden_norm.scale, rssm.deter_in.norm.scale,
                                            rssm.posterior_norm.scale], retain_graph=True,
        )  # fmt: skip
        gradients.append([each.clone() for each in found])
    assert all(map(torch.equal, *gradients))


@needs_kernels
def test_a_scan_that_rounds_follows_the_same_world():
    rssm, inputs = _rssm(), _inputs(40, 3)
    found, gradients = _observe(rssm, **inputs)
    with kernels.rounding(True):
        rounded, others = _observe(rssm, **inputs)
    torch.testing.assert_close(rounded[0][:, 0], found[0][:, 0], atol=0.03, rtol=0.03)
    if kernels.has_tiles():
        assert not torch.equal(rounded[0], found[0])
    # Later steps may draw other samples; a gradient that meets only the first does not.
    assert torch.cosine_similarity(gradients["deter"].flatten(), others["deter"].flatten(), 0) > 0.9


@needs_kernels
def test_nothing_of_the_old_episode_is_left_not_even_nan():
    rssm, inputs = _rssm(), _inputs(3, 2)
    inputs["deter"] = torch.full_like(inputs["deter"], float("nan")).requires_grad_()
    inputs["is_first"][:, 0] = True
    parts, gradients = _observe(rssm, **inputs)
    assert all(part.isfinite().all() for part in parts)
    assert not gradients["deter"].any()
