"""A policy channel: the newest weights from one publisher to everybody, older ones may be skipped.

Weights go first, as expiring pieces; then one small manifest entry, id `<epoch>-<version>`, makes
them visible. A manifest never names pieces that were not written, and a zombie learner's manifest
is refused because its id is smaller.

A run has two::

    policy        the learner publishes           simulated actors adopt it at any step boundary
    policy:safe   a promotion publishes again     robots adopt it between episodes

On `policy:safe` the *epoch* counts promotions and the *version* is still the learner's. So a
rollback to version 5 has a greater id than the promotion of 9 it takes back, and data says who
acted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from system.types import Snapshot

POLICY = "policy"
SAFE = "policy:safe"

KEPT_BROADCASTS = 3
"""The newest broadcasts whose weights are kept; one more is in flight."""

KEPT_PROMOTIONS = 5
"""Safe policies kept to roll back to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """What a channel keeps."""

    broadcasts: int
    """The newest, with their weights."""
    ttl_s: int | None
    """Weights expire after so long unless they are published again [s]; None: never."""


KEEPING = {
    POLICY: Keeping(broadcasts=KEPT_BROADCASTS, ttl_s=3600),
    SAFE: Keeping(broadcasts=KEPT_PROMOTIONS, ttl_s=None),
}


class PolicyChannel(Protocol):
    """Both ends. The circle closes with `channel.newer_than(agent.version)` -> `agent.load`."""

    def publish(self, snapshot: Snapshot, *, after: tuple[int, int] | None = None) -> None:
        """Makes a snapshot visible to all.

        Args:
          snapshot: its (epoch, version) orders it.
          after: if given, the (epoch, version) that must be the newest still.

        Raises:
          Fenced: a newer epoch has published, or something else than `after` is the newest.
          Unavailable: nothing is known about whether it is visible.
        """
        ...

    def newest_version(self) -> tuple[int, int]:
        """(epoch, version) of the newest broadcast; (0, 0) if there was none."""
        ...

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """The newest snapshot if it is newer than (epoch, version), else None.

        None too while its pieces are gone (expired or wiped); a digest mismatch of the bytes
        raises RejectedChunk with reason `checksum`.
        """
        ...

    def kept(self) -> list[tuple[int, int]]:
        """(epoch, version) of every broadcast still kept, newest first."""
        ...

    def get(self, epoch: int, version: int) -> Snapshot | None:
        """This very broadcast; None if it, or its weights, are gone. Raises as `newer_than`."""
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...
