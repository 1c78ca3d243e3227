"""AGC and LaProp against the step-by-step twin; the flat buffers; resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from learner.optimizer import LaProp
from tests import references


def _parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (2, 2, 2), (1,)]
    sizes = [1.0, 0.0, 30.0, 1e-5]
    return [
        nn.Parameter(size * torch.randn(shape, generator=generator))
        for shape, size in zip(shapes, sizes, strict=True)
    ]


def _set_gradients(parameters, step, size=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    for i, parameter in enumerate(parameters):
        gradient = size * 10.0 ** (i - 2) * torch.randn(parameter.shape, generator=generator)
        parameter.grad.copy_(gradient)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("warmup", [1, 4, 1000])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_steps_equal_the_twin(warmup, size):
    parameters = _parameters()
    optimizer = LaProp(parameters, learning_rate=0.01, warmup_updates=warmup, clip=0.3)
    twins = [p.detach().double().numpy().copy() for p in parameters]
    memories = [{} for _ in parameters]
    for step in range(8):
        _set_gradients(parameters, step, size)
        gradients = [p.grad.double().numpy().copy() for p in parameters]
        norm = optimizer.step()
        wanted = np.sqrt(sum((g**2).sum() for g in gradients))
        assert norm.item() == pytest.approx(wanted, rel=1e-5)
        for i, gradient in enumerate(gradients):
            twins[i] = references.laprop_step(
                twins[i], gradient, memories[i], learning_rate=0.01, warmup=warmup, clip=0.3
            )
            np.testing.assert_allclose(parameters[i].detach(), twins[i], rtol=1e-5, atol=1e-5)
        assert all((p.grad == 0).all() for p in parameters)


def test_the_first_step_has_rate_zero_and_the_warmup_is_linear():
    parameters = _parameters()
    before = [p.detach().clone() for p in parameters]
    optimizer = LaProp(parameters, learning_rate=1.0, warmup_updates=4, clip=0.3)
    rates = []
    for step in range(6):
        rates.append(optimizer.learning_rate)
        _set_gradients(parameters, step)
        optimizer.step()
        if step == 0:
            assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    assert rates == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_parameters_are_views_of_one_buffer():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    values = [p.detach().clone() for p in module.parameters()]
    optimizer = LaProp(module.parameters(), learning_rate=0.1, warmup_updates=1, clip=0.3)
    for parameter, value in zip(module.parameters(), values, strict=True):
        assert torch.equal(parameter, value)
    assert optimizer.flat.numel() == sum(v.numel() for v in values)
    module(torch.ones(2, 3)).sum().backward()
    assert optimizer.gradient.abs().sum() > 0  # backward() accumulates into the buffer
    module.load_state_dict({k: torch.zeros_like(v) for k, v in module.state_dict().items()})
    assert (optimizer.flat == 0).all()


def test_zero_gradients_move_nothing():
    parameters = _parameters()
    before = [p.detach().clone() for p in parameters]
    optimizer = LaProp(parameters, learning_rate=1.0, warmup_updates=1, clip=0.3)
    for _ in range(3):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))


def test_resumed_equals_uninterrupted_bitwise():
    def run(steps, optimizer, parameters, first=0):
        for step in range(first, first + steps):
            _set_gradients(parameters, step)
            optimizer.step()

    options = {"learning_rate": 0.01, "warmup_updates": 3, "clip": 0.3}
    whole = _parameters()
    run(6, LaProp(whole, **options), whole)
    half = _parameters()
    optimizer = LaProp(half, **options)
    run(3, optimizer, half)
    resumed = [nn.Parameter(p.detach().clone()) for p in half]
    second = LaProp(resumed, **options)
    second.load({k: v.clone() for k, v in optimizer.tensors().items()}, optimizer.count)
    run(3, second, resumed, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
