"""The runs of one Redis: what each is, so that its URL alone is enough to operate it.

::

    HSET dreamfleet:runs balance-1f3a9c02 {"format": 1, "name": "balance", ...}
    SCAN dreamfleet:balance-1f3a9c02:*        everything that run holds, and nothing of another

The supervisor of a run puts its entry and records its end; everybody else reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from deploy.place import REPLY_TIMEOUT_S
from deploy.run_entry import ENDS, RUN_ID, RunEntry, decode, encode, public_url
from deploy.status import newest_numbers
from system.control.redis import RedisControl
from system.errors import RunError, Unavailable, UserError, nearest
from system.keys import RUNS, Keys
from system.redis_client import RedisConnection, as_bytes, as_int, as_list, connect

__all__ = ["Listing", "Registry", "RunEntry"]

_SCAN_COUNT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Everything that is registered."""

    entries: list[RunEntry] = field(default_factory=list)
    """Oldest first."""
    unreadable: list[str] = field(default_factory=list)
    """Ids whose records are damaged, or of a newer version."""


class Registry:
    """The runs of one server. Every method may raise Unavailable.

    The calls that use it::

        registry = Registry(url)
        registry.put(RunEntry.of(folder))           # at every start; again after a wiped store
        registry.end(run_id, "finished", "")
        entry = registry.find("balance")            # somewhere else, later
    """

    def __init__(self, url: str, *, data: str = "") -> None:
        """Connects on first use.

        Args:
          url: of the control server.
          data: of the data server, with its password; empty takes the entries' `redis_data`, to
            which no password is sent: others may write it.
        """
        self.url, self._data = url, data
        self._redis = connect(url, timeout_s=REPLY_TIMEOUT_S)

    def put(self, entry: RunEntry) -> None:
        """Registers a run; one that goes on has no end any more."""
        one_server = entry.redis_data == public_url(self.url)
        redis_data = "" if one_server else entry.redis_data
        self._write(replace(entry, redis_data=redis_data, ended="", text=""))

    def end(self, run_id: str, how: str, text: str = "") -> None:
        """Records how a run ended, with its last numbers; a forgotten run stays forgotten."""
        assert how in ENDS[1:], how
        entry = self.get(run_id)
        if entry is None:
            return
        with contextlib.closing(self.control(run_id)) as control:
            numbers = newest_numbers(control.metrics())
        self._write(
            replace(
                entry, ended=how, text=text,
                frames=int(numbers.get("frames", entry.frames)),
                updates=int(numbers.get("updates", entry.updates)),
                return_mean=numbers.get("eval/return_mean", entry.return_mean),
            )
        )  # fmt: skip

    def listing(self) -> Listing:
        """Every run, the damaged ones by their ids."""
        rows = as_list(self._redis.call("HGETALL", RUNS))
        entries, unreadable = [], []
        for key, data in zip(rows[0::2], rows[1::2], strict=True):
            run_id = as_bytes(key).decode(errors="backslashreplace")
            entry = decode(run_id, as_bytes(data))
            if entry is None:
                unreadable.append(run_id)
            else:
                entries.append(entry)
        order = sorted(entries, key=lambda entry: (entry.created_s, entry.run_id))
        return Listing(entries=order, unreadable=sorted(unreadable))

    def entries(self) -> list[RunEntry]:
        """Every readable run, oldest first."""
        return self.listing().entries

    def get(self, run_id: str) -> RunEntry | None:
        """The run of this id; None if there is none, or an unreadable one."""
        data = self._redis.call("HGET", RUNS, run_id)
        return None if data is None else decode(run_id, as_bytes(data))

    def find(self, name: str) -> RunEntry:
        """The newest run of this name, or the one with this id.

        Raises:
          RunError: there is none; the nearest match is named.
        """
        listing = self.listing()
        for entry in reversed(listing.entries):
            if name in (entry.name, entry.run_id):
                return entry
        if name in listing.unreadable:
            raise RunError(
                f"run {name!r} in {self.shown_url} is unreadable: damaged, or of a newer version; "
                "free what it holds with: dreamfleet runs rm"
            )
        known = {entry.name for entry in listing.entries}
        hint = nearest(name, known) if known else "there is none yet"
        raise RunError(f"no run {name!r} in {self.shown_url}; {hint}")

    def control(self, run_id: str) -> RedisControl:
        """The control plane of one run; the caller closes it."""
        return RedisControl(self.url, run_id, timeout_s=REPLY_TIMEOUT_S)

    def size(self, run_id: str) -> int:
        """What the run holds on its servers, as Redis accounts for it [bytes]."""
        total = 0
        with self._servers(run_id) as servers:
            for server in servers:
                # A set: SCAN may name a key twice.
                keys = {key for portion in _scan(server, run_id) for key in portion}
                total += sum(_num_bytes(server, key) for key in keys)
        return total

    def remove(self, run_id: str) -> int:
        """Frees everything the run holds and forgets it; returns what that was [bytes]."""
        total = 0
        with self._servers(run_id) as servers:
            for server in servers:
                for keys in _scan(server, run_id):
                    total += sum(_num_bytes(server, key) for key in keys)
                    server.call("UNLINK", *keys)
        # Last: an interrupted removal is still listed, and can be repeated.
        self._redis.call("HDEL", RUNS, run_id)
        return total

    @property
    def shown_url(self) -> str:
        """For people."""
        return self._redis.shown_url

    def close(self) -> None:
        """Releases the connection."""
        self._redis.close()

    def _write(self, entry: RunEntry) -> None:
        self._redis.call("HSET", RUNS, entry.run_id, encode(entry))

    @contextlib.contextmanager
    def _servers(self, run_id: str) -> Iterator[list[RedisConnection]]:
        """Where the run's keys lie; nowhere if its id could match another run's."""
        if not RUN_ID.fullmatch(run_id):
            yield []
            return
        entry = self.get(run_id)
        url = self._data or (entry.redis_data if entry else "")
        if not url or url == self.url:
            yield [self._redis]
            return
        with contextlib.closing(connect(url, timeout_s=REPLY_TIMEOUT_S)) as other:
            try:
                other.call("PING")
            except (Unavailable, UserError) as error:
                raise RunError(
                    f"run {run_id!r} keeps its Chunks elsewhere: {error}; say where and with which "
                    "password with --redis-data URL"
                ) from error
            yield [other, self._redis]


def _scan(server: RedisConnection, run_id: str) -> Iterator[list[bytes]]:
    """Every key of the run, in portions."""
    cursor = b"0"
    while True:
        reply = server.call("SCAN", cursor, "MATCH", Keys(run_id).pattern, "COUNT", _SCAN_COUNT)
        position, found = as_list(reply)
        if keys := [as_bytes(key) for key in as_list(found)]:
            yield keys
        cursor = as_bytes(position)
        if cursor == b"0":
            return


def _num_bytes(server: RedisConnection, key: bytes) -> int:
    size = server.call("MEMORY", "USAGE", key)
    return 0 if size is None else as_int(size)  # None: it expired meanwhile
