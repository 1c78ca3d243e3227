"""The scan with its gradient written by hand against autograd through the plain loop."""

from __future__ import annotations

import pytest
import torch

from system.models import kernels
from system.models.dynamics import RSSM, Latent
from system.models.imagining import Imagination
from tests.learning_for_tests import MODEL, perturb
from tests.system.models.test_fused import needs_kernels

EMBEDDING, ACTION = 6, 3


def _rssm():
    torch.manual_seed(0)
    rssm = RSSM(MODEL, embedding=EMBEDDING, action=ACTION)
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


@needs_kernels
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 7), (9, 2)])
def test_scan_and_every_gradient_equal_autograd(B, T):
    rssm, inputs = _rssm(), _inputs(B, T)
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
def test_a_dreamed_step_and_its_gradients_equal_autograd():
    rssm, inputs = _rssm(), _inputs(5, 1)
    rssm.requires_grad_(False)
    carry, action = Latent(inputs["deter"], inputs["stoch"]), inputs["action"][:, 0]
    steps = [Imagination(rssm, torch.float32).step, rssm.imagine_step]
    results = []
    for step in steps:
        torch.manual_seed(6)
        latent = step(carry, action)
        weight = torch.randn(latent.feature.shape, generator=torch.Generator().manual_seed(7))
        gradients = torch.autograd.grad(
            (latent.feature * weight).sum(), [*carry, inputs["action"]]
        )  # fmt: skip
        results.append([latent.deter, latent.stoch, *gradients])
    for mine, twin in zip(*results, strict=True):
        torch.testing.assert_close(mine, twin, atol=1e-5, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@torch.no_grad()
def test_a_step_in_place_is_the_plain_recurrence(dtype, tolerance):
    rssm, inputs = _rssm(), _inputs(64, 1)
    start, action = Latent(inputs["deter"], inputs["stoch"]), inputs["action"][:, 0]
    feature = torch.zeros(64, 2, MODEL.feature, dtype=dtype)
    feature[:, 0] = start.feature
    deter = Imagination(rssm, dtype).step_into(start.deter, feature[:, 0], action, feature[:, 1])
    wanted = rssm.recur(start.deter, start.stoch.flatten(-2), rssm.action_part(action))
    torch.testing.assert_close(deter, wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(feature[:, 1, : MODEL.deter], deter.to(dtype))
    stoch = feature[:, 1, MODEL.deter :].float().unflatten(-1, (MODEL.stoch, MODEL.classes))
    assert torch.equal(stoch.sum(-1), torch.ones(64, MODEL.stoch))
    assert torch.equal(feature[:, 0].float(), start.feature.to(dtype).float())
