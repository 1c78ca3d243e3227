"""bfloat16 products: what is summed, compared and kept is float32, and gradients agree."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from deploy.presets import SIZES
from learner.precision import products, rounds_on_cuda
from system.models import kernels
from tests.learning_for_tests import (
    learner_config,
    let_speak,
    make_batch,
    make_learning,
    make_spec,
    perturb,
)

CPU = torch.device("cpu")


def gradients_of(kind, gradient, monkeypatch, *, rounded):
    """One update's metrics and gradients, the optimizer left out."""
    learning = make_learning(kind, gradient=gradient)
    let_speak(learning.behavior.value)
    let_speak(learning.world_model.reward, 1)
    perturb(learning, size=0.1)
    learning.optimizer.step = lambda: torch.zeros(())
    torch.manual_seed(1)
    rounding = torch.autocast("cpu", torch.bfloat16, enabled=rounded, cache_enabled=False)
    monkeypatch.setattr("learner.update.products", lambda *given: rounding)
    with kernels.switched_off():
        result = learning.update(make_batch(make_spec(kind)))
    return result, {n: p.grad.clone() for n, p in learning.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("kind", "gradient"),
    [("continuous", "reinforce"), ("continuous", "analytic"), ("discrete", "reinforce")],
)
def test_rounded_products_give_nearly_the_same_gradients(kind, gradient, monkeypatch):
    exact, wanted = gradients_of(kind, gradient, monkeypatch, rounded=False)
    rounded, found = gradients_of(kind, gradient, monkeypatch, rounded=True)
    for name, value in exact.metrics.items():
        assert rounded.metrics[name].dtype == torch.float32
        torch.testing.assert_close(rounded.metrics[name], value, rtol=0.05, atol=0.02, msg=name)
    assert rounded.latents.deter.dtype == torch.float32
    for name, gradient_ in wanted.items():
        assert found[name].dtype == torch.float32
        if gradient_.abs().max() > 0:
            assert F.cosine_similarity(gradient_.flatten(), found[name].flatten(), 0) > 0.97, name
    assert any(not torch.equal(wanted[name], found[name]) for name in wanted)  # it did round


def test_what_each_setting_means_on_cuda():
    def rounds(precision, size):
        return rounds_on_cuda(learner_config(precision=precision), SIZES[size])

    assert [rounds("auto", size) for size in ("nano", "1m", "12m", "200m")] == [
        False,
        False,
        True,
        True,
    ]
    assert rounds("bf16", "nano")
    assert not rounds("fp32", "200m")


def test_the_cpu_is_left_alone():
    with products(learner_config(precision="bf16"), SIZES["12m"], CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_on_cuda_the_setting_is_close_to_fp32(precision):
    from learner.update import Learning
    from tests.learner.test_graphed import batch_on

    found = {}
    for name in ("fp32", precision):
        torch.manual_seed(0)
        config = learner_config(precision=name, learning_rate=1e-3)
        learning = Learning(
            config, dataclasses.replace(SIZES["12m"], stoch=8), make_spec(), torch.device("cuda")
        )
        batch = batch_on("cuda", make_spec(), 0, model=learning.world_model.config)
        torch.manual_seed(1)
        for _ in range(5):
            result = learning.update(batch)
        found[name] = result.metrics
    for name, value in found["fp32"].items():
        torch.testing.assert_close(found[precision][name], value, rtol=0.1, atol=0.05, msg=name)
