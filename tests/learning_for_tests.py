"""Small models, batches and heads that say something, for tests of the mathematics."""

from __future__ import annotations

import numpy as np
import torch

from learner.batch import Batch
from learner.config import LearnerConfig
from learner.update import Learning
from system.config import ModelConfig
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec

MODEL = ModelConfig(
    size="tiny", deter=16, hidden=8, classes=4, units=8, stoch=3, blocks=4, bins=41
)  # fmt: skip
CPU = torch.device("cpu")


def make_spec(kind="continuous", size=2):
    return EnvSpec(
        name="toy",
        observation={
            "velocity": ArraySpec(shape=(2, 2)),
            "position": ArraySpec(shape=(3,)),
            "height": ArraySpec(shape=()),
        },
        action=ActionSpec(kind=kind, size=size),
    )


def learner_config(**changes):
    values = {"batch_size": 3, "batch_length": 5, "horizon": 4, "warmup_updates": 1}
    return LearnerConfig(**values | changes)


def make_learning(kind="continuous", seed=0, model=MODEL, **changes):
    torch.manual_seed(seed)
    return Learning(learner_config(**changes), model, make_spec(kind), CPU)


def make_batch(spec, B=3, T=5, model=MODEL, seed=0, **replaced):
    """A random Batch with an episode that ends, one that is cut, and one that begins."""
    random = np.random.default_rng([seed, B, T])
    action = random.uniform(-1.5, 1.5, (B, T, spec.action.size))
    before = random.uniform(-1.5, 1.5, (B, 1, spec.action.size))
    if spec.action.kind == "discrete":
        action, before = (np.eye(spec.action.size)[a.argmax(-1)] for a in (action, before))
    is_first, is_last, is_terminal = (np.zeros((B, T), bool) for _ in range(3))
    is_first[:, T // 2] = random.random(B) < 0.7
    is_first[0, 0] = True
    is_last[:, :-1] = is_first[:, 1:]
    is_terminal[:] = is_last & (random.random((B, T)) < 0.5)
    stoch = np.eye(model.classes)[random.integers(model.classes, size=(B, model.stoch))]
    values = {
        "observation": {
            name: _float(3 * random.normal(size=(B, T, *array.shape)))
            for name, array in spec.observation.items()
        },
        "action": _float(action),
        "previous_action": _float(np.concatenate([before, action[:, :-1]], 1)),
        "reward": _float(random.normal(size=(B, T)) * 10.0 ** random.uniform(-1, 1, (B, T))),
        "is_first": torch.from_numpy(is_first),
        "is_last": torch.from_numpy(is_last),
        "is_terminal": torch.from_numpy(is_terminal),
        "context": Latent(_float(random.normal(size=(B, model.deter)) / 2), _float(stoch)),
        "ordinals": np.arange(B * T).reshape(B, T),
    }
    return Batch(**values | replaced)


def let_speak(head, seed=0, spread=0.5):
    """Gives a zero-initialized two-hot head an opinion of moderate size that varies with z."""
    generator = torch.Generator().manual_seed(seed)
    num_bins = len(head.bins)
    away = (torch.arange(num_bins) - num_bins // 2).abs().double()
    weight = torch.randn(head.out.weight.shape, generator=generator) * spread
    with torch.no_grad():
        # Logits fall steeply away from the middle bin, faster than the bins grow.
        head.out.bias.copy_(-1.5 * away * (40.0 / (num_bins - 1)))
        head.out.weight.copy_(weight)
        head.out.weight[(away > 3)] = 0.0


def perturb(module, seed=0, size=0.3):
    """Moves every parameter off its initial value: biases and norm scales too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def _float(array):
    return torch.from_numpy(np.asarray(array, np.float32))
