"""Presets: Python functions that return a complete config.

`dreamer` is the authors' one fixed set of hyperparameters (DreamerV3, Nature 2025): only size and
replay ratio are dials. `laptop` is smaller everywhere, for a result within minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from actors.config import ActorConfig, EnvConfig
from deploy.config import EvaluationConfig, RunConfig
from learner.config import LearnerConfig
from system.config import ModelConfig, ReplayConfig
from system.errors import ConfigError, nearest

# deter, hidden, classes, units, depth; stoch is 32 and blocks 8 for all of them.
_AUTHORS_SIZES = {
    "1m": (512, 64, 4, 64, 4),
    "12m": (2048, 256, 16, 256, 16),
    "25m": (3072, 384, 24, 384, 24),
    "50m": (4096, 512, 32, 512, 32),
    "100m": (6144, 768, 48, 768, 48),
    "200m": (8192, 1024, 64, 1024, 64),
    "400m": (12288, 1536, 96, 1536, 96),
}

SIZES: dict[str, ModelConfig] = {
    "nano": ModelConfig(
        size="nano", deter=128, hidden=64, classes=8, units=64, stoch=8, bins=127,
        encoder_layers=2, decoder_layers=2, policy_layers=2, value_layers=2,
    ),
    **{
        size: ModelConfig(
            size=size, deter=deter, hidden=hidden, classes=classes, units=units, depth=depth
        )
        for size, (deter, hidden, classes, units, depth) in _AUTHORS_SIZES.items()
    },
}  # fmt: skip

DM_CONTROL_REPEAT = {"laptop": 4, "dreamer": 2}
"""Simulator steps per agent step of the dm_control suite; the authors' paper used 2."""


def laptop(env: EnvConfig, *, run: str, size: str = "nano") -> RunConfig:
    """A policy within minutes on two cores: smaller batch, fewer dreams, faster learning."""
    agent_steps = 15_000
    env = replace(env, pixels=replace(env.pixels, quality="fast"))
    return RunConfig(
        run=run,
        preset="laptop",
        frames=agent_steps * env.action_repeat,
        env=env,
        actor=ActorConfig(copies=4),
        model=model_of_size(size),
        replay=ReplayConfig(
            ratio=256,
            chunk_length=16,
            min_steps=1_024,
            capacity_bytes=1024**3,
        ),
        learner=LearnerConfig(
            batch_size=32,
            batch_length=16,
            dream_starts=128,
            learning_rate=6e-4,
            warmup_updates=200,
            discount_horizon=100.0,
            # At 0.1 a small latent does not see what changes slowly, such as where a cart is.
            representation_scale=0.01,
            gradient="auto",
            slope_limit=1.0,
            entropy_scale=3e-3,
            slow_value_rate=0.05,
            acting_rate=0.01,
        ),
        evaluation=EvaluationConfig(every_frames=agent_steps // 15 * env.action_repeat),
    )


def dreamer(env: EnvConfig, *, run: str, size: str = "1m") -> RunConfig:
    """The authors' numbers; size and `replay.ratio` are the only dials."""
    learner = LearnerConfig()
    return RunConfig(
        run=run,
        preset="dreamer",
        frames=500_000,
        env=env,
        actor=ActorConfig(copies=4),
        model=model_of_size(size),
        replay=ReplayConfig(
            ratio=512,
            # One Chunk is 16 updates; with 64 a window of 200 updates could be a fifth off.
            chunk_length=32,
            # B * T as the authors have it, and one context Step for each Sequence.
            min_steps=learner.batch_size * (learner.batch_length + 1),
            capacity_bytes=8 * 1024**3,
        ),
        learner=learner,
        evaluation=EvaluationConfig(every_frames=10_000),
    )


PRESETS: dict[str, Callable[..., RunConfig]] = {"laptop": laptop, "dreamer": dreamer}


def from_preset(name: str, env: EnvConfig, *, run: str, size: str | None = None) -> RunConfig:
    """The config of a preset; `size` None takes the preset's own.

    Raises:
      ConfigError: unknown preset or size; the nearest match is named.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name](env, run=run, **({} if size is None else {"size": size}))


def model_of_size(size: str) -> ModelConfig:
    """One row of the size table.

    Raises:
      ConfigError: unknown size; the nearest match is named.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; {nearest(size, SIZES)}")
    return SIZES[size]


def default_action_repeat(env: str, preset: str) -> int:
    """Simulator steps per agent step if the user names none."""
    return DM_CONTROL_REPEAT.get(preset, 1) if env.startswith("dm_control/") else 1
