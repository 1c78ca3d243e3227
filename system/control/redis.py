"""The control plane on Redis: small values under their own keys.

::

    WATCH desired, GET, MULTI, SET, EXEC     optimistic: tried again if somebody else was faster
    SET lease:actor:3 <lease> PX ttl         found again by SCAN: a few hundred keys at most
    SET lease:actor:1000 <lease> PX ttl NX   taken by one of those that ask at once
    XADD events MAXLEN 1000 * d <event>
    SET blob:dream <bytes> PX ttl            read with GETRANGE: never more than may be there
    XADD history MAXLEN ~ 20000 * d <point>  read with XRANGE, a portion at a time
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from system.control.memory import MAX_EVENTS
from system.control.protocol import (
    MAX_BLOB_BYTES,
    MAX_POINTS,
    Desired,
    Event,
    Lease,
    Point,
    ProcessMetrics,
    Recorded,
    RememberedPoint,
    SlotAction,
    check_blob,
)
from system.control.records import read, readable, write
from system.control.wish import asked, changed
from system.errors import RejectedChunk, Unavailable
from system.keys import Keys
from system.log.redis import parse_entry
from system.redis_client import RedisConnection, as_bytes, as_list, connect

_ATTEMPTS = 100
_SCAN_COUNT = 1000
_PORTION = 1000
"""Points in one reply."""


class RedisControl:
    """The control plane of one run. Threads may share it."""

    def __init__(self, url: str, run: str, *, timeout_s: float = 5.0) -> None:
        """Connects on first use; `timeout_s` is the longest wait for one reply [s]."""
        self._redis: RedisConnection = connect(url, timeout_s=timeout_s)
        self._keys = Keys(run)

    def desired(self) -> Desired:
        """The desired fleet; generation 0 if nobody has asked for one."""
        data = self._redis.call("GET", self._keys.desired)
        return Desired() if data is None else read(Desired, as_bytes(data))

    def change_desired(
        self, *, actors: int | None = None, delta: int = 0, stopping: bool | None = None,
        held: Sequence[int] | None = None,
    ) -> Desired:  # fmt: skip
        """Atomically changes the given parts; the generation grows only if something changed."""
        return self._wish(
            lambda before: changed(before, actors=actors, delta=delta, stopping=stopping, held=held)
        )

    def ask_slot(self, slot: int, action: SlotAction) -> Desired:
        """Atomically changes what is wished of one slot."""
        data = self._redis.call("GET", self._keys.lease("actor", slot))
        held = [] if data is None else readable(Lease, [as_bytes(data)])
        incarnation = held[0].incarnation if held else 0
        return self._wish(lambda before: asked(before, slot, action, incarnation))

    def _wish(self, change: Callable[[Desired], Desired]) -> Desired:
        with self._redis.lock:
            try:
                for _ in range(_ATTEMPTS):
                    self._redis.call("WATCH", self._keys.desired)
                    before = self.desired()
                    wish = change(before)
                    if wish == before:
                        self._redis.call("UNWATCH")
                        return before
                    self._redis.call("MULTI")
                    self._redis.call("SET", self._keys.desired, write(wish))
                    if self._redis.call("EXEC") is not None:
                        return wish
            except BaseException:
                # A refused command leaves the connection inside WATCH or MULTI: never reuse it.
                self._redis.drop()
                raise
        raise Unavailable(f"the desired fleet was changed by others {_ATTEMPTS} times in a row")

    def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Writes a heartbeat that expires by itself after `ttl_s` [s]."""
        self._put(self._keys.lease(lease.role, lease.slot), write(lease), ttl_s)

    def take(self, lease: Lease, *, ttl_s: float) -> bool:
        """Writes a lease that expires after `ttl_s` [s], unless somebody else's is there."""
        key = self._keys.lease(lease.role, lease.slot)
        if self._redis.call("SET", key, write(lease), "PX", _whole_ms(ttl_s), "NX") is not None:
            return True
        data = self._redis.call("GET", key)
        held = [] if data is None else readable(Lease, [as_bytes(data)])
        if not held or held[0].who != lease.who:
            return False
        self.renew(lease, ttl_s=ttl_s)
        return True

    def release(self, role: str, slot: int) -> None:
        """Removes a lease at an orderly exit."""
        self._redis.call("DEL", self._keys.lease(role, slot))

    def leases(self) -> list[Lease]:
        """Every lease that has not expired, ordered by role and slot."""
        found = readable(Lease, self._matching(self._keys.lease_pattern))
        return sorted(found, key=lambda lease: (lease.role, lease.slot))

    def put_metrics(self, metrics: ProcessMetrics, *, ttl_s: float) -> None:
        """Replaces the numbers of one process."""
        self._put(self._keys.metrics(metrics.role, metrics.slot), write(metrics), ttl_s)

    def metrics(self) -> list[ProcessMetrics]:
        """The numbers of every process seen lately, ordered by role and slot."""
        found = readable(ProcessMetrics, self._matching(self._keys.metrics_pattern))
        return sorted(found, key=lambda metrics: (metrics.role, metrics.slot))

    def record(self, event: Event) -> None:
        """Appends an event; only the newest thousand are kept."""
        self._redis.call(
            "XADD", self._keys.events, "MAXLEN", "=", MAX_EVENTS, "*", "d", write(event)
        )

    def events(self, *, last: int = 100) -> list[Event]:
        """The newest events, oldest first."""
        rows = as_list(self._redis.call("XREVRANGE", self._keys.events, "+", "-", "COUNT", last))
        return readable(Event, [parse_entry(row)[1] for row in reversed(rows)])

    def events_after(self, cursor: str) -> list[Recorded]:
        """Every event kept that came after `cursor`, oldest first; empty is before the first."""
        first = f"({cursor}" if cursor else "-"
        reply = self._redis.call("XREVRANGE", self._keys.events, "+", first, "COUNT", MAX_EVENTS)
        rows = [parse_entry(row) for row in reversed(as_list(reply))]
        return [
            Recorded(cursor=str(entry_id), event=event)
            for entry_id, data in rows
            for event in readable(Event, [data])
        ]

    def put_blob(self, name: str, data: bytes, *, ttl_s: float) -> None:
        """Replaces a blob, which expires by itself after `ttl_s` [s]."""
        check_blob(data)
        self._put(self._keys.blob(name), data, ttl_s)

    def blob(self, name: str) -> bytes | None:
        """A blob; None if there is none, or it has expired."""
        key = self._keys.blob(name)
        data = as_bytes(self._redis.call("GETRANGE", key, 0, MAX_BLOB_BYTES))
        if len(data) > MAX_BLOB_BYTES:
            raise RejectedChunk("oversize", f"blob {name!r} is longer than {MAX_BLOB_BYTES} bytes")
        return data or None

    def remember(self, point: Point) -> None:
        """Appends a point to the run's curve; about the newest `MAX_POINTS` are kept."""
        self._redis.call(
            "XADD", self._keys.history, "MAXLEN", "~", MAX_POINTS, "*", "d", write(point)
        )

    def history(self, after: str = "") -> list[RememberedPoint]:
        """Every point kept that came after a cursor, oldest first; empty is before the first."""
        found: list[RememberedPoint] = []
        while True:
            first = f"({after}" if after else "-"
            reply = self._redis.call("XRANGE", self._keys.history, first, "+", "COUNT", _PORTION)
            rows = [parse_entry(row) for row in as_list(reply)]
            found += [
                RememberedPoint(cursor=str(entry_id), point=point)
                for entry_id, data in rows
                for point in readable(Point, [data])
            ]
            if len(rows) < _PORTION:
                return found
            after = str(rows[-1][0])

    def close(self) -> None:
        """Releases the connection."""
        self._redis.close()

    def _put(self, key: str, data: bytes, ttl_s: float) -> None:
        self._redis.call("SET", key, data, "PX", _whole_ms(ttl_s))

    def _matching(self, pattern: str) -> list[bytes]:
        """Values of all keys that match; those that expire meanwhile are left out."""
        keys: set[bytes] = set()
        cursor = b"0"
        while True:
            reply = self._redis.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            position, found = as_list(reply)
            cursor = as_bytes(position)
            keys.update(map(as_bytes, as_list(found)))
            if cursor == b"0":
                break
        if not keys:
            return []
        values = as_list(self._redis.call("MGET", *sorted(keys)))
        return [as_bytes(value) for value in values if value is not None]


def _whole_ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
