"""The log on Redis: one stream per slot, explicit ids, plain commands.

::

    XADD log:3 [NOMKSTREAM] 2-17 d <chunk>    refused by Redis unless 2-17 is the greatest id ever
    XREAD COUNT n [BLOCK ms] STREAMS log:0 log:1 ... <cursors>
    XADD learner MAXLEN 1 5-120 d <notice>    refused once epoch 6 has claimed with 6-0
    XTRIM log:3 MINID 2-9                     the stream keeps its last id, even when empty

The slots' streams, and the set that lists them, lie on the *data* server; what the learner says
lies on *control*, so that a full data server withdraws no credit. `RedisLog` names both;
`slot_log(slot)` and `reader()` open a connection to each, or one if they are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from system.errors import Fenced
from system.keys import Keys
from system.log.messages import decode_notice, encode_notice
from system.log.protocol import AppendReply, Entry, LogReader, Notice, SlotLog
from system.redis_client import (
    RedisConnection,
    Reply,
    ReplyError,
    as_bytes,
    as_int,
    as_list,
    connect,
)
from system.types import EntryId

_FIELD = "d"
_CLAIM_ATTEMPTS = 100
_SLOT = re.compile(rb"0|[1-9][0-9]{0,8}")
"""Whatever else an actor writes into the set is nobody's slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisLog:
    """Where the log of one run lies; can be sent to another process."""

    url: str = field(repr=False)
    """Where the slots' streams are: *data*."""
    run: str
    timeout_s: float = 5.0
    """Longest wait for one reply [s]."""
    control_url: str = field(default="", repr=False)
    """Where the learner's notice is; empty: on the same server."""

    def slot_log(self, slot: int) -> SlotLog:
        """An actor's end, with connections of its own."""
        return RedisSlotLog(self._open(), Keys(self.run), slot)

    def reader(self) -> LogReader:
        """The learner's end, with connections of its own."""
        return RedisLogReader(self._open(), Keys(self.run))

    def _open(self) -> _Servers:
        data = connect(self.url, timeout_s=self.timeout_s)
        if self.control_url in ("", self.url):
            return _Servers(data=data, control=data)
        return _Servers(data=data, control=connect(self.control_url, timeout_s=self.timeout_s))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Servers:
    """One end's connections; the same object twice with one server."""

    data: RedisConnection
    control: RedisConnection

    def close(self) -> None:
        self.data.close()
        self.control.close()


class RedisSlotLog:
    """An actor's end: raw commands on one slot's stream."""

    def __init__(self, servers: _Servers, keys: Keys, slot: int) -> None:
        self._servers = servers
        self._data, self._control = servers.data, servers.control
        self._keys = keys
        self._slot = slot
        self._key = keys.log(slot)

    def last_id(self) -> EntryId | None:
        """The greatest id the stream ever held; None if there is no stream."""
        return last_generated_id(self._data, self._key)

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        """Appends one entry; only `create=True` makes a stream."""
        options: tuple[str, ...] = ("NOMKSTREAM",)
        if create:
            # The set first: a slot without a stream is harmless, a stream nobody reads is not.
            self._data.call("SADD", self._keys.slots, self._slot)
            options = ()
        try:
            reply = self._data.call("XADD", self._key, *options, str(entry_id), _FIELD, payload)
        except ReplyError as error:
            if error.is_id_refusal:
                return AppendReply.REFUSED
            raise
        return AppendReply.MISSING if reply is None else AppendReply.ACKNOWLEDGED

    def notice(self) -> Notice | None:
        """The learner's newest notice; None while there is none or only a claim."""
        newest = newest_entry(self._control, self._keys.learner)
        if newest is None or newest[0].sequence == 0:
            return None
        return decode_notice(*newest)

    def close(self) -> None:
        """Releases the connections."""
        self._servers.close()


class RedisLogReader:
    """The learner's end."""

    def __init__(self, servers: _Servers, keys: Keys) -> None:
        self._servers = servers
        self._data, self._control = servers.data, servers.control
        self._keys = keys

    def claim_epoch(self, *, after: int = 0) -> int:
        """Takes the next epoch; the notice of the one before is withdrawn.

        A lost reply raises Unavailable and may cost one number.
        """
        for _ in range(_CLAIM_ATTEMPTS):
            last = last_generated_id(self._control, self._keys.learner)
            epoch = max(last.incarnation if last else 0, after) + 1
            if self._say(EntryId(epoch, 0), b""):
                return epoch
        raise Fenced(f"{_CLAIM_ATTEMPTS} other learners were faster; is one restarted in a loop?")

    def slots(self) -> list[int]:
        """Slots that were ever claimed, growing order."""
        members = map(as_bytes, as_list(self._data.call("SMEMBERS", self._keys.slots)))
        return sorted(int(member) for member in members if _SLOT.fullmatch(member))

    def read(self, cursors: dict[int, EntryId], *, limit: int, wait_s: float = 0.0) -> list[Entry]:
        """Entries after each slot's cursor; waits at most `wait_s` for the first one [s]."""
        if not cursors:
            return []
        # Blocking must end before the socket's own timeout, which would look like a dead server.
        wait_ms = int(min(wait_s, self._data.timeout_s / 2) * 1000)
        block = ("BLOCK", wait_ms) if wait_ms > 0 else ()
        slots = {self._keys.log(slot).encode(): slot for slot in cursors}
        ids = [str(cursor) for cursor in cursors.values()]
        reply = self._data.call("XREAD", "COUNT", limit, *block, "STREAMS", *slots, *ids)
        return [
            Entry(slot=slots[as_bytes(key)], entry_id=entry_id, payload=payload)
            for key, rows in map(as_list, as_list(reply))
            for entry_id, payload in map(parse_entry, as_list(rows))
        ]

    def publish(self, notice: Notice) -> None:
        """Replaces the notice. Raises Fenced if a newer epoch has spoken."""
        if self._say(EntryId(notice.epoch, notice.tick), encode_notice(notice)):
            return
        last = last_generated_id(self._control, self._keys.learner)
        # Same epoch: this very notice was taken before, only its reply was lost.
        if last is not None and last.incarnation > notice.epoch:
            raise Fenced(f"learner epoch {notice.epoch}: epoch {last.incarnation} has taken over")

    def trim(self, slot: int, below: EntryId) -> int:
        """Drops entries with smaller ids; returns how many."""
        return as_int(self._data.call("XTRIM", self._keys.log(slot), "MINID", "=", str(below)))

    def num_bytes(self) -> int:
        """What Redis says its streams take, by sampling [bytes]."""
        sizes = [self._data.call("MEMORY", "USAGE", self._keys.log(slot)) for slot in self.slots()]
        return sum(as_int(size) for size in sizes if size is not None)

    def close(self) -> None:
        """Releases the connections."""
        self._servers.close()

    def _say(self, entry_id: EntryId, payload: bytes) -> bool:
        """Replaces the one entry of the learner's stream; False if Redis refused the id."""
        key = self._keys.learner
        try:
            self._control.call("XADD", key, "MAXLEN", "=", 1, str(entry_id), _FIELD, payload)
        except ReplyError as error:
            if error.is_id_refusal:
                return False
            raise
        return True


def last_generated_id(connection: RedisConnection, key: str) -> EntryId | None:
    """The greatest id a stream ever held, which trimming does not lower; None if no stream."""
    try:
        reply = as_list(connection.call("XINFO", "STREAM", key))
    except ReplyError as error:
        if error.is_no_such_key:
            return None
        raise
    facts = dict(zip(map(as_bytes, reply[0::2]), reply[1::2], strict=True))
    return EntryId.parse(as_bytes(facts[b"last-generated-id"]))


def newest_entry(connection: RedisConnection, key: str) -> tuple[EntryId, bytes] | None:
    """A stream's newest entry; None if it has none."""
    rows = as_list(connection.call("XREVRANGE", key, "+", "-", "COUNT", 1))
    return parse_entry(rows[0]) if rows else None


def parse_entry(row: Reply) -> tuple[EntryId, bytes]:
    """Reads `[b"2-17", [b"d", payload]]`."""
    entry_id, pairs = as_list(row)
    return EntryId.parse(as_bytes(entry_id)), as_bytes(as_list(pairs)[1])
