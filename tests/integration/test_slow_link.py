"""A robot's writer over a slow link: it claims once, and whoever acts never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from deploy.redis_server import EmbeddedRedis
from deploy.sender import SenderThread, UnlockedLog
from system.clock import SystemClock
from system.codec import encode_chunk
from system.errors import Fenced
from system.log.disk_spool import DiskShelf
from system.log.earlier import UNLIMITED, EarlierLife
from system.log.redis import RedisLog
from system.log.writer import NOTICE_RARITY, PROBE_INTERVAL_S, SlotWriter
from system.types import EntryId
from tests.integration.proxy import FaultyProxy
from tests.log_for_tests import ModelLearner, check_ledger, make_writer, small_chunk
from tests.waiting import wait_until

SLOT, WHO = 1000, "me"


class Learning(threading.Thread):
    """A learner near the server."""

    def __init__(self, log: RedisLog) -> None:
        super().__init__(daemon=True)
        self.model, self.over = ModelLearner(log.reader(), credit=20), False
        self.turning = threading.Lock()
        self.model.publish()

    def run(self) -> None:
        while not self.over:
            with self.turning:
                self.model.turn()
            time.sleep(0.01)

    def end(self) -> None:
        """Whatever was raised in the thread, pytest makes an error of this test."""
        self.over = True
        self.join()

    def rows(self) -> list[tuple[EntryId, bytes]]:
        """What is durable in the end."""
        self.end()
        self.model.turn()
        return self.model.durable.ledger[SLOT]


@pytest.fixture
def log(redis_server: EmbeddedRedis, run_name: str) -> RedisLog:
    return RedisLog(url=redis_server.url, run=run_name)


@pytest.fixture
def learner(log: RedisLog) -> Iterator[Learning]:
    learner = Learning(log)
    learner.start()
    yield learner
    learner.end()


class Robot:
    """What acts: it seals Chunks and offers them."""

    def __init__(self, log: RedisLog, folder: Path) -> None:
        self.shelf = DiskShelf(folder, slot=SLOT, max_bytes=1 << 30, memory_bytes=1 << 20)
        free, clock = UnlockedLog(log.slot_log(SLOT)), SystemClock()
        earlier = EarlierLife(free, self.shelf, slot=SLOT, clock=clock)
        inner = make_writer(
            free, clock, slot=SLOT, who=WHO, shelf=self.shelf, spool_chunks=UNLIMITED
        )
        self.writer: SlotWriter = SenderThread(inner, earlier, free.lock).as_writer()
        self.sealed: dict[tuple[str, EntryId], bytes] = {}

    def claim(self) -> int:
        wait_until(lambda: isinstance(self.writer.try_claim(), int), "claimed")
        incarnation = self.writer.try_claim()
        assert isinstance(incarnation, int)
        return incarnation

    def offer(self, incarnation: int, sequence: int) -> None:
        chunk = small_chunk(EntryId(incarnation, sequence), slot=SLOT, who=WHO)
        self.writer.offer(chunk)
        self.sealed[WHO, chunk.entry_id] = encode_chunk(chunk)

    def close(self) -> None:
        self.writer.close()
        self.shelf.close()


@contextmanager
def slow_link(
    server: EmbeddedRedis, folder: Path, round_trip_s: float, cut_chance: float = 0.0
) -> Iterator[FaultyProxy]:
    with closing(
        FaultyProxy(
            folder / "proxy.sock", server.folder / "redis.sock", cut_chance=cut_chance,
            seed=1, delay_s=round_trip_s / 2,
        )
    ) as proxy:  # fmt: skip
        yield proxy


@pytest.mark.parametrize("round_trip_s", [0.03, 0.06, 0.2])
def test_it_claims_once_and_sends_everything_once(
    redis_server: EmbeddedRedis, learner: Learning, run_name: str, tmp_path: Path,
    round_trip_s: float,
) -> None:  # fmt: skip
    with slow_link(redis_server, tmp_path, round_trip_s) as proxy:
        robot = Robot(RedisLog(url=proxy.url, run=run_name), tmp_path / "spool")
        assert robot.claim() == 1, "its first claim was not late, only slow"
        robot.offer(1, 1)
        wait_until(lambda: robot.writer.settled, "got credit")
        before, since_s = proxy.num_pieces, time.monotonic()
        with learner.turning:  # so nothing becomes durable
            for sequence in range(2, 10):
                robot.offer(1, sequence)
            assert robot.shelf.num_chunks == 8, "on disk, whatever the network does"
        wait_until(lambda: robot.writer.drained, "drained")
        took_s, round_trips = time.monotonic() - since_s, (proxy.num_pieces - before) / 2
        looks = took_s / (NOTICE_RARITY * round_trip_s) + took_s / PROBE_INTERVAL_S + 3
        assert round_trips <= 8 + looks, "nearly all are appends"
        wait_until(lambda: robot.writer.settled, "settled")
        robot.close()
    rows = learner.rows()
    check_ledger(rows, robot.sealed)
    assert len(rows) == 9


def test_a_bad_and_slow_network_loses_and_doubles_nothing(
    redis_server: EmbeddedRedis, learner: Learning, run_name: str, tmp_path: Path
) -> None:
    with slow_link(redis_server, tmp_path, 0.04, cut_chance=0.1) as proxy:
        robot = Robot(RedisLog(url=proxy.url, run=run_name, timeout_s=1.0), tmp_path / "spool")
        incarnation = robot.claim()
        for sequence in range(1, 31):
            robot.offer(incarnation, sequence)
            time.sleep(0.02)
        proxy.cut_chance = 0.0
        wait_until(lambda: robot.writer.settled, "settled")
        robot.close()
        assert proxy.num_cuts > 0
    rows = learner.rows()
    check_ledger(rows, robot.sealed)
    assert len(rows) == 30


def test_its_end_is_told_to_whoever_acts(log: RedisLog, learner: Learning, tmp_path: Path) -> None:
    robot = Robot(log, tmp_path / "spool")
    robot.claim()
    wait_until(lambda: SLOT in learner.model.durable.cursors, "gave credit")
    learner.end()  # it has spoken of what it took in, and takes in nothing more
    with closing(log.slot_log(SLOT)) as other:
        other.append(EntryId(2, 0), b"", create=False)
    robot.offer(1, 1)

    def fenced() -> bool:
        try:
            robot.writer.tick()
        except Fenced:
            return True
        return False

    wait_until(fenced, "fenced")
    robot.offer(1, 2)
    assert robot.shelf.num_chunks == 2, "what it acted meanwhile is kept"
    robot.close()
