"""Control and data on servers of their own: a full, dead or wiped one loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.place import Place, RedisUrls, redis_place
from deploy.redis_server import EmbeddedRedis
from system.clock import ManualClock
from system.codec import encode_chunk
from system.control.protocol import Event, Lease, ProcessMetrics
from system.errors import Fenced, Unavailable
from system.log.writer import SlotWriter
from system.redis_client import connect
from system.types import EntryId, Snapshot
from tests.log_for_tests import ModelLearner, check_ledger, make_writer, small_chunk
from tests.waiting import wait_until

DATA_BYTES = 16 * 1024**2
WHO = "host:1"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "control", max_memory_bytes=64 * 1024**2)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "data", max_memory_bytes=DATA_BYTES)
    server.start()
    yield server
    server.stop()


@dataclass
class Run:
    """One actor's writer and a learner, each with connections of its own."""

    place: Place
    learner: ModelLearner
    clock: ManualClock = field(default_factory=ManualClock)
    sealed: dict[tuple[str, EntryId], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.learner.turn()
        self.writer = self.new_writer(WHO)
        assert self.writer.try_claim() == 1
        self.learner.turn()

    def new_writer(self, who: str) -> SlotWriter:
        return make_writer(self.place.log.slot_log(0), self.clock, who=who, spool_chunks=100)

    def offer(self, count: int) -> None:
        for _ in range(count):
            entry_id = EntryId(1, len(self.sealed) + 1)
            chunk = small_chunk(entry_id, who=WHO)
            self.writer.offer(chunk)
            self.sealed[WHO, entry_id] = encode_chunk(chunk)

    def write(self, ticks: int) -> None:
        for _ in range(ticks):
            self.clock.sleep(1.1)  # longer than any pause
            self.writer.tick()

    def settle(self) -> None:
        """Both go on until all is durable, stepping over what cannot be reached."""
        for _ in range(60):
            with contextlib.suppress(Unavailable):
                self.learner.turn()
            self.write(2)
        assert self.writer.settled
        rows = self.learner.durable.ledger[0]
        check_ledger(rows, self.sealed)
        assert len(rows) == len(self.sealed)


@pytest.fixture
def run(control: EmbeddedRedis, data: EmbeddedRedis) -> Run:
    place = redis_place(RedisUrls(control=control.url, data=data.url), "r")
    return Run(place, ModelLearner(place.log.reader(), credit=50))


def fill_with_junk(server: EmbeddedRedis) -> list[str]:
    """Well beyond its limit, so that no freed buffer makes room again; returns the keys."""
    connection, names = connect(server.url), []
    with contextlib.suppress(Unavailable):
        while len(names) < 5000:
            names.append(f"junk:{len(names)}")
            connection.call("SET", names[-1], b"z" * (1 << 16))
    connection.call("DEL", *names[:4])
    connection.call("SETRANGE", names[0], 1 << 21, "z")
    connection.close()
    return names


def test_a_full_data_server_stops_nothing_but_chunks(run: Run, data: EmbeddedRedis) -> None:
    run.offer(3)
    run.write(6)
    assert run.writer.drained
    assert not run.writer.settled
    junk = fill_with_junk(data)
    run.offer(2)
    run.write(6)
    assert run.writer.pending == 2
    with pytest.raises(Unavailable, match="is full"):
        run.place.log.slot_log(0).append(EntryId(1, 9), b"x" * 1000, create=False)

    run.learner.turn()  # reads, and tells what is durable and granted
    run.learner.trim()
    run.write(1)
    assert run.writer.retained_bytes == 0
    lease = Lease(role="actor", slot=0, incarnation=1, who=WHO, doing="acting", time_s=1.0)
    run.place.control.renew(lease, ttl_s=60)
    run.place.control.put_metrics(ProcessMetrics(role="actor", slot=0, time_s=1.0), ttl_s=60)
    run.place.control.record(Event(time_s=1.0, role="actor", slot=0, kind="k", text="t"))
    assert run.place.control.change_desired(actors=4).actors == 4
    assert run.place.control.leases() == [lease]
    policy = Snapshot(
        epoch=1, version=1, update=1, agent_steps=1, elapsed_s=1.0, model_digest="m", time_s=1.0,
        weights=b"w" * 100_000,
    )  # fmt: skip
    run.place.channel.publish(policy)
    assert run.place.channel.newer_than(0, 0) == policy

    run.offer(1)
    run.write(2)
    assert run.writer.pending == 3
    connect(data.url).call("DEL", *junk)
    run.settle()


def test_a_full_control_server_holds_up_and_loses_nothing(run: Run, control: EmbeddedRedis) -> None:
    connection = connect(control.url)
    connection.call("CONFIG", "SET", "maxmemory", 1)
    run.offer(3)
    run.write(6)
    with pytest.raises(Unavailable, match="is full"):
        run.learner.turn()
    connection.call("CONFIG", "SET", "maxmemory", 0)
    run.settle()


def kill(server: EmbeddedRedis) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.alive(), "died")


def kill_and_wipe(server: EmbeddedRedis) -> None:
    kill(server)
    shutil.rmtree(server.folder / "appendonlydir")


def flush(server: EmbeddedRedis) -> None:
    connect(server.url).call("FLUSHALL")


@pytest.mark.parametrize("role", ["control", "data"])
@pytest.mark.parametrize("disaster", [kill, kill_and_wipe, flush])
def test_a_server_that_dies_or_forgets_costs_nothing(
    run: Run,
    request: pytest.FixtureRequest,
    role: str,
    disaster: Callable[[EmbeddedRedis], None],
) -> None:
    server: EmbeddedRedis = request.getfixturevalue(role)
    run.offer(3)
    run.write(6)
    run.learner.turn()
    run.offer(3)
    run.write(6)
    assert run.writer.drained  # three of them read by nobody
    disaster(server)
    run.offer(2)
    run.write(4)
    if disaster is not flush:
        assert run.writer.pending == 2
        server.start()
    run.settle()
    assert run.writer.counters.reappended == (3 if (role, disaster) in _LOST else 0)


_LOST = [("data", kill_and_wipe), ("data", flush)]
"""What makes the writer send again: three Chunks were received and not durable."""


def test_a_lost_data_connection_surfaces_although_control_answers(
    run: Run, data: EmbeddedRedis
) -> None:
    end = run.place.log.slot_log(0)
    assert end.notice() is not None
    assert end.last_id() == EntryId(1, 0)
    kill(data)
    data.restart()
    assert end.notice() is not None
    with pytest.raises(Unavailable):
        end.append(EntryId(1, 1), b"", create=False)


def test_a_forgotten_process_does_not_rebuild_a_wiped_stream(run: Run, data: EmbeddedRedis) -> None:
    """Control still knows who holds the slot."""
    run.write(1)
    holder = run.new_writer("host:2")
    assert holder.try_claim() == 2
    run.learner.turn()
    flush(data)
    run.offer(1)
    with pytest.raises(Fenced, match="incarnation 2"):
        run.write(4)
    assert run.place.log.slot_log(0).last_id() is None
    for _ in range(4):
        run.clock.sleep(1.1)
        holder.tick()
    assert run.place.log.slot_log(0).last_id() == EntryId(2, 0)
