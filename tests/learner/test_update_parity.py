"""The whole update against its literal twin: every loss, their sum, and the gradient of the sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.imagination import imagine
from tests import references
from tests.learning_for_tests import (
    MODEL,
    learner_config,
    let_speak,
    make_batch,
    make_learning,
    make_spec,
    perturb,
)
from tests.update_references import SCALES, Stop, update_losses

B, T, H = 2, 3, 2
CASES = [(kind, gradient) for kind in ("continuous", "discrete")
         for gradient in ("reinforce", "analytic")]  # fmt: skip
MODULES = ["world_model.encoder", "world_model.dynamics", "world_model.reward",
           "world_model.continuation", "decoder", "behavior.policy",
           "behavior.value"]  # fmt: skip
NO_CLIP = 1e9


def _learning(kind, gradient):
    """Every loss has something to say; free nats bind for some Steps; the scale exceeds 1."""
    changes = {"batch_size": B, "batch_length": T, "horizon": H, "free_nats": 0.3, "clip": NO_CLIP,
               "gradient": gradient}  # fmt: skip
    learning = make_learning(kind, **changes)
    for module in (learning.world_model, learning.decoder, learning.behavior.policy):
        perturb(module)
    let_speak(learning.world_model.reward, 1, 1.0)
    let_speak(learning.behavior.value, 2, 1.0)
    let_speak(learning.behavior.slow_value, 3, 1.0)
    learning.behavior.scale.low.fill_(-10.0)
    return learning, learner_config(**changes)


def _update(learning, batch):
    """One update; what it drew, found by drawing again: the first step of the warm-up has rate 0,
    so the parameters are still the same. float64 arrays."""
    torch.manual_seed(1)
    result = learning.update(batch)
    torch.manual_seed(1)
    latents = learning.objective.loss(batch).latents.detach()
    assert torch.equal(latents.stoch, result.latents.stoch)
    dream = imagine(
        learning.world_model, learning.behavior.policy, latents.flatten_time(), H,
        differentiable=learning.behavior.gradient != "reinforce",
    )  # fmt: skip
    stochs = dream.feature.detach()[..., MODEL.deter :].unflatten(-1, (MODEL.stoch, MODEL.classes))
    drawn = {
        "samples": latents.stoch.round(),
        "stochs": stochs.round(),
        "actions": dream.action.detach(),
    }
    found = {k.removeprefix("loss/"): v.item() for k, v in result.metrics.items() if "loss/" in k}
    return found, {name: tensor.double().numpy() for name, tensor in drawn.items()}


def _arrays(batch):
    names = ("previous_action", "reward", "is_first", "is_last", "is_terminal")
    arrays = {name: getattr(batch, name) for name in names}
    arrays |= {"deter": batch.context.deter, "stoch": batch.context.stoch}
    found = {k: v.double().numpy() if v.is_floating_point() else v.numpy()
             for k, v in arrays.items()}  # fmt: skip
    return found | {"observation": {k: v.double().numpy() for k, v in batch.observation.items()}}


def _gradients(learning):
    """What the step saw, from what it left behind: rms = 0.001 * g^2 and momentum = 0.1 * sign."""
    kept = learning.optimizer.tensors()
    flat = torch.sign(kept["momentum"]) * (kept["rms"].double() / 1e-3).sqrt()
    found, start = {}, 0
    for name, parameter in learning.named_parameters():
        if parameter.requires_grad:
            found[name] = flat[start : start + parameter.numel()].view_as(parameter).numpy()
            start += parameter.numel()
    assert start == len(flat)
    return found


def _slope(total, parameters, direction, step=1e-5):
    above, below = (
        total(parameters | {name: parameters[name] + sign * step * d
                            for name, d in direction.items()})
        for sign in (1, -1)
    )  # fmt: skip
    return (above - below) / (2 * step)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("kind", "gradient"), CASES)
def test_every_loss_and_the_gradient_of_their_sum_equal_the_twin(kind, gradient):
    learning, config = _learning(kind, gradient)
    parameters = references.parameters_of(learning)
    batch = make_batch(make_spec(kind), B, T, seed=5)
    found, drawn = _update(learning, batch)
    stop, arrays = Stop(), _arrays(batch)

    def losses(parameters):
        return update_losses(parameters, MODEL, config, arrays, drawn, stop)

    def total(parameters):
        return sum(SCALES[name] * loss for name, loss in losses(parameters).items())

    wanted = losses(parameters)
    assert found.keys() == wanted.keys() == SCALES.keys()
    for name, loss in wanted.items():
        assert found[name] == pytest.approx(loss, rel=1e-4), name
    whole = sum(SCALES[name] * loss for name, loss in found.items())
    assert whole == pytest.approx(total(parameters), rel=1e-4)

    gradients, random = _gradients(learning), np.random.default_rng(0)
    for module in MODULES:
        ours = {k: g for k, g in gradients.items() if k.startswith(module + ".")}
        size = np.sqrt(sum((g**2).sum() for g in ours.values()))
        assert size > 1e-3, module
        along = {name: g / size for name, g in ours.items()}
        across = {name: random.normal(size=g.shape) for name, g in ours.items()}
        length = np.sqrt(sum((d**2).sum() for d in across.values()))
        across = {name: d / length for name, d in across.items()}
        for direction in (along, across):
            mine = sum((ours[name] * d).sum() for name, d in direction.items())
            assert mine == pytest.approx(_slope(total, parameters, direction), abs=1e-4 * size), (
                module
            )
