"""The control plane on Redis: small values under their own keys.

::

    WATCH desired, GET, MULTI, SET, EXEC     optimistic: tried again if somebody else was faster
    SET lease:actor:3 <lease> PX ttl         found again by SCAN: a few hundred keys at most
    SET lease:actor:1000 <lease> PX ttl NX   taken by one of those that ask at once
    XADD events MAXLEN 1000 * d <event>
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, fields
from typing import TypeVar

from system.codec import Message, is_count, pack, unpack
from system.control.memory import MAX_EVENTS, changed
from system.control.protocol import Desired, Event, Lease, ProcessMetrics, Recorded
from system.errors import RejectedChunk, Unavailable
from system.keys import Keys
from system.log.redis import parse_entry
from system.redis_client import RedisConnection, as_bytes, as_list, connect

_ATTEMPTS = 100
_SCAN_COUNT = 1000
_MAX_BYTES = 256 * 1024
"""Of one record [bytes]."""
_MAX_TEXT_CHARS = 16_000
"""Of one text; the stack of a hang is shorter."""

RecordT = TypeVar("RecordT", Desired, Lease, Event, ProcessMetrics)


class RedisControl:
    """The control plane of one run. Threads may share it."""

    def __init__(self, url: str, run: str, *, timeout_s: float = 5.0) -> None:
        """Connects on first use; `timeout_s` is the longest wait for one reply [s]."""
        self._redis: RedisConnection = connect(url, timeout_s=timeout_s)
        self._keys = Keys(run)

    def desired(self) -> Desired:
        """The desired fleet; generation 0 if nobody has asked for one."""
        data = self._redis.call("GET", self._keys.desired)
        return Desired() if data is None else _read(Desired, as_bytes(data))

    def change_desired(
        self, *, actors: int | None = None, delta: int = 0, stopping: bool | None = None
    ) -> Desired:
        """Atomically changes the given parts; the generation grows only if something changed."""
        with self._redis.lock:
            try:
                for _ in range(_ATTEMPTS):
                    self._redis.call("WATCH", self._keys.desired)
                    before = self.desired()
                    wish = changed(before, actors=actors, delta=delta, stopping=stopping)
                    if wish == before:
                        self._redis.call("UNWATCH")
                        return before
                    self._redis.call("MULTI")
                    self._redis.call("SET", self._keys.desired, _write(wish))
                    if self._redis.call("EXEC") is not None:
                        return wish
            except BaseException:
                # A refused command leaves the connection inside WATCH or MULTI: never reuse it.
                self._redis.drop()
                raise
        raise Unavailable(f"the desired fleet was changed by others {_ATTEMPTS} times in a row")

    def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Writes a heartbeat that expires by itself after `ttl_s` [s]."""
        self._put(self._keys.lease(lease.role, lease.slot), _write(lease), ttl_s)

    def take(self, lease: Lease, *, ttl_s: float) -> bool:
        """Writes a lease that expires after `ttl_s` [s], unless somebody else's is there."""
        key = self._keys.lease(lease.role, lease.slot)
        if self._redis.call("SET", key, _write(lease), "PX", _whole_ms(ttl_s), "NX") is not None:
            return True
        data = self._redis.call("GET", key)
        held = [] if data is None else _readable(Lease, [as_bytes(data)])
        if not held or held[0].who != lease.who:
            return False
        self.renew(lease, ttl_s=ttl_s)
        return True

    def release(self, role: str, slot: int) -> None:
        """Removes a lease at an orderly exit."""
        self._redis.call("DEL", self._keys.lease(role, slot))

    def leases(self) -> list[Lease]:
        """Every lease that has not expired, ordered by role and slot."""
        found = _readable(Lease, self._matching(self._keys.lease_pattern))
        return sorted(found, key=lambda lease: (lease.role, lease.slot))

    def put_metrics(self, metrics: ProcessMetrics, *, ttl_s: float) -> None:
        """Replaces the numbers of one process."""
        self._put(self._keys.metrics(metrics.role, metrics.slot), _write(metrics), ttl_s)

    def metrics(self) -> list[ProcessMetrics]:
        """The numbers of every process seen lately, ordered by role and slot."""
        found = _readable(ProcessMetrics, self._matching(self._keys.metrics_pattern))
        return sorted(found, key=lambda metrics: (metrics.role, metrics.slot))

    def record(self, event: Event) -> None:
        """Appends an event; only the newest thousand are kept."""
        self._redis.call(
            "XADD", self._keys.events, "MAXLEN", "=", MAX_EVENTS, "*", "d", _write(event)
        )

    def events(self, *, last: int = 100) -> list[Event]:
        """The newest events, oldest first."""
        rows = as_list(self._redis.call("XREVRANGE", self._keys.events, "+", "-", "COUNT", last))
        return _readable(Event, [parse_entry(row)[1] for row in reversed(rows)])

    def events_after(self, cursor: str) -> list[Recorded]:
        """Every event kept that came after `cursor`, oldest first; empty is before the first."""
        first = f"({cursor}" if cursor else "-"
        reply = self._redis.call("XREVRANGE", self._keys.events, "+", first, "COUNT", MAX_EVENTS)
        rows = [parse_entry(row) for row in reversed(as_list(reply))]
        return [
            Recorded(cursor=str(entry_id), event=event)
            for entry_id, data in rows
            for event in _readable(Event, [data])
        ]

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


def _write(record: Desired | Lease | Event | ProcessMetrics) -> bytes:
    """Packs one record; numbers become plain floats where the record says so, texts are cut."""
    message = asdict(record)
    for field in fields(record):
        value = message[field.name]
        if field.type == "str":  # it may quote anything: half a character would not travel
            message[field.name] = value[:_MAX_TEXT_CHARS].encode("utf-8", "replace").decode()
        elif field.type == "float":
            message[field.name] = float(value)
        elif field.type == "dict[str, float]":
            message[field.name] = {name: float(number) for name, number in value.items()}
    return pack(message)


def _readable(kind: type[RecordT], values: list[bytes]) -> list[RecordT]:
    """Those that are records: one broken process must not hide all others."""
    found = []
    for data in values:
        with contextlib.suppress(RejectedChunk):
            found.append(_read(kind, data))
    return found


def _read(kind: type[RecordT], data: bytes) -> RecordT:
    """Reads one record; its fields must be exactly those of `kind`, with values of their types.

    Raises:
      RejectedChunk: they are not.
    """
    message: Message = unpack(data, max_bytes=_MAX_BYTES)
    example = {field.name: str(field.type) for field in fields(kind)}
    if {name: _type_name(value) for name, value in message.items()} != example:
        raise RejectedChunk("header", f"not a {kind.__name__}")
    if not all(_is_proper(value) for value in message.values()):
        raise RejectedChunk("value", f"a {kind.__name__} with a value that cannot be")
    return kind(**message)  # type: ignore[arg-type]


def _is_proper(value: object) -> bool:
    """Whole numbers are counts, times are finite; a measured value (in a dict) may be NaN."""
    if type(value) is int:
        return is_count(value)
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT_CHARS
    return not isinstance(value, float) or math.isfinite(value)


def _type_name(value: object) -> str:
    if isinstance(value, dict):
        proper = all(isinstance(key, str) and type(item) is float for key, item in value.items())
        return "dict[str, float]" if proper else "dict"
    return type(value).__name__
