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
        self.acting = False
        self._chunker: Chunker
        self._carry: Carry

    def tick(self) -> Progress | Wait:
        """One agent step of every copy, or what it waits for. Raises Fenced, EnvironmentFault."""
        if not self.acting:
            return self._begin()
        self._monitor.doing("write")
        sent = self._outbox.tick()
        if self._outbox.pauses(self._time_step):
            self._monitor.heartbeat("waiting", then="wait")
            return sent
        self._monitor.heartbeat("acting", then="policy")
        self._refresh(self._agent, self._time_step)
        decision = self._agent.act(self._time_step, self._carry, deterministic=False)
        self._monitor.doing("write")
        self._carry, latent, version = decision.carry, decision.carry.latent, self._agent.version
        self._outbox.offer(self._chunker.add(self._time_step, decision.action, version, latent))
        self._monitor.doing("env")
        self.arrive(self._env.step(decision.action))
        return Progress("acted")

    def arrive(self, time_step: TimeStep) -> None:
        """Takes what a step came to; from outside only if it was mended there (`Strides`)."""
        self._time_step = time_step
        self._monitor.observe(time_step)

    def drain(self) -> Progress | Wait:
        """Stops acting, seals what is there and sends it; `Progress("drained")` at the end."""
        self._monitor.heartbeat("draining")
        if not self.acting:
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
        self.arrive(self._env.reset(seed=incarnation))
        self._chunker, self.acting = self._new_chunker(incarnation), True
        return Progress("claimed")
