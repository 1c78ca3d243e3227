"""Reads a Redis again and again and keeps the last that was read, so that no scrape waits for it.

::

    every second:  registry -> leases, snapshots, wish, new events -> RunMerge -> totals saved
    a scrape:      reader.reading, without waiting

Totals are written to Redis before they are shown: an exporter that is killed and starts again never
shows less. If Redis refuses to save them (it is full), they are shown all the same. What is lost:
with a wiped Redis the totals, if the exporter dies too; counts of a life that began and ended while
no exporter looked; events beyond the newest thousand between two looks.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from deploy.exporter import saved
from deploy.exporter.merge import Look, RunMerge, RunView
from deploy.place import REPLY_TIMEOUT_S, RedisUrls
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from system.clock import Clock, Every
from system.control.redis import RedisControl
from system.errors import DreamfleetError, RejectedChunk
from system.keys import Keys
from system.redis_client import RedisConnection, as_bytes, connect

INTERVAL_S = 1.0
LIST_S = 2.0
"""Between two looks at the list of runs [s]."""
REST_S = 10.0
"""Between two looks at a run where nobody lives [s]."""
SAVED_MS = 30 * 24 * 3600 * 1000
"""How long Redis keeps the totals of a run where nothing happens [ms]."""
MAX_RUNS = 64
"""The newest; every run is a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One server as it answered last."""

    name: str
    """`control` or `data`."""
    up: bool
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    """0: no limit. None: it does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All that is known at one moment."""

    runs: dict[str, RunView] = field(default_factory=dict)
    """Run id -> how it stands."""
    entries: dict[str, RunEntry] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    read_s: float | None = None
    """Unix time of the last read that succeeded [s]; None before the first."""
    counts: dict[str, int] = field(default_factory=dict)
    """Reads and saves so far, `<what>_<outcome>`."""
    trouble: str = ""
    """Why the last read failed; empty if it did not."""


class _Run:
    """One run's control, and what was merged of it."""

    def __init__(self, url: str, run_id: str) -> None:
        self.control = RedisControl(url, run_id, timeout_s=REPLY_TIMEOUT_S)
        self.key = Keys(run_id).totals
        self.merge: RunMerge | None = None
        self.saved = b""
        self.rest, self.save_again = Every(REST_S), Every(REST_S)


class Reader:
    """The only one who asks Redis.

    The loop that uses it::

        while not stopping:
            reader.read()               # never raises because of Redis
            clock.sleep(INTERVAL_S)
    """

    def __init__(self, urls: RedisUrls, run: str | None, clock: Clock) -> None:
        """Connects on first use.

        Args:
          urls: the servers, with the exporter's password.
          run: name or id of the only run to look at; None looks at all.
          clock: for pauses and timestamps.
        """
        self._urls, self._name, self._clock = urls, run, clock
        self._redis = connect(urls.control, timeout_s=REPLY_TIMEOUT_S)
        self._data = (
            None if urls.data == urls.control else connect(urls.data, timeout_s=REPLY_TIMEOUT_S)
        )
        self._registry = Registry(urls.control)
        self._list_due = Every(LIST_S)
        self._entries: dict[str, RunEntry] = {}
        self._runs: dict[str, _Run] = {}
        self._views: dict[str, RunView] = {}
        self._counts = dict.fromkeys(("reads_ok", "reads_failed", "saves_ok", "saves_failed"), 0)
        self.reading = Reading(counts=dict(self._counts))
        """Replaced as a whole: any thread may take it."""

    def read(self) -> None:
        """Looks once at everything; while Redis is away, what was read before stays."""
        trouble, read_s = "", self.reading.read_s
        try:
            self._list()
            trouble = "; ".join(filter(None, map(self._looked, self._entries)))
            read_s = self._clock.wall()
        except DreamfleetError as error:
            trouble = str(error)
        self._counts["reads_failed" if trouble else "reads_ok"] += 1
        servers = [_asked("control", self._redis)]
        if self._data is not None:
            servers.append(_asked("data", self._data))
        self.reading = Reading(
            runs=dict(self._views), entries=dict(self._entries), servers=servers, read_s=read_s,
            counts=dict(self._counts), trouble=trouble,
        )  # fmt: skip

    def close(self) -> None:
        """Releases the connections."""
        for run in self._runs.values():
            run.control.close()
        for connection in (self._redis, self._data, self._registry):
            if connection is not None:
                connection.close()

    def _list(self) -> None:
        if not self._list_due(self._clock.now()):
            return
        entries = [entry for entry in self._registry.entries() if self._is_wanted(entry)]
        # A wiped store has forgotten its runs until their supervisors speak: we have not.
        living = {run_id: self._entries[run_id] for run_id in self._views}
        self._entries = {entry.run_id: entry for entry in entries[-MAX_RUNS:]} | living
        for run_id in set(self._runs) - set(self._entries):
            self._runs.pop(run_id).control.close()

    def _is_wanted(self, entry: RunEntry) -> bool:
        return self._name is None or self._name in (entry.name, entry.run_id)

    def _looked(self, run_id: str) -> str:
        """Looks at one run; what is wrong with it must not hide the others."""
        try:
            self._look(run_id)
        except RejectedChunk as error:
            return f"{run_id}: {error}"
        return ""

    def _look(self, run_id: str) -> None:
        run = self._runs.setdefault(run_id, _Run(self._urls.control, run_id))
        if run_id not in self._views and not run.rest(self._clock.now()):
            return
        if run.merge is None:
            run.merge, run.saved = self._restored(run.key)
        control = run.control
        look = Look(
            # Leases first: whoever dies meanwhile has said at least what its lease vouches for.
            leases=control.leases(),
            metrics=control.metrics(),
            events=control.events_after(run.merge.cursor),
            desired=control.desired(),
        )
        run.merge.take(look, self._clock.wall())
        if run.merge.at_rest:
            self._views.pop(run_id, None)
            return
        self._save(run_id, run)
        self._views[run_id] = run.merge.view()

    def _restored(self, key: str) -> tuple[RunMerge, bytes]:
        data = self._redis.call("GET", key)
        with contextlib.suppress(RejectedChunk):
            if data is not None:
                return saved.decode(as_bytes(data)), as_bytes(data)
        return RunMerge(), b""

    def _save(self, run_id: str, run: _Run) -> None:
        """A full server, or an older user without this right, costs only what is kept.

        Of a run that was just removed nothing is kept: all it held is freed.
        """
        assert run.merge is not None
        data = saved.encode(run.merge)
        again = run.save_again(self._clock.now())  # a wiped store has forgotten them
        if data == run.saved and not again:
            return
        try:
            if self._registry.get(run_id) is None:
                return
            self._redis.call("SET", run.key, data, "PX", SAVED_MS)
        except DreamfleetError:
            self._counts["saves_failed"] += 1
            return
        run.saved = data
        self._counts["saves_ok"] += 1


def _asked(name: str, connection: RedisConnection) -> Server:
    """How one server stands."""
    try:
        connection.call("PING")
    except DreamfleetError:
        return Server(name=name, up=False)
    numbers: dict[str, int] = {}
    with contextlib.suppress(DreamfleetError):
        for line in as_bytes(connection.call("INFO", "memory")).decode().splitlines():
            word, _, value = line.partition(":")
            if word in ("used_memory", "maxmemory"):
                numbers[word] = int(value)
    return Server(
        name=name, up=True, memory_bytes=numbers.get("used_memory"),
        memory_max_bytes=numbers.get("maxmemory"),
    )  # fmt: skip
