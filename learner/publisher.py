"""Broadcasting: the newest finite policy, at most so often, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from learner.update import Learning
from system.channel.protocol import PolicyChannel
from system.clock import Clock, Every
from system.errors import Unavailable
from system.models.weights import to_bytes
from system.types import Snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a run stands: what every snapshot, checkpoint and line of metrics says."""

    epoch: int
    update: int
    agent_steps: int
    elapsed_s: float
    """Training time, earlier sessions included [s]."""


class Publisher:
    """`publisher.publish(standing)` after updates; it decides whether it is time."""

    def __init__(
        self,
        channel: PolicyChannel,
        learning: Learning,
        clock: Clock,
        *,
        model_digest: str,
        publish_s: float,
        on_event: Callable[[str, str], None],
    ) -> None:
        self._channel, self._learning, self._clock = channel, learning, clock
        self._model_digest, self._on_event = model_digest, on_event
        self._due = Every(publish_s)
        self.version = 0
        """Number of broadcasts so far."""

    def resume(self, version: int) -> None:
        """Goes on counting after the greater of a checkpoint's version and the channel's."""
        self.version = max(version, self._channel.newest_version()[1])

    def publish(self, standing: Standing, *, now: bool = False) -> None:
        """Broadcasts if it is time (or `now`). Raises Fenced."""
        if not now and not self._due(self._clock.now()):
            return
        # The number is spent even if the reply is lost: it must never name two sets of weights.
        self.version += 1
        snapshot = Snapshot(
            epoch=standing.epoch,
            version=self.version,
            update=standing.update,
            agent_steps=standing.agent_steps,
            elapsed_s=standing.elapsed_s,
            model_digest=self._model_digest,
            time_s=self._clock.wall(),
            weights=to_bytes(self._learning.acting_modules()),
        )
        try:
            self._channel.publish(snapshot)
        except Unavailable as error:
            # Actors go on with the version they have; the next one will reach them.
            self._on_event("not_published", f"policy {self.version}: {error}")

    def repeat(self, standing: Standing) -> None:
        """Broadcasts again if the channel has forgotten us: the store was wiped.

        An older epoch may have spoken there since: nobody refuses a zombie in an empty store.
        """
        try:
            forgotten = self._channel.newest_version()[0] < standing.epoch
        except Unavailable:
            return
        if forgotten:
            self.publish(standing, now=True)
