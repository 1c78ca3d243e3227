"""Broadcasting: the newest finite policy, at most so often, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from learner.copies import Copies
from system.channel.protocol import PolicyChannel
from system.clock import Clock, Every
from system.errors import NotFinite, Unavailable
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
    """`publisher.publish(standing)` after updates; it decides whether it is time.

    Weights that are not finite are never broadcast.
    """

    def __init__(
        self,
        channel: PolicyChannel,
        copies: Copies,
        clock: Clock,
        *,
        model_digest: str,
        publish_s: float,
        on_event: Callable[[str, str], None],
    ) -> None:
        self._channel, self._copies, self._clock = channel, copies, clock
        self._model_digest, self._on_event = model_digest, on_event
        self._due = Every(publish_s)
        self._copied_at: tuple[Standing, float] | None = None
        """Where the run stood, and when [s], at the copy that is on its way."""
        self.version = 0
        """Number of broadcasts so far."""

    def resume(self, version: int) -> None:
        """Goes on counting after the greater of a checkpoint's version and the channel's."""
        self.version = max(version, self._channel.newest_version()[1])

    def publish(self, standing: Standing, *, now: bool = False) -> None:
        """Broadcasts if it is time (or `now`), as soon as a copy of the weights is on the host.

        Raises:
          Fenced: a newer learner speaks.
          NotFinite: a weight is NaN or infinite; nothing was broadcast.
        """
        if now or (self._due(self._clock.now()) and self._copied_at is None):
            self._copies.start()
            self._copied_at = standing, self._clock.wall()
        if self._copied_at is not None and (now or self._copies.ready):
            (copied_at, time_s), self._copied_at = self._copied_at, None
            self._broadcast(copied_at, time_s)

    def _broadcast(self, standing: Standing, time_s: float) -> None:
        copied = self._copies.take()
        require_finite(copied.finite, standing.update, self._on_event)
        # The number is spent even if the reply is lost: it must never name two sets of weights.
        self.version += 1
        snapshot = Snapshot(
            epoch=standing.epoch,
            version=self.version,
            update=standing.update,
            agent_steps=standing.agent_steps,
            elapsed_s=standing.elapsed_s,
            model_digest=self._model_digest,
            time_s=time_s,
            weights=copied.weights,
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


def require_finite(finite: bool, update: int, on_event: Callable[[str, str], None]) -> None:
    """Tells and raises NotFinite if weights are not: they are neither broadcast nor saved."""
    if not finite:
        text = f"update {update}: a weight is not finite; last good version stays"
        on_event("not_finite", text)
        raise NotFinite(text)
