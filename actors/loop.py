"""The acting loop: act, remember, and now and then adopt a newer policy.

::

    outbox.tick() -> refresh(agent) -> agent.act -> chunker.add -> outbox.offer -> env.step
"""

from __future__ import annotations

from collections.abc import Callable

from actors.agent import Agent, Carry
from actors.chunker import Chunker
from actors.envs.protocol import BatchedEnv
from actors.monitor import Monitor
from actors.outbox import Outbox
from actors.refresh import Refresher
from system.tick import Progress, Wait
from system.types import TimeStep


class ActorLoop:
    """One actor: `loop.tick()` again and again; at the end `loop.drain()` until it is drained."""

    def __init__(
        self, *, env: BatchedEnv, agent: Agent, outbox: Outbox, refresh: Refresher,
        new_chunker: Callable[[int], Chunker], monitor: Monitor,
    ) -> None:  # fmt: skip
        self._env, self._agent, self._outbox = env, agent, outbox
        self._refresh, self._new_chunker, self._monitor = refresh, new_chunker, monitor
        self._chunker: Chunker | None = None
        self._carry: Carry
        self._time_step: TimeStep

    def tick(self) -> Progress | Wait:
        """One agent step of every copy, or what it waits for. Raises Fenced, EnvironmentFault."""
        if self._chunker is None:
            return self._begin()
        self._monitor.doing("write")
        sent = self._outbox.tick()
        if self._outbox.pauses(self._time_step):
            self._monitor.doing("wait")
            self._monitor.heartbeat("waiting")
            return sent
        self._monitor.heartbeat("acting")
        self._monitor.doing("policy")
        self._refresh(self._agent, self._time_step)
        decision = self._agent.act(self._time_step, self._carry, deterministic=False)
        self._monitor.doing("write")
        version, latent = self._agent.version, decision.carry.latent
        self._outbox.offer(self._chunker.add(self._time_step, decision.action, version, latent))
        self._monitor.doing("env")
        self._carry, self._time_step = decision.carry, self._env.step(decision.action)
        self._monitor.doing("other")
        self._monitor.observe(self._time_step)
        return Progress("acted")

    def drain(self) -> Progress | Wait:
        """Stops acting, seals what is there and sends it; `Progress("drained")` at the end."""
        self._monitor.heartbeat("draining")
        if self._chunker is None:
            return Progress("drained")
        self._outbox.offer(self._chunker.flush())
        sent = self._outbox.tick()
        return Progress("drained") if self._outbox.drained else sent

    def _begin(self) -> Progress | Wait:
        """Takes the slot, then starts an episode in every copy."""
        self._monitor.heartbeat("starting")
        incarnation = self._outbox.try_claim()
        if isinstance(incarnation, Wait):
            return incarnation
        if not self._refresh.ready(self._agent):
            return Wait("policy", 0.1)
        self._monitor.claimed(incarnation)
        self._carry = self._agent.initial_carry(self._env.num_copies)
        self._time_step = self._env.reset(seed=incarnation)
        self._monitor.observe(self._time_step)
        self._chunker = self._new_chunker(incarnation)
        return Progress("claimed")
