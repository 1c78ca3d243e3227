"""What training will take, predicted before anything is allocated.

Weights are counted exactly. What an update keeps for its backward pass is estimated, per Step and
per pixel, from what was counted on presets of several sizes (tests/learner/test_memory.py).
"""

from __future__ import annotations

import torch

from learner.config import LearnerConfig
from learner.update import Learning
from system.config import ModelConfig
from system.specs import EnvSpec

FLOAT_BYTES = 4
HEADROOM = 1.3
"""Gradients and copies that live for a moment, over what is kept [ratio]."""


def update_bytes(config: LearnerConfig, model: ModelConfig, spec: EnvSpec) -> int:
    """Weights, gradients, moments and one update on the learner's device [bytes]."""
    with torch.device("meta"):
        learning = Learning(config, model, spec, torch.device("meta"))
    frozen = sum(p.numel() for p in learning.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in learning.parameters() if p.requires_grad)
    replayed = config.replayed_steps
    dreamed = (config.dream_starts or replayed) * config.horizon
    step = _floats_of_a_step(model)
    kept = replayed * (step + _floats_of_images(model, spec)) + dreamed * step
    # A weight, its gradient, two moments, and a copy laid out as the kernels want it.
    return int(FLOAT_BYTES * (frozen + 5 * trained + HEADROOM * kept))


def _floats_of_a_step(model: ModelConfig) -> int:
    """One step of the recurrence, with the heads on it."""
    layers = model.hidden + model.units
    return 14 * (model.deter + model.stoch * model.classes) + 20 * layers + 8 * model.bins


def _floats_of_images(model: ModelConfig, spec: EnvSpec) -> int:
    """All images of one Step, through encoder and decoder."""
    images = [array for array in spec.observation.values() if array.is_image]
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    return 12 * model.depth * pixels + 2 * sum(image.size for image in images)
