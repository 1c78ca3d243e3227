"""Runs of a Redis, from any machine: registry, control, history, policy channel."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from deploy.dashboard.curve import Curve
from deploy.dashboard.plain import text_of
from deploy.dashboard.source import DreamFile, Glance, RunCard, look_at
from deploy.place import REPLY_TIMEOUT_S, RedisUrls
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.status import is_supervised, newest_numbers
from system.channel.redis import RedisChannel
from system.clock import Clock, Every
from system.control.protocol import Control, Lease, RememberedPoint
from system.control.redis import RedisControl
from system.dream_codec import decode_dream
from system.errors import CheckpointError, RejectedChunk, RunError
from system.redis_client import without_password
from system.types import Snapshot

MAX_RUNS = 64
"""The newest; the rest is old."""
HISTORY_S = 5.0
"""Between two looks for new points of a curve [s]."""
KEPT_DREAMS = 6
"""Of each run, the newest."""


class RemoteSource:
    """One run of a Redis."""

    def __init__(self, url: str, entry: RunEntry, clock: Clock) -> None:
        """Connects on first use."""
        self.run_id, self.name, self.config = entry.run_id, entry.name, entry.config
        self.scalable = True
        self.curve = Curve()
        self.entry = entry
        """As the registry has it now."""
        self._url = url
        self._clock, self._history_due = clock, Every(HISTORY_S)
        self._control = RedisControl(url, entry.run_id, timeout_s=REPLY_TIMEOUT_S)
        self._cursor = ""
        self._dreams: dict[int, tuple[float, bytes]] = {}

    def glance(self, cursor: str) -> Glance:
        """Looks once."""
        look = look_at(self._control, cursor)
        if self._history_due(self._clock.now()):
            self._remember(self._control.history(self._cursor))
        alive = is_supervised(look.leases)
        return Glance(
            alive=alive,
            ended="" if alive else _ended(self.entry),
            look=look,
            numbers=self.entry.numbers | newest_numbers(look.metrics),
        )

    def leases(self) -> list[Lease]:
        """Who lives."""
        return self._control.leases()

    def dreams(self) -> list[DreamFile]:
        """Those seen so far: Redis holds the newest alone."""
        return [DreamFile(update=update, time_s=time_s)
                for update, (time_s, _) in list(self._dreams.items())]  # fmt: skip

    def dream(self, update: int | None) -> bytes | None:
        """The newest, or one seen before."""
        if update is not None:
            return self._dreams.get(update, (0.0, None))[1]
        data = self._control.blob("dream")
        if data is not None:
            report = decode_dream(data)
            self._dreams[report.update] = (report.time_s, data)
            while len(self._dreams) > KEPT_DREAMS:
                self._dreams.pop(next(iter(self._dreams)))
        return data

    def control(self, verb: str) -> Control:
        """Of a running run."""
        if not is_supervised(self._control.leases()):
            raise RunError(f"run {self.name!r} is not running, so there is nothing to {verb}")
        return self._control

    def policy(self) -> Snapshot:
        """Its newest broadcast."""
        with contextlib.closing(RedisChannel(self._url, self.run_id)) as channel:
            snapshot = channel.newer_than(0, 0)
        if snapshot is None:
            raise CheckpointError(f"run {self.name!r} has broadcast no policy that is still kept")
        return snapshot

    def close(self) -> None:
        """Releases the connection."""
        self._control.close()

    def _remember(self, points: list[RememberedPoint]) -> None:
        for one in points:
            self._cursor = one.cursor
            values = one.point.values
            line: dict[str, Any] = {**values, "time_s": values.get("elapsed_s", math.nan)}
            self.curve.take([line], time_s=one.point.time_s)


class RemoteRuns:
    """Every run of one Redis, or one of them."""

    def __init__(self, urls: RedisUrls, clock: Clock, *, only: str | None = None) -> None:
        """Connects on first use.

        Args:
          urls: the servers, with a password that may change the wish.
          clock: for pauses.
          only: name or id of the only run to show; None shows all.
        """
        self.where = without_password(urls.control)
        self._url, self._clock, self._only = urls.control, clock, only
        self._registry = Registry(urls.control)
        self._known: dict[str, RemoteSource] = {}

    def cards(self) -> list[RunCard]:
        """The list, oldest first."""
        self._look()
        cards = []
        for source in list(self._known.values()):
            with contextlib.suppress(RejectedChunk):
                cards.append(_card(source))
        return cards

    def open(self, run_id: str) -> RemoteSource | None:
        """One of them."""
        if run_id not in self._known:
            self._look()
        return self._known.get(run_id)

    def close(self) -> None:
        """Releases the connections."""
        for source in list(self._known.values()):
            source.close()
        self._registry.close()

    def _look(self) -> None:
        entries = [
            entry
            for entry in self._registry.entries()
            if self._only is None or self._only in (entry.name, entry.run_id)
        ][-MAX_RUNS:]
        for entry in entries:
            if entry.run_id in self._known:
                self._known[entry.run_id].entry = entry
            else:
                self._known[entry.run_id] = RemoteSource(self._url, entry, self._clock)
        for run_id in set(self._known) - {entry.run_id for entry in entries}:
            self._known.pop(run_id).close()


def _card(source: RemoteSource) -> RunCard:
    entry = source.entry
    # Its end is told when it rests; only who seems to run is asked.
    leases = [] if entry.ended else source.leases()
    alive = is_supervised(leases)
    points = source.curve.evaluations
    return RunCard(
        run_id=entry.run_id,
        name=entry.name,
        env=text_of(entry.config, "env", "name"),
        phase="running" if alive else _ended(entry),
        alive=alive,
        frames=entry.frames or None,
        return_mean=points[-1].mean if points else entry.return_mean,
        seen_s=max((lease.time_s for lease in leases), default=None),
    )


def _ended(entry: RunEntry) -> str:
    return f"{entry.ended}: {entry.text}" if entry.text else entry.ended or "lost"
