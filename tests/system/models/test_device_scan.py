"""The scan for a GPU, its gradient written by hand, against autograd through the plain loop."""

from __future__ import annotations

import pytest
import torch

from system.models import kernels
from system.models.dynamics import RSSM, Latent
from tests.device_ops import WAITING, Watch
from tests.learning_for_tests import MODEL, perturb

EMBEDDING, ACTION = 6, 3


def rssm_of(dtype):
    torch.manual_seed(0)
    rssm = RSSM(MODEL, embedding=EMBEDDING, action=ACTION)
    perturb(rssm)
    return rssm.to(dtype)


def inputs_of(B, T, dtype):
    generator = torch.Generator().manual_seed(B * 100 + T)
    index = torch.randint(MODEL.classes, (B, MODEL.stoch), generator=generator)
    values = {
        "deter": torch.tanh(torch.randn(B, MODEL.deter, generator=generator)),
        "stoch": torch.nn.functional.one_hot(index, MODEL.classes),
        "action": torch.randn(B, T, ACTION, generator=generator),
        "embedding": torch.randn(B, T, EMBEDDING, generator=generator),
    }
    is_first = torch.rand(B, T, generator=generator) < 0.3
    return {k: v.to(dtype).requires_grad_() for k, v in values.items()} | {"is_first": is_first}


def plainly(rssm, inputs):
    names = ("action", "embedding", "is_first")
    carry = Latent(inputs["deter"], inputs["stoch"])
    return rssm.observe(carry, *(inputs[name] for name in names))


def on_device(rssm, inputs):
    """What `observe` does with tensors on a GPU."""
    keep = (~inputs["is_first"]).to(inputs["embedding"].dtype)
    weight, bias = rssm.posterior_in.weight[:, rssm.config.deter :], rssm.posterior_in.bias
    return rssm.observe_on_device(
        Latent(inputs["deter"], inputs["stoch"]), keep,
        rssm.action_part(inputs["action"] * keep.unsqueeze(-1)),
        inputs["embedding"] @ weight.T + bias,
    )  # fmt: skip


def with_gradients(observe, rssm, inputs):
    """What comes out, and the gradients of a weighted sum of all of it."""
    torch.manual_seed(3)
    with kernels.switched_off():
        found = observe(rssm, inputs)
        parts = [*found.latent, found.posterior.probs, found.prior.probs]
        generator = torch.Generator().manual_seed(4)
        total = sum((p * torch.randn(p.shape, generator=generator).to(p)).sum() for p in parts)
        wanted = {name: value for name, value in inputs.items() if value.requires_grad}
        wanted |= dict(rssm.named_parameters())
        gradients = torch.autograd.grad(total, list(wanted.values()))
    return parts, dict(zip(wanted, gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 7), (9, 2)])
def test_the_scan_and_every_gradient_equal_autograd(B, T, dtype):
    rssm, inputs = rssm_of(dtype), inputs_of(B, T, dtype)
    wanted, twins = with_gradients(plainly, rssm, inputs)
    found, gradients = with_gradients(on_device, rssm, inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    for mine, twin in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, twin, atol=tolerance, rtol=tolerance)
    assert gradients.keys() == twins.keys()
    for name, twin in twins.items():
        size = twin.abs().max().clamp(min=1e-3)
        assert (gradients[name] - twin).abs().max() <= 4 * tolerance * size, name


def test_rounded_products_give_nearly_the_same_gradients():
    rssm, inputs = rssm_of(torch.float32), inputs_of(6, 4, torch.float32)
    wanted, twins = with_gradients(plainly, rssm, inputs)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found, gradients = with_gradients(on_device, rssm, inputs)
    assert all(part.dtype == torch.float32 for part in [*found, *gradients.values()])
    torch.testing.assert_close(found[0], wanted[0], atol=0.03, rtol=0.03)
    assert not torch.equal(found[0], wanted[0])  # it did round
    together = [torch.cat([g.flatten() for g in each.values()]) for each in (gradients, twins)]
    assert torch.cosine_similarity(*together, 0) > 0.99


def test_it_takes_less_than_half_the_kernels_and_never_waits():
    rssm, inputs = rssm_of(torch.float32), inputs_of(3, 16, torch.float32)
    counts = []
    for observe in (plainly, on_device):
        with Watch(forbid=WAITING) as watch:
            with_gradients(observe, rssm, inputs)
        counts.append(watch.kernels)
    assert counts[1] < 0.5 * counts[0]


@pytest.mark.gpu
def test_observe_takes_it_on_cuda(monkeypatch):
    noise = torch.rand(7, 3, MODEL.stoch)
    monkeypatch.setattr(RSSM, "_noise", lambda rssm, T, B: noise.to(rssm.hidden_bias.device))
    calls = []
    observe = RSSM.observe_on_device
    monkeypatch.setattr(
        RSSM, "observe_on_device", lambda *given: calls.append(1) or observe(*given)
    )
    rssm, inputs = rssm_of(torch.float32), inputs_of(3, 7, torch.float32)
    wanted, twins = with_gradients(plainly, rssm, inputs)
    assert not calls
    there = {k: v.detach().to("cuda").requires_grad_(v.requires_grad) for k, v in inputs.items()}
    found, gradients = with_gradients(plainly, rssm.to("cuda"), there)
    assert calls
    for mine, twin in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.cpu(), twin, atol=1e-5, rtol=1e-4)
    for name, twin in twins.items():
        size = twin.abs().max().clamp(min=1e-3)
        assert (gradients[name].cpu() - twin).abs().max() <= 1e-4 * size, name
