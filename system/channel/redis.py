"""A policy channel on Redis: pieces first, then the manifest that makes them visible.

::

    SET policy:5-12:0 <piece> EX ttl     ...     pieces of at most `piece_bytes`
    XADD policy 5-12 d <manifest>                refused if a newer epoch has published
    UNLINK pieces of all but the newest K, XTRIM policy MAXLEN K

    WATCH policy:safe, MULTI, XADD, PERSIST pieces, EXEC     `after`: only if nothing came between

A wiped store forgets both; publishing the same snapshot again is the learner's duty and harmless.
"""

from __future__ import annotations

import contextlib
import hashlib

from system.channel.manifest import Manifest, decode_manifest, encode_manifest
from system.channel.node_cache import NodeCache
from system.channel.protocol import KEEPING, POLICY
from system.errors import Fenced, RejectedChunk
from system.keys import Keys
from system.log.redis import last_generated_id, newest_entry, parse_entry
from system.redis_client import RedisConnection, ReplyError, as_bytes, as_list, connect
from system.types import ZERO_ID, EntryId, Snapshot

PIECE_BYTES = 8 * 1024**2
MAX_WEIGHT_BYTES = 4 * 1024**3
_UNFINISHED_S = 3600
"""Pieces without a manifest are gone after so long [s]."""


class RedisChannel:
    """Both ends of one channel of one run."""

    def __init__(
        self, url: str, run: str, *, name: str = POLICY, cache: NodeCache | None = None,
        piece_bytes: int = PIECE_BYTES, max_bytes: int = MAX_WEIGHT_BYTES,
    ) -> None:  # fmt: skip
        """Connects on first use.

        Args:
          url: see `system.redis_client.connect`.
          run: the run's name.
          name: which channel, `policy` or `policy:safe`.
          cache: where the processes of this machine share what one of them has fetched.
          piece_bytes: size of one piece, so that no single command holds up the server [bytes].
          max_bytes: larger weights are refused before they are fetched [bytes].
        """
        self._redis: RedisConnection = connect(url)
        self._keys, self._name, self._keeping = Keys(run), name, KEEPING[name]
        self._stream = self._keys.policy(name)
        self._cache = cache
        self._piece_bytes = piece_bytes
        self._max_bytes = max_bytes

    def publish(self, snapshot: Snapshot, *, after: tuple[int, int] | None = None) -> None:
        """Makes a snapshot visible to all. Raises Fenced or Unavailable, see the protocol."""
        entry_id = EntryId(snapshot.epoch, snapshot.version)
        weights = memoryview(snapshot.weights)
        starts = range(0, len(weights), self._piece_bytes)
        pieces = self._piece_keys(entry_id, len(starts))
        for key, start in zip(pieces, starts, strict=True):
            piece = bytes(weights[start : start + self._piece_bytes])
            self._redis.call("SET", key, piece, "EX", self._keeping.ttl_s or _UNFINISHED_S)
        manifest = encode_manifest(snapshot, num_pieces=len(pieces))
        try:
            if after is None:
                self._append(entry_id, manifest, pieces)
            else:
                self._append_after(EntryId(*after), entry_id, manifest, pieces)
        except Fenced:
            if entry_id in self.kept():  # published long ago: the pieces are its own
                self._persist(pieces)
            else:
                self._unlink(pieces)
            raise
        self._drop_old()

    def newest_version(self) -> tuple[int, int]:
        """(epoch, version) of the newest broadcast; (0, 0) if there was none."""
        newest = self._newest_id()
        return newest.incarnation, newest.sequence

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """The newest snapshot if it is newer than (epoch, version), else None.

        None too while its pieces are gone.

        Raises:
          RejectedChunk: reason `checksum`, or a manifest that cannot be read.
        """
        newest = newest_entry(self._redis, self._stream)
        if newest is None or newest[0] <= (epoch, version):
            return None
        return self._read(*newest)

    def kept(self) -> list[tuple[int, int]]:
        """(epoch, version) of every broadcast still kept, newest first."""
        return [(each.incarnation, each.sequence) for each, _ in self._entries()]

    def get(self, epoch: int, version: int) -> Snapshot | None:
        """This very broadcast; None if it, or its weights, are gone. Raises as `newer_than`."""
        found = [entry for entry in self._entries() if entry[0] == (epoch, version)]
        return self._read(*found[0]) if found else None

    def close(self) -> None:
        """Releases the connection."""
        self._redis.close()

    def _newest_id(self) -> EntryId:
        newest = newest_entry(self._redis, self._stream)
        return ZERO_ID if newest is None else newest[0]

    def _entries(self) -> list[tuple[EntryId, bytes]]:
        """Every manifest, newest first."""
        rows = as_list(self._redis.call("XREVRANGE", self._stream, "+", "-"))
        return [parse_entry(row) for row in rows]

    def _append(self, entry_id: EntryId, manifest: bytes, pieces: list[str]) -> None:
        try:
            self._redis.call("XADD", self._stream, str(entry_id), "d", manifest)
        except ReplyError as error:
            if not error.is_id_refusal:
                raise
            last = last_generated_id(self._redis, self._stream)
            # Else it is ours already: its reply was lost, or it was published again.
            if last is not None and last.incarnation > entry_id.incarnation:
                text = f"epoch {entry_id.incarnation}: epoch {last.incarnation} has published"
                raise Fenced(text) from None
        self._persist(pieces)

    def _append_after(
        self, after: EntryId, entry_id: EntryId, manifest: bytes, pieces: list[str]
    ) -> None:
        with self._redis.lock:
            try:
                self._redis.call("WATCH", self._stream)
                newest = self._newest_id()
                if newest not in (after, entry_id):
                    raise Fenced(f"{entry_id}: {newest} is the newest, not {after}")
                self._redis.call("MULTI")
                if newest == after:  # else it is ours already: its reply was lost
                    self._redis.call("XADD", self._stream, str(entry_id), "d", manifest)
                self._persist(pieces)
                replies = self._redis.call("EXEC")
            except BaseException:
                self._redis.drop()  # nobody else may find it within a transaction
                raise
        if replies is None or any(isinstance(reply, Exception) for reply in as_list(replies)):
            raise Fenced(f"{entry_id}: somebody else published after {after}")

    def _persist(self, pieces: list[str]) -> None:
        """The pieces stay as long as their manifest, on a channel where nothing expires."""
        for key in [] if self._keeping.ttl_s else pieces:
            self._redis.call("PERSIST", key)

    def _drop_old(self) -> None:
        entries, keep = self._entries(), self._keeping.broadcasts
        for entry_id, data in entries[keep:]:
            with contextlib.suppress(RejectedChunk):  # nobody's pieces, or those of another format
                self._unlink(self._piece_keys(entry_id, decode_manifest(data).num_pieces))
        if len(entries) > keep:
            self._redis.call("XTRIM", self._stream, "MAXLEN", "=", keep)

    def _unlink(self, pieces: list[str]) -> None:
        if pieces:
            self._redis.call("UNLINK", *pieces)

    def _read(self, entry_id: EntryId, data: bytes) -> Snapshot | None:
        manifest = decode_manifest(data)
        if manifest.num_bytes > self._max_bytes:
            raise RejectedChunk("oversize", f"{manifest.num_bytes} bytes of weights in {entry_id}")

        def fetch() -> bytes | None:
            return self._fetch(entry_id, manifest)

        weights = fetch() if self._cache is None else self._cache.get(manifest.sha256, fetch)
        if weights is None:
            return None
        return Snapshot(
            epoch=entry_id.incarnation,
            version=entry_id.sequence,
            weights=weights,
            **manifest.facts,  # type: ignore[arg-type]
        )

    def _fetch(self, entry_id: EntryId, manifest: Manifest) -> bytes | None:
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
        weights = b"".join(pieces)
        if hashlib.sha256(weights).hexdigest() != manifest.sha256:
            raise RejectedChunk("checksum", f"the weights of {entry_id} are not those published")
        return weights

    def _piece_keys(self, entry_id: EntryId, num_pieces: int) -> list[str]:
        return [self._keys.policy_piece(self._name, *entry_id, i) for i in range(num_pieces)]
