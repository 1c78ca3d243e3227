"""The policy channel: newest weights from the learner to everybody, older ones may be skipped.

Weights go first, as expiring pieces; then one small manifest entry, id `<epoch>-<version>`, makes
them visible. A manifest never names pieces that were not written, and a zombie learner's manifest
is refused because its id is smaller.
"""

from __future__ import annotations

from typing import Protocol

from system.types import Snapshot

KEPT_BROADCASTS = 3
"""The newest broadcasts whose weights are kept; one more is in flight."""


class PolicyChannel(Protocol):
    """Both ends. The circle closes with `channel.newer_than(agent.version)` -> `agent.load`."""

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a snapshot visible to all. Raises Fenced (newer epoch) or Unavailable."""
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

    def close(self) -> None:
        """Releases the connection."""
        ...
