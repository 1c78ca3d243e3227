"""The log over a real server that is killed, wiped and reached through a bad network."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.redis_server import EmbeddedRedis
from system.clock import SystemClock
from system.codec import encode_chunk
from system.errors import Fenced, Unavailable
from system.keys import Keys
from system.log.redis import RedisLog
from system.redis_client import connect
from system.tick import Wait
from system.types import EntryId
from tests.integration.proxy import FaultyProxy
from tests.log_for_tests import ModelLearner, check_ledger, make_writer, small_chunk
from tests.waiting import wait_until

NUM_SLOTS = 3
CHAOS_S = 8.0


class Life:
    """One actor process in a slot."""

    def __init__(self, log: RedisLog, slot: int, number: int) -> None:
        self.who, self.slot = f"host:{slot}.{number}", slot
        self.sealed: dict[EntryId, bytes] = {}
        self.fenced = False
        self.writer = make_writer(
            log.slot_log(slot), SystemClock(), slot=slot, who=self.who, spool_chunks=6
        )

    def turn(self, *, offer: bool) -> float:
        """Offers if allowed and ticks; how long to wait [s]."""
        if self.writer.incarnation is None:
            claimed = self.writer.try_claim()
            return claimed.seconds if isinstance(claimed, Wait) else 0.0
        if offer and not self.writer.full:
            entry_id = EntryId(self.writer.incarnation, len(self.sealed) + 1)
            chunk = small_chunk(entry_id, slot=self.slot, who=self.who, num_steps=50)
            self.writer.offer(chunk)
            self.sealed[entry_id] = encode_chunk(chunk)
        try:
            came_to = self.writer.tick()
        except Fenced:
            self.fenced = True
            return 0.0
        return came_to.seconds if isinstance(came_to, Wait) else 0.0


class Actor(threading.Thread):
    """A slot: its living process, and those that are only thought to be dead."""

    def __init__(self, log: RedisLog, slot: int) -> None:
        super().__init__(daemon=True)
        self.log, self.slot = log, slot
        self.lives = [Life(log, slot, 0)]
        self.zombies: list[Life] = []
        self.restart_wanted = threading.Event()
        self.acting = True
        self.stopped = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped:
                self.turn()
        except BaseException as error:
            self.error = error
            raise

    def turn(self) -> None:
        if self.restart_wanted.is_set() or self.lives[-1].fenced:
            self.zombies = [] if self.lives[-1].fenced else [self.lives[-1]]
            self.lives.append(Life(self.log, self.slot, len(self.lives)))
            self.restart_wanted.clear()
        for zombie in self.zombies:
            if not zombie.fenced:
                zombie.turn(offer=self.acting)
        time.sleep(min(0.005, self.lives[-1].turn(offer=self.acting)))

    @property
    def settled(self) -> bool:
        writer = self.lives[-1].writer
        return writer.incarnation is not None and writer.drained and writer.settled


class Learner(threading.Thread):
    """Turns a ModelLearner; trims; restarts on wish."""

    def __init__(self, log: RedisLog) -> None:
        super().__init__(daemon=True)
        self.model = ModelLearner(log.reader(), credit=20)
        self.restart_wanted = threading.Event()
        self.stopped = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped:
                with contextlib.suppress(Unavailable):
                    self.turn()
                time.sleep(0.005)
        except BaseException as error:
            self.error = error
            raise

    def turn(self) -> None:
        if self.restart_wanted.is_set():
            self.model.restart()
            self.restart_wanted.clear()
        self.model.read()
        self.model.publish()
        self.model.commit()
        self.model.trim()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    own = EmbeddedRedis(tmp_path / "redis", max_memory_bytes=256 * 1024**2)
    own.start()
    yield own
    own.stop()


def kill(server: EmbeddedRedis) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.alive():
        time.sleep(0.01)


def kill_and_restart(server: EmbeddedRedis) -> None:
    kill(server)
    server.restart()


def kill_and_lose_everything(server: EmbeddedRedis) -> None:
    kill(server)
    shutil.rmtree(server.folder / "appendonlydir")
    server.restart()


def flush(server: EmbeddedRedis) -> None:
    connection = connect(server.url)
    connection.call("FLUSHALL")
    connection.close()


def cause_disasters(servers: list[EmbeddedRedis], learner: Learner, actors: list[Actor]) -> None:
    chance = random.Random(2)
    disasters: list[Callable[[], object]] = [
        lambda: kill_and_restart(chance.choice(servers)),
        lambda: kill_and_lose_everything(chance.choice(servers)),
        lambda: flush(chance.choice(servers)),
        learner.restart_wanted.set,
        lambda: chance.choice(actors).restart_wanted.set(),
        lambda: chance.choice(actors).restart_wanted.set(),
    ]
    end_s = time.monotonic() + CHAOS_S
    while time.monotonic() < end_s:
        for disaster in chance.sample(disasters, len(disasters)):
            time.sleep(chance.uniform(0.05, 0.4))
            disaster()


@pytest.fixture
def second_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    own = EmbeddedRedis(tmp_path / "data", max_memory_bytes=256 * 1024**2)
    own.start()
    yield own
    own.stop()


def test_nothing_is_lost_or_doubled_by_a_bad_network_and_dying_servers(
    server: EmbeddedRedis, tmp_path: Path
) -> None:
    check_chaos([server], tmp_path)


@pytest.mark.slow
def test_nor_with_control_and_data_on_two_servers(
    server: EmbeddedRedis, second_server: EmbeddedRedis, tmp_path: Path
) -> None:
    check_chaos([server, second_server], tmp_path)


def check_chaos(servers: list[EmbeddedRedis], tmp_path: Path) -> None:
    """The first server is control, the last one data."""
    proxies = [
        FaultyProxy(
            tmp_path / f"proxy{number}.sock",
            one.folder / "redis.sock",
            cut_chance=0.01,
            seed=number + 1,
        )
        for number, one in enumerate(servers)
    ]
    learner = Learner(
        RedisLog(url=servers[-1].url, control_url=servers[0].url, run="r", timeout_s=1.0)
    )
    fleet = RedisLog(url=proxies[-1].url, control_url=proxies[0].url, run="r", timeout_s=1.0)
    actors = [Actor(fleet, slot) for slot in range(NUM_SLOTS)]
    threads: list[Learner | Actor] = [learner, *actors]
    for thread in threads:
        thread.start()

    try:
        cause_disasters(servers, learner, actors)
        wait_until(lambda: enough_happened(learner, proxies) or any_error(threads), "got through")
        for proxy in proxies:
            proxy.cut_chance = 0.0
        for actor in actors:
            actor.acting = False
        wait_until(lambda: all(each.settled for each in actors) or any_error(threads), "settled")
    finally:
        for thread in threads:
            thread.stopped = True
        for thread in threads:
            thread.join()
        for proxy in proxies:
            proxy.close()

    assert [thread.error for thread in threads] == [None] * len(threads)
    for actor in actors:
        check_actor(actor, learner.model.durable.ledger[actor.slot])


def any_error(threads: list[Learner | Actor]) -> bool:
    return any(thread.error is not None for thread in threads)


def enough_happened(learner: Learner, proxies: list[FaultyProxy]) -> bool:
    """Acting goes on until much has arrived, and something was lost on every way."""
    ledger = learner.model.durable.ledger
    arrived = all(len(ledger.get(slot, [])) > 20 for slot in range(NUM_SLOTS))
    return arrived and all(proxy.num_cuts > 0 for proxy in proxies)


def check_actor(actor: Actor, rows: list[tuple[EntryId, bytes]]) -> None:
    sealed = {(life.who, name): data for life in actor.lives for name, data in life.sealed.items()}
    check_ledger(rows, sealed)
    durable = dict(rows)
    for entry_id, payload in actor.lives[-1].sealed.items():
        assert durable[entry_id] == payload


def test_a_lost_connection_surfaces_before_the_next_append(server: EmbeddedRedis) -> None:
    """Otherwise an append could follow a tail that the restarted server no longer has."""
    log = RedisLog(url=server.url, run="r")
    end = log.slot_log(0)
    end.append(EntryId(1, 0), b"", create=True)
    end.append(EntryId(1, 1), b"", create=False)
    connection = connect(server.url)
    kill(server)
    server.restart()
    connection.call("DEL", Keys("r").log(0))
    log.slot_log(0).append(EntryId(1, 0), b"", create=True)  # the tail is lost
    with pytest.raises(Unavailable):
        end.append(EntryId(1, 2), b"", create=False)
    assert end.last_id() == EntryId(1, 0)


def test_a_connection_may_be_lost_any_number_of_times(tmp_path: Path) -> None:
    connection = connect(f"unix://{tmp_path}/redis.sock")
    for _ in range(300):
        with pytest.raises(Unavailable, match="connecting to"):
            connection.call("PING")


def test_the_embedded_server_is_adopted_restarted_and_stopped(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 40)
    for folder in (tmp_path / "short", long):
        first = EmbeddedRedis(folder, max_memory_bytes=64 * 1024**2)
        assert not first.alive()
        assert first.pid is None
        first.start()
        connection = connect(first.url)
        connection.call("SET", "control", "kept")
        second = EmbeddedRedis(folder, max_memory_bytes=64 * 1024**2)
        second.start()
        assert second.pid == first.pid == int(first.pid_path.read_text())
        assert folder.stat().st_mode & 0o777 == 0o700
        before = first.pid
        second.restart()
        assert first.pid == second.pid != before
        with pytest.raises(Unavailable):
            connection.call("GET", "control")
        assert connection.call("GET", "control") == b"kept"
        assert connection.call("CONFIG", "GET", "maxmemory-policy") == [
            b"maxmemory-policy",
            b"noeviction",
        ]
        second.stop()
        second.stop()
        assert not first.alive()
        assert not first.pid_path.exists()
