"""When acting pauses for want of room, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.outbox import Outbox
from system.clock import ManualClock
from system.log.disk_spool import DiskShelf
from system.log.memory import MemoryLog
from system.tick import Wait
from system.types import EntryId, TimeStep
from tests.log_for_tests import ModelLearner, make_writer, small_chunk

CHUNK_BYTES = 161
"""Of the Chunks below, about."""


class Robot:
    """An outbox over a disk, and a learner that gives no credit until `learner.credit` says so."""

    def __init__(self, folder: Path, *, max_chunks: int, thin: bool = False) -> None:
        store, self.clock = MemoryLog(), ManualClock()
        self.learner = ModelLearner(store.reader(), credit=0)
        self.learner.publish()
        self.shelf = DiskShelf(
            folder, slot=0, max_bytes=max_chunks * CHUNK_BYTES, memory_bytes=1 << 20
        )
        writer = make_writer(
            store.slot_log(0), self.clock, shelf=self.shelf, spool_chunks=10**6, thin=thin
        )
        self.events: list[str] = []
        self.outbox = Outbox(writer, on_event=lambda kind, text: self.events.append(kind))
        assert self.outbox.try_claim() == 1
        self.sealed = 0

    def seal(self, count: int) -> None:
        for _ in range(count):
            self.sealed += 1
            self.outbox.offer([small_chunk(EntryId(1, self.sealed))])

    def send_all(self) -> None:
        self.learner.credit = 100
        for _ in range(100):
            self.learner.turn()
            self.clock.sleep(0.1)
            self.outbox.tick()


@pytest.fixture
def robots(tmp_path: Path) -> Iterator[list[Robot]]:
    made: list[Robot] = []
    yield made
    for robot in made:
        robot.shelf.close()


def make(robots: list[Robot], folder: Path, **limits: int) -> Robot:
    robots.append(Robot(folder / "spool", **limits))
    return robots[-1]


def moment(*, first: bool = False, last: bool = False, copies: int = 1) -> TimeStep:
    flags = {"is_first": first, "is_last": last, "is_terminal": False}
    return TimeStep(
        observation={},
        reward=np.zeros(copies, np.float32),
        **{name: np.full(copies, value) for name, value in flags.items()},
    )


def test_a_robot_pauses_between_episodes_when_room_grows_short(
    robots: list[Robot], tmp_path: Path
) -> None:
    robot = make(robots, tmp_path, max_chunks=20)
    robot.seal(10)
    assert not robot.outbox.pauses(moment(last=True))
    while robot.shelf.fill < 0.9:
        robot.seal(1)
    assert not robot.outbox.full
    assert not robot.outbox.pauses(moment()), "not in the middle of a movement"
    assert robot.outbox.pauses(moment(last=True))
    assert robot.outbox.pauses(moment(first=True))
    assert robot.outbox.pauses(moment(copies=2)), "simulators may stand still anywhere"
    assert robot.events == ["spool_full"]
    assert isinstance(robot.outbox.tick(), Wait)
    robot.send_all()
    assert not robot.outbox.pauses(moment(last=True))
    assert robot.events == ["spool_full", "spool_has_room"]


def test_without_room_it_pauses_anywhere_and_the_end_spills_over(
    robots: list[Robot], tmp_path: Path
) -> None:
    robot = make(robots, tmp_path, max_chunks=4)
    while not robot.outbox.full:
        robot.seal(1)
    assert robot.outbox.pauses(moment())
    robot.seal(2)
    before = robot.shelf.num_chunks
    assert not robot.outbox.settled
    robot.outbox.spill()
    assert robot.shelf.num_chunks == before + 2
    robot.send_all()
    assert robot.outbox.settled
    assert len(robot.learner.durable.ledger[0]) == robot.sealed


def test_thinning_never_pauses_and_is_told_at_once_then_at_each_doubling(
    robots: list[Robot], tmp_path: Path
) -> None:
    robot = make(robots, tmp_path, max_chunks=4, thin=True)
    for _ in range(40):
        robot.seal(1)
        assert not robot.outbox.pauses(moment(last=True))
        robot.clock.sleep(0.1)
        robot.outbox.tick()
    assert robot.shelf.fill <= 1.5
    assert set(robot.events) == {"chunks_thinned"}
    assert 4 <= len(robot.events) <= 7
    assert robot.outbox.metrics()["actor/chunks_thinned"] > 30


def test_while_held_it_pauses_between_episodes(robots: list[Robot], tmp_path: Path) -> None:
    robot = make(robots, tmp_path, max_chunks=20)
    robot.outbox.held = True
    assert not robot.outbox.pauses(moment())
    assert robot.outbox.pauses(moment(first=True))
    robot.outbox.held = False
    assert not robot.outbox.pauses(moment(first=True))
    assert robot.events == []
