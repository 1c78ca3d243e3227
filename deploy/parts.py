"""Builds actors, learner and evaluator from a RunConfig: the same for both ways to run.

::

    Place (where the processes of a run meet)      memory_place()        redis_place(urls, run_id)
      |-- build_actor(record, slot, place)              |                       |
      |-- build_learner(record, folder, place)     deploy/local.py        deploy/topology.py
      `-- build_evaluator(record, folder, place)
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.actor import Actor, ActorSetup, Seams
from actors.agent import Agent
from actors.refresh import Follow
from actors.report import tell_nobody
from deploy.aside import channel_aside, control_aside
from deploy.config import RunConfig
from deploy.evaluator import Evaluator
from deploy.place import Place, who
from deploy.run_folder import RunRecord
from deploy.sender import SenderThread, UnlockedLog
from learner.learner import Learner, LearnerSeams, LearnerSetup
from system.errors import ConfigError
from system.log.disk_spool import DiskShelf
from system.log.earlier import UNLIMITED, EarlierLife
from system.log.protocol import Claim
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.models.agent import PolicyAgent
from system.specs import EnvSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskSpool:
    """For an actor that must not pause for want of credit or of Redis."""

    shelf: DiskShelf
    """Where its Chunks lie until durable."""
    who: str
    """Who has taken the slot: this process, for people."""
    thin: bool = False
    """Drop the oldest Chunk that was never received when it is full, instead of pausing."""


def build_actor(
    record: RunRecord, slot: int, place: Place, *, follow: Follow = "policy",
    disk: DiskSpool | None = None, on_heartbeat: Callable[[], None] = tell_nobody,
) -> Actor:  # fmt: skip
    """An actor for one slot.

    Args:
      record: the run.
      slot: its place in the fleet.
      place: where it meets the others.
      follow: which policy it acts with; `safe` is for robots, see `actors.refresh`.
      disk: where its Chunks lie until durable; in memory by default.
      on_heartbeat: called while it lives, also while a step of its environment takes long.

    Raises:
      ConfigError: the environment cannot be built, or is not the one the run was made for.
    """
    config, name = record.config, who() if disk is None else disk.who
    claim = Claim(who=name, spec_digest=record.spec.digest, num_copies=config.actor.copies)
    log, control, clock = place.log.slot_log(slot), place.control, place.clock
    channel = place.safe if follow == "safe" else place.channel
    spool = SpoolSetup(
        spool_chunks=config.actor.spool_chunks * config.actor.copies,
        retain_bytes=config.actor.retain_bytes,
    )
    if disk is not None:
        control, channel = control_aside(control), channel_aside(channel)
        spool = SpoolSetup(
            spool_chunks=UNLIMITED, retain_bytes=UNLIMITED, thin=disk.thin, shelf=disk.shelf
        )
    if disk is None:
        writer = SlotWriter(log, slot=slot, claim=claim, spool=spool, clock=clock)
    else:
        free = UnlockedLog(log)
        earlier = EarlierLife(free, disk.shelf, slot=slot, clock=clock)
        writer = SlotWriter(free, slot=slot, claim=claim, spool=spool, clock=clock)
        writer = SenderThread(writer, earlier, free.lock).as_writer()
    setup = ActorSetup(
        env=config.env,
        actor=config.actor,
        chunk_length=config.replay.chunk_length,
        slot=slot,
        seed=config.seed,
        who=name,
        follow=follow,
    )
    seams = Seams(
        writer=writer, channel=channel, control=control, clock=clock, on_heartbeat=on_heartbeat
    )
    actor = Actor(setup, seams, new_agent(config))
    if actor.env.spec.digest != record.spec.digest:
        actor.close()
        raise ConfigError(
            f"env {config.env.name!r} is not what run {config.run!r} was made for: "
            f"{_difference(actor.env.spec, record.spec)}; install the version it was made with, or "
            "start a new run"
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
    learner = Learner(setup, seams, record.spec)
    # What exists by now stays; looking through all of torch again and again costs 4 % at size nano.
    gc.collect()
    gc.freeze()
    return learner


def build_evaluator(record: RunRecord, folder: Path, place: Place) -> Evaluator:
    """The evaluator of a run."""
    return Evaluator(record, folder, place, new_agent=new_agent(record.config), who=who())


def _difference(here: EnvSpec, run: EnvSpec) -> str:
    """What two specs disagree on."""
    ours, theirs = here.to_json(), run.to_json()
    odd = [name for name in ours if ours[name] != theirs[name]]
    return ", ".join(f"{name} is {ours[name]} here and {theirs[name]} there" for name in odd)


def new_agent(config: RunConfig) -> Callable[[EnvSpec], Agent]:
    """Random weights by the run's seed, the same in every process until the first broadcast."""
    return lambda spec: PolicyAgent(config.model, spec, seed=config.seed)
