"""Puts one actor together: environment, loop, refresh, episodes and heartbeats.

The same object runs in one process with a learner (`deploy/local.py`) and as a process of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from actors.agent import Agent
from actors.chunker import Chunker
from actors.config import ActorConfig, EnvConfig
from actors.envs.batched import FaultTolerantEnv
from actors.envs.registry import make_env
from actors.episodes import EpisodeTracker
from actors.loop import ActorLoop
from actors.monitor import Monitor
from actors.outbox import Outbox
from actors.refresh import Follow, Refresher
from actors.report import ROLE, Reporter, tell_nobody
from actors.strides import Strides
from system.activity import Activity
from system.channel.protocol import PolicyChannel
from system.clock import Clock
from system.control.protocol import Control
from system.errors import ConfigError, Fenced
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
    follow: Follow = "policy"
    """What `Seams.channel` is: `safe` is for robots, see `actors.refresh`."""

    def __post_init__(self) -> None:
        if self.follow == "safe" and self.actor.copies > 1:
            raise ConfigError(
                f"actor.copies={self.actor.copies} cannot follow the safe policy: copies share one "
                "policy, which changes only between episodes; use --copies 1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Seams:
    """Where an actor meets the rest of the fleet: in Redis or in memory, it cannot tell."""

    writer: SlotWriter
    channel: PolicyChannel
    control: Control
    clock: Clock
    on_heartbeat: Callable[[], None] = tell_nobody
    """Called with every heartbeat, before anything is sent; see `actors.stacks`."""


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
            seams.control,
            clock,
            slot=setup.slot,
            who=setup.who,
            heartbeat_s=config.heartbeat_s,
            on_heartbeat=seams.on_heartbeat,
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
            follow=setup.follow,
        )
        self._outbox = Outbox(seams.writer, on_event=self._reporter.event)
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
                activity=Activity(clock, ROLE),
                episodes=EpisodeTracker(num_copies=config.copies, action_repeat=spec.action_repeat),
                reporter=self._reporter,
            ),
        )
        self._strides = Strides(self._loop, self.env, clock)

    def tick(self, seconds: float = 0.0) -> Progress | Wait:
        """One agent step of every copy, or as many as fit into `seconds`; see `Strides.tick`."""
        with self._fence_seen():
            return self._strides.tick(seconds)

    def drain(self) -> Progress | Wait:
        """See `ActorLoop.drain`."""
        with self._fence_seen():
            return self._loop.drain()

    @property
    def settled(self) -> bool:
        """Whether everything acted is durable; go on calling `drain` until then to be sure."""
        return self._outbox.settled

    def hold(self, held: bool) -> None:
        """While held, acting pauses between episodes; sending goes on."""
        self._outbox.held = held

    def spill(self) -> None:
        """Everything that was acted goes into the spool, beyond its limits too: the end."""
        try:
            with contextlib.suppress(Fenced):
                self.drain()
        finally:
            self._outbox.spill()

    def event(self, kind: str, text: str) -> None:
        """Something happened around it; goes out with the next heartbeat."""
        self._reporter.event(kind, text)

    def numbers(self) -> dict[str, float]:
        """What the next heartbeat tells."""
        return self._reporter.numbers()

    def close(self) -> None:
        """Gives the lease back and frees the simulators; sends nothing more."""
        self._outbox.close()
        self._reporter.release()
        self.env.close()

    @contextlib.contextmanager
    def _fence_seen(self) -> Iterator[None]:
        """Whoever fenced us holds the lease: it must not be renewed or released any more."""
        try:
            yield
        except Fenced:
            self._reporter.fenced = True
            raise
