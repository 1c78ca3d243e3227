"""Puts one actor together: environment, loop, refresh, episodes and heartbeats.

The same object runs in one process with a learner (`deploy/local.py`) and as a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.activity import Activity
from actors.agent import Agent
from actors.chunker import Chunker
from actors.config import ActorConfig, EnvConfig
from actors.envs.batched import FaultTolerantEnv
from actors.envs.registry import make_env
from actors.episodes import EpisodeTracker
from actors.loop import ActorLoop
from actors.monitor import Monitor
from actors.outbox import Outbox
from actors.refresh import Refresher
from actors.report import Reporter
from system.channel.protocol import PolicyChannel
from system.clock import Clock
from system.control.protocol import Control
from system.log.writer import SlotWriter
from system.specs import EnvSpec
from system.tick import Progress, Wait


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorSetup:
    """What one actor is told."""

    env: EnvConfig
    actor: ActorConfig
    chunk_length: int
    """L: Steps in one sealed Chunk [agent steps]."""
    slot: int
    seed: int
    who: str
    """Process, for people: `host:pid`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seams:
    """Where an actor meets the rest of the fleet: in Redis or in memory, it cannot tell."""

    writer: SlotWriter
    channel: PolicyChannel
    control: Control
    clock: Clock


class Actor:
    """An acting process without its process.

    The loop that uses it::

        actor = Actor(setup, seams, lambda spec: PolicyAgent(model_config, spec))
        while not stopping:
            turn = actor.tick()
            if isinstance(turn, Wait):
                clock.sleep(turn.seconds)
        while actor.drain() != Progress("drained"): ...
        actor.close()

    Raises:
      ConfigError: the environment cannot be built.
    """

    def __init__(
        self, setup: ActorSetup, seams: Seams, new_agent: Callable[[EnvSpec], Agent]
    ) -> None:
        config, clock = setup.actor, seams.clock
        self._reporter = Reporter(
            seams.control, clock, slot=setup.slot, who=setup.who, heartbeat_s=config.heartbeat_s
        )
        self.env: FaultTolerantEnv = make_env(
            setup.env,
            num_copies=config.copies,
            seed=setup.seed,
            slot=setup.slot,
            on_fault=self._reporter.on_fault,
            while_waiting=self._reporter.tick,
        )
        spec = self.env.spec
        refresh = Refresher(
            seams.channel,
            clock,
            refresh_s=config.refresh_s,
            on_event=self._reporter.event,
            seed=setup.slot,
        )
        self._outbox = Outbox(seams.writer)
        self._reporter.watch([refresh.metrics, self._outbox.metrics])
        self._loop = ActorLoop(
            env=self.env,
            agent=new_agent(spec),
            outbox=self._outbox,
            refresh=refresh,
            new_chunker=lambda incarnation: Chunker(
                spec,
                slot=setup.slot,
                incarnation=incarnation,
                num_copies=config.copies,
                chunk_length=setup.chunk_length,
            ),
            monitor=Monitor(
                activity=Activity(clock),
                episodes=EpisodeTracker(num_copies=config.copies, action_repeat=spec.action_repeat),
                reporter=self._reporter,
            ),
        )

    def tick(self) -> Progress | Wait:
        """See `ActorLoop.tick`."""
        return self._loop.tick()

    def drain(self) -> Progress | Wait:
        """See `ActorLoop.drain`."""
        return self._loop.drain()

    @property
    def settled(self) -> bool:
        """Whether everything acted is durable; go on calling `drain` until then to be sure."""
        return self._outbox.settled

    def close(self) -> None:
        """Gives the lease back and frees the simulators; sends nothing more."""
        self._reporter.release()
        self.env.close()
