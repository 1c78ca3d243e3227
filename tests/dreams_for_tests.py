"""A DreamReport made up, small or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from system.dream import Band, DreamReport, Example, Film, Gap


def band(name, steps, random):
    real, mean, low, high = random.normal(size=(4, steps)).astype(np.float32)
    return Band(name=name, real=real, mean=mean, low=low, high=high)


def film(name, steps, random, shape=(4, 6, 3)):
    real, dreamed = random.integers(0, 256, (2, steps, *shape)).astype(np.uint8)
    return Film(name=name, real=real, dreamed=dreamed)


def example(steps, random, *, vectors=2, images=1):
    return Example(
        vectors=[band(f"position[{i}]", steps, random) for i in range(vectors)],
        images=[film(f"camera{i}", steps, random) for i in range(images)],
        reward=band("reward", steps, random),
        continues=band("continues", steps, random),
    )


def dream_report(seed=0, *, context=3, horizon=4, **changes):
    random = np.random.default_rng(seed)
    report = DreamReport(
        update=17, frames=400, time_s=1.7e9, elapsed_s=12.5, context_steps=context,
        horizon=horizon, starts=5, samples=8,
        model_error=random.random(horizon).astype(np.float32),
        repeat_error=random.random(horizon).astype(np.float32),
        parting_step=2,
        gap=Gap(real_return=1.0, dreamed_return=2.0, policy_return=3.0, ratio=0.75,
                policy_ratio=1.5),
        examples=[example(context + horizon, random), example(context + 1, random, images=0)],
        earlier_update=8, earlier_error=random.random(horizon).astype(np.float32),
    )  # fmt: skip
    return replace(report, **changes)


def said(report):
    """Everything a report says, as plain data that can be compared."""
    return _plain(report)


def _plain(value):
    if isinstance(value, np.ndarray):
        return (value.dtype.name, value.shape, value.tobytes())
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
