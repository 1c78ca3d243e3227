"""Builds actors, learner and evaluator from a RunConfig: the same for both ways to run.

::

    Place (where the processes of a run meet)      memory_place()        redis_place(url, run_id)
      |-- build_actor(record, slot, place)              |                       |
      |-- build_learner(record, folder, place)     deploy/local.py        deploy/topology.py
      `-- build_evaluator(record, folder, place)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.actor import Actor, ActorSetup, Seams
from actors.agent import Agent
from deploy.config import RunConfig
from deploy.evaluator import Evaluator
from deploy.place import Place, who
from deploy.run_folder import RunRecord
from learner.learner import Learner, LearnerSeams, LearnerSetup
from system.errors import ConfigError
from system.log.protocol import Claim
from system.log.writer import SlotWriter
from system.models.agent import PolicyAgent
from system.specs import EnvSpec


def build_actor(record: RunRecord, slot: int, place: Place) -> Actor:
    """An actor for one slot.

    Raises:
      ConfigError: the environment cannot be built, or is not the one the run was made for.
    """
    config, name = record.config, who()
    claim = Claim(who=name, spec_digest=record.spec.digest, num_copies=config.actor.copies)
    writer = SlotWriter(
        place.log.slot_log(slot),
        slot=slot,
        claim=claim,
        spool_chunks=config.actor.spool_chunks * config.actor.copies,
        retain_bytes=config.actor.retain_bytes,
        clock=place.clock,
    )
    setup = ActorSetup(
        env=config.env,
        actor=config.actor,
        chunk_length=config.replay.chunk_length,
        slot=slot,
        seed=config.seed,
        who=name,
    )
    seams = Seams(
        writer=writer, channel=place.channel, control=place.control, clock=place.clock
    )  # fmt: skip
    actor = Actor(setup, seams, new_agent(config))
    if actor.env.spec.digest != record.spec.digest:
        actor.close()
        raise ConfigError(
            f"env {config.env.name!r} is not what run {config.run!r} was made for: it shows "
            f"{_shown(actor.env.spec)}, config.json says {_shown(record.spec)}; install the "
            "version it was made with, or start a new run"
        )
    return actor


def build_learner(record: RunRecord, folder: Path, place: Place) -> Learner:
    """The learner of a run; it restores what the folder holds.

    Raises:
      CheckpointError: the folder's checkpoint cannot be used.
    """
    config = record.config
    setup = LearnerSetup(
        config=config.learner,
        replay=config.replay,
        model=config.model,
        folder=folder,
        frames=config.frames,
        seed=config.seed,
        who=who(),
    )
    seams = LearnerSeams(
        reader=place.log.reader(), channel=place.channel, control=place.control, clock=place.clock
    )
    return Learner(setup, seams, record.spec)


def build_evaluator(record: RunRecord, folder: Path, place: Place) -> Evaluator:
    """The evaluator of a run."""
    return Evaluator(record, folder, place, new_agent=new_agent(record.config), who=who())


def _shown(spec: EnvSpec) -> str:
    seen = ", ".join(f"{name} {array.shape}" for name, array in spec.observation.items())
    return f"{seen} and {spec.action.size} {spec.action.kind} actions"


def new_agent(config: RunConfig) -> Callable[[EnvSpec], Agent]:
    """Random weights by the run's seed, the same in every process until the first broadcast."""
    return lambda spec: PolicyAgent(config.model, spec, seed=config.seed)
