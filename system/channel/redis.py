"""The policy channel on Redis: pieces first, then the manifest that makes them visible.

::

    SET policy:5-12:0 <piece> EX ttl     ...     pieces of at most `piece_bytes`
    XADD policy 5-12 d <manifest>                refused if a newer epoch has published
    UNLINK pieces of all but the newest K, XTRIM policy MAXLEN K

A wiped store forgets both; publishing the same snapshot again is the learner's duty and harmless.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from system.channel.protocol import KEPT_BROADCASTS
from system.codec import pack, unpack
from system.errors import Fenced, RejectedChunk
from system.keys import Keys
from system.log.redis import last_generated_id, newest_entry, parse_entry
from system.redis_client import RedisConnection, ReplyError, as_bytes, as_list, connect
from system.types import EntryId, Snapshot

PIECE_BYTES = 8 * 1024**2
MAX_WEIGHT_BYTES = 4 * 1024**3
TTL_S = 3600
_MANIFEST_BYTES = 4096
_FACTS = {
    field.name: str(field.type)
    for field in fields(Snapshot)
    if field.name not in ("epoch", "version", "weights")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    num_pieces: int
    num_bytes: int
    sha256: str
    facts: dict[str, object]
    """Every field of the Snapshot but its id and its weights."""


class RedisChannel:
    """Both ends of the channel of one run."""

    def __init__(
        self,
        url: str,
        run: str,
        *,
        timeout_s: float = 5.0,
        piece_bytes: int = PIECE_BYTES,
        max_bytes: int = MAX_WEIGHT_BYTES,
    ) -> None:
        """Connects on first use.

        Args:
          url: see `system.redis_client.connect`.
          run: the run's name.
          timeout_s: longest wait for one reply [s].
          piece_bytes: size of one piece, so that no single command holds up the server [bytes].
          max_bytes: larger weights are refused before they are fetched [bytes].
        """
        self._redis: RedisConnection = connect(url, timeout_s=timeout_s)
        self._keys = Keys(run)
        self._piece_bytes = piece_bytes
        self._max_bytes = max_bytes

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a snapshot visible to all. Raises Fenced (newer epoch) or Unavailable."""
        weights = memoryview(snapshot.weights)
        starts = range(0, len(weights), self._piece_bytes)
        for index, start in enumerate(starts):
            key = self._keys.policy_piece(snapshot.epoch, snapshot.version, index)
            piece = bytes(weights[start : start + self._piece_bytes])
            self._redis.call("SET", key, piece, "EX", TTL_S)
        manifest = _encode(snapshot, num_pieces=len(starts))
        entry_id = EntryId(snapshot.epoch, snapshot.version)
        try:
            self._redis.call("XADD", self._keys.policy, str(entry_id), "d", manifest)
        except ReplyError as error:
            if not error.is_id_refusal:
                raise
            self._judge_refusal(entry_id, num_pieces=len(starts))
        self._drop_old()

    def newest_version(self) -> tuple[int, int]:
        """(epoch, version) of the newest broadcast; (0, 0) if there was none."""
        newest = newest_entry(self._redis, self._keys.policy)
        return (0, 0) if newest is None else (newest[0].incarnation, newest[0].sequence)

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """The newest snapshot if it is newer than (epoch, version), else None.

        None too while its pieces are gone.

        Raises:
          RejectedChunk: reason `checksum`, or a manifest that cannot be read.
        """
        newest = newest_entry(self._redis, self._keys.policy)
        if newest is None or newest[0] <= (epoch, version):
            return None
        entry_id, data = newest
        manifest = _decode(data)
        if manifest.num_bytes > self._max_bytes:
            raise RejectedChunk("oversize", f"{manifest.num_bytes} bytes of weights in {entry_id}")
        weights = self._fetch(entry_id, manifest)
        if weights is None:
            return None
        if hashlib.sha256(weights).hexdigest() != manifest.sha256:
            raise RejectedChunk("checksum", f"the weights of {entry_id} are not those published")
        return Snapshot(
            epoch=entry_id.incarnation,
            version=entry_id.sequence,
            weights=weights,
            **manifest.facts,  # type: ignore[arg-type]
        )

    def close(self) -> None:
        """Releases the connection."""
        self._redis.close()

    def _judge_refusal(self, entry_id: EntryId, *, num_pieces: int) -> None:
        last = last_generated_id(self._redis, self._keys.policy)
        if last is None or last.incarnation <= entry_id.incarnation:
            return  # ours already: its reply was lost, or it was published again
        self._unlink(entry_id, num_pieces)
        raise Fenced(f"epoch {entry_id.incarnation}: epoch {last.incarnation} has published")

    def _drop_old(self) -> None:
        rows = as_list(self._redis.call("XREVRANGE", self._keys.policy, "+", "-"))
        for entry_id, data in map(parse_entry, rows[KEPT_BROADCASTS:]):
            self._unlink(entry_id, _decode(data).num_pieces)
        if len(rows) > KEPT_BROADCASTS:
            self._redis.call("XTRIM", self._keys.policy, "MAXLEN", "=", KEPT_BROADCASTS)

    def _unlink(self, entry_id: EntryId, num_pieces: int) -> None:
        if num_pieces:
            self._redis.call("UNLINK", *self._piece_keys(entry_id, num_pieces))

    def _fetch(self, entry_id: EntryId, manifest: _Manifest) -> bytes | None:
        """The weights; None if a piece is gone. Never reads more than the manifest promises."""
        pieces: list[bytes] = []
        missing_bytes = manifest.num_bytes
        for key in self._piece_keys(entry_id, manifest.num_pieces):
            piece = as_bytes(self._redis.call("GETRANGE", key, 0, missing_bytes))
            if not piece:
                return None
            if len(piece) > missing_bytes:
                raise RejectedChunk("checksum", f"{entry_id} has more bytes than its manifest says")
            pieces.append(piece)
            missing_bytes -= len(piece)
        return b"".join(pieces)

    def _piece_keys(self, entry_id: EntryId, num_pieces: int) -> list[str]:
        return [self._keys.policy_piece(*entry_id, index) for index in range(num_pieces)]


def _encode(snapshot: Snapshot, *, num_pieces: int) -> bytes:
    facts = {
        name: float(value) if kind == "float" else value
        for name, kind in _FACTS.items()
        for value in (getattr(snapshot, name),)
    }
    return pack(
        {
            "num_pieces": num_pieces,
            "num_bytes": len(snapshot.weights),
            "sha256": hashlib.sha256(snapshot.weights).hexdigest(),
            "facts": facts,
        }
    )


def _decode(data: bytes) -> _Manifest:
    message = unpack(data, max_bytes=_MANIFEST_BYTES)
    kinds = {"num_pieces": int, "num_bytes": int, "sha256": str, "facts": dict}
    if {key: type(value) for key, value in message.items()} != kinds:
        raise RejectedChunk("header", "not a manifest of a policy")
    manifest = _Manifest(**message)  # type: ignore[arg-type]
    if {key: type(value).__name__ for key, value in manifest.facts.items()} != _FACTS:
        raise RejectedChunk("header", "a manifest with other facts than a Snapshot has")
    if not 0 <= manifest.num_pieces <= manifest.num_bytes:
        raise RejectedChunk("header", "a manifest with impossible sizes")
    return manifest
