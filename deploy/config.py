"""The whole configuration of a run, and the checks that span its sections.

::

    preset -> options -> --set section.key=value -> check_config -> (environment built) -> check_fit

Each section is owned by the package that reads it; here they meet. What could hang is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actors.config import ActorConfig, EnvConfig
from learner.config import LearnerConfig
from system.channel.protocol import KEPT_BROADCASTS, KEPT_PROMOTIONS
from system.checks import require_not_negative, require_positive
from system.chunk_check import expected_columns
from system.codec import MAX_CHUNK_BYTES, MAX_HEADER_BYTES
from system.config import ModelConfig, ReplayConfig
from system.control.protocol import FIRST_OWN_SLOT
from system.errors import ConfigError
from system.redis_client import without_password
from system.specs import EnvSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a run may be called: it becomes a folder and a part of every Redis key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """When and how the deterministic policy is measured."""

    every_frames: int = 5_000
    """Simulator steps of training between evaluations [frames]."""
    episodes: int = 5
    """Episodes of each evaluation."""
    copies: int = 5
    """Environment copies stepped together."""
    final_episodes: int = 10
    """Episodes of the evaluation at the end of a finished run."""
    promote: bool = False
    """Each measured policy that is not worse than the safe one, on the same seeds, becomes the safe
    one, which robots follow. If not, only `dreamfleet promote` moves it."""
    promote_margin: float = 0.0
    """How much worse on average it may be, with 95 % confidence [return]."""

    def __post_init__(self) -> None:
        for name in ("every_frames", "episodes", "copies", "final_episodes"):
            require_positive("evaluation", self, name)
        require_not_negative("evaluation", self, "promote_margin")
        if self.promote and self.episodes < 2:
            raise ConfigError(
                f"evaluation.episodes={self.episodes} cannot be compared; with evaluation.promote "
                "use at least 2"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetConfig:
    """Which processes, and how they are kept alive."""

    actors: int = 2
    """Actor slots at the start; `dreamfleet scale` changes it while the run goes on."""
    runner: Literal["ray", "local"] = "ray"
    """`ray`: processes of their own over Redis; `local`: one process, no server."""
    redis: str = ""
    """URL of a Redis server; empty starts an embedded one in the run folder."""
    redis_data: str = ""
    """URL of a second server, for the Chunks alone; empty keeps them on `redis`. A full one stops
    neither leases, credit, metrics nor broadcasts."""
    secrets: str = ""
    """Folder that `dreamfleet secrets` wrote; its passwords go into the URLs, by role."""
    redis_memory_bytes: int = 1024**3
    """`maxmemory` of the embedded server: a fuse, well above `replay.log_bytes` [bytes]."""
    dashboard: bool = True
    """Serve the page of the run on loopback, from a process of its own."""
    lost_after_s: float = 60.0
    """A process that shows no sign of life for so long is killed and started again [s]."""
    start_after_s: float = 180.0
    """The same for a process that has never shown one: imports, environments [s]."""
    grace_s: float = 30.0
    """Time to drain before a process is killed [s]."""
    backoff_first_s: float = 0.5
    """Pause before the first restart; doubles with every failure in a row [s]."""
    backoff_longest_s: float = 30.0
    """Longest pause before a restart [s]."""
    actor_cpus: float = 0.25
    """What Ray reserves for an actor; bookkeeping, not a limit [CPU]."""
    learner_cpus: float = 0.5
    """The same for the learner [CPU]."""
    evaluator_cpus: float = 0.1
    """The same for the evaluator [CPU]."""

    def __post_init__(self) -> None:
        if not 0 <= self.actors <= FIRST_OWN_SLOT:
            raise ConfigError(f"fleet.actors={self.actors} must lie in 0..{FIRST_OWN_SLOT}")
        for name in ("redis_data", "secrets"):
            if getattr(self, name) and not self.redis:
                raise ConfigError(
                    f"fleet.{name}={without_password(getattr(self, name))!r} needs a server of "
                    "your own: name it with --redis URL (fleet.redis)"
                )
        for name in ("redis_memory_bytes", "lost_after_s", "start_after_s", "grace_s",
                     "backoff_first_s", "backoff_longest_s", "actor_cpus", "learner_cpus",
                     "evaluator_cpus"):  # fmt: skip
            require_positive("fleet", self, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything a run is told; saved as `config.json`, printed by `--print-config`."""

    run: str
    """Its name: `runs/NAME/`."""
    preset: str
    """The preset it began with."""
    seed: int = 0
    """Seeds environments, parameters and sampling."""
    frames: int = 100_000
    """Stops after so many simulator steps (agent steps x action repeat); 0 never stops."""
    env: EnvConfig
    actor: ActorConfig = field(default_factory=ActorConfig)
    replay: ReplayConfig
    model: ModelConfig
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)


def check_config(config: RunConfig) -> None:
    """Refuses what spans sections and could hang, before anything is built.

    Raises:
      ConfigError: names the settings that do not fit together, and what would.
    """
    _check_dials(config)
    _check_runner(config.fleet)
    _check_start(config)
    _check_liveness(config)


def _check_runner(fleet: FleetConfig) -> None:
    if fleet.runner == "local" and fleet.redis:
        raise ConfigError(
            f"fleet.redis={without_password(fleet.redis)!r} is not used by --runner local, which "
            "is one process; leave --redis out, or choose --runner ray"
        )


def check_fit(config: RunConfig, spec: EnvSpec) -> None:
    """Refuses budgets too small for what this environment's Steps weigh, and Chunks too large.

    Raises:
      ConfigError: names the budget and the least that works.
    """
    chunk_bytes = config.replay.chunk_length * step_bytes(spec)
    around = MAX_HEADER_BYTES + 2 * config.model.deter + config.model.stoch
    if chunk_bytes + around > MAX_CHUNK_BYTES:
        most = (MAX_CHUNK_BYTES - around) // step_bytes(spec)
        raise ConfigError(
            f"replay.chunk_length={config.replay.chunk_length} makes Chunks of {chunk_bytes} "
            f"bytes, and {MAX_CHUNK_BYTES} travel; use {most} or less"
        )
    lead_bytes = (config.replay.lead_chunks + 1) * config.actor.copies * chunk_bytes
    fleet_bytes = max(config.fleet.actors, 1) * lead_bytes
    row = step_bytes(spec) + 2 * config.model.deter + config.model.stoch
    budgets = [
        ("actor.retain_bytes", config.actor.retain_bytes, lead_bytes,
         "one actor's lead (replay.lead_chunks + 1 chunks per copy)"),
        ("replay.log_bytes", config.replay.log_bytes, fleet_bytes, "the lead of all actors"),
        ("replay.capacity_bytes", config.replay.capacity_bytes, 2 * config.replay.min_steps * row,
         "twice replay.min_steps"),
    ]  # fmt: skip
    from system.models.agent import acting_bytes  # torch: only once a run is really wanted

    weights = (KEPT_BROADCASTS + KEPT_PROMOTIONS + 2) * acting_bytes(config.model, spec)
    if not config.fleet.redis and config.fleet.runner == "ray":
        budgets.append(
            ("fleet.redis_memory_bytes", config.fleet.redis_memory_bytes,
             config.replay.log_bytes + weights, "the log and the kept broadcasts of the policy")
        )  # fmt: skip
    for name, budget, least, what in budgets:
        if budget < least:
            raise ConfigError(f"{name}={budget} is too small: {what} needs {least} bytes")


def step_bytes(spec: EnvSpec) -> int:
    """What one Step of this environment weighs in a Chunk [bytes]."""
    total = 0
    for dtype, shape in expected_columns(spec).values():
        elements = 1
        for length in shape:
            elements *= length
        total += elements * np.dtype(dtype).itemsize
    return total


def _check_dials(config: RunConfig) -> None:
    if not NAME.fullmatch(config.run):
        raise ConfigError(
            f"run={config.run!r} must be 1 to 64 letters, digits, '.', '_' or '-', and begin with "
            "a letter or digit"
        )
    if config.frames < 0:
        raise ConfigError(f"frames={config.frames} must be 0 (never stop) or more")
    if config.seed < 0:
        raise ConfigError(f"seed={config.seed} must be 0 or more")


def _check_start(config: RunConfig) -> None:
    """The first update must come, and come before the end."""
    replay, learner = config.replay, config.learner
    batch = learner.batch_size * (learner.batch_length + 1)
    if replay.min_steps < batch:
        raise ConfigError(
            f"replay.min_steps={replay.min_steps} cannot fill a first Batch; at least {batch} "
            "(learner.batch_size * (learner.batch_length + 1)) are needed"
        )
    first_update = replay.min_steps * config.env.action_repeat
    if 0 < config.frames < first_update:
        raise ConfigError(
            f"frames={config.frames} ends before the first update, which needs {first_update} "
            "(replay.min_steps * env.action_repeat)"
        )
    if config.fleet.runner == "local" and config.fleet.actors < 1:
        raise ConfigError("fleet.actors=0 with fleet.runner='local' would never act; use 1 or more")


def _check_liveness(config: RunConfig) -> None:
    fleet = config.fleet
    if fleet.lost_after_s < 10 * config.actor.heartbeat_s:
        raise ConfigError(
            f"fleet.lost_after_s={fleet.lost_after_s} would kill living actors; at least ten "
            f"heartbeats (actor.heartbeat_s={config.actor.heartbeat_s}) are needed"
        )
    if fleet.backoff_longest_s < fleet.backoff_first_s:
        raise ConfigError(
            f"fleet.backoff_longest_s={fleet.backoff_longest_s} must be at least "
            f"fleet.backoff_first_s={fleet.backoff_first_s}"
        )
    if not fleet.redis and fleet.redis_memory_bytes < 2 * config.replay.log_bytes:
        raise ConfigError(
            f"fleet.redis_memory_bytes={fleet.redis_memory_bytes} must be at least twice "
            f"replay.log_bytes={config.replay.log_bytes}, or writes are refused"
        )
