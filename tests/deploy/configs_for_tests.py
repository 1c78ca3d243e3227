"""Small runs."""

from __future__ import annotations

from dataclasses import replace

from actors.config import ActorConfig, EnvConfig
from deploy.config import EvaluationConfig, FleetConfig, RunConfig
from deploy.presets import laptop
from learner.config import LearnerConfig
from system.config import ReplayConfig
from system.specs import ActionSpec, ArraySpec, EnvSpec

SPEC = EnvSpec(
    name="CartPole-v1",
    observation={"vector": ArraySpec(shape=(4,))},
    action=ActionSpec(kind="discrete", size=2),
)


def small(**changes) -> RunConfig:
    """Trains within a second or two on CartPole."""
    config = RunConfig(
        run="small",
        preset="laptop",
        frames=200,
        env=EnvConfig(name="CartPole-v1"),
        actor=ActorConfig(copies=2),
        replay=ReplayConfig(
            ratio=8, chunk_length=8, min_steps=64, capacity_bytes=2**22, log_bytes=2**20
        ),
        model=laptop(EnvConfig(name="CartPole-v1"), run="x").model,
        learner=LearnerConfig(
            batch_size=4, batch_length=8, dream_starts=8, horizon=3, publish_s=0.05, metrics_s=0.1
        ),
        evaluation=EvaluationConfig(every_frames=100, episodes=2, copies=2, final_episodes=3),
        fleet=FleetConfig(actors=1, runner="local", dashboard=False),
    )
    return replace(config, **changes)
