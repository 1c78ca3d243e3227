"""The same with Chunks on disk: actors die and come back to what they left, here or elsewhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from system.clock import ManualClock
from system.log.disk_spool import DiskShelf
from system.log.earlier import EarlierLife
from system.log.memory import MemoryLog
from system.types import EntryId
from tests.contracts.test_exactly_once import ExactlyOnce, Life
from tests.disks_for_tests import full_disk, memory_folder
from tests.log_for_tests import make_writer


class DiskLife(Life):
    """One actor process on one disk."""

    def __init__(self, store: MemoryLog, clock: ManualClock, number: int, folder: Path) -> None:
        super().__init__(store, clock, number)
        self.folder = folder
        self.shelf = DiskShelf(folder, slot=0, max_bytes=1 << 20, memory_bytes=1 << 20)
        self.earlier = EarlierLife(self.log, self.shelf, slot=0, clock=clock)
        self.writer = make_writer(self.log, clock, who=self.who, shelf=self.shelf)

    def offer(self) -> None:
        if not self.fenced:
            super().offer()

    def tick(self) -> None:
        if self.fenced:
            return
        if self.writer.incarnation is None:
            self.clock.sleep(1.1)
            if self.earlier.tick() is None:
                self.writer.try_claim()
            return
        super().tick()
        if self.fenced:
            self.shelf.keep_fenced("newer")

    def die(self) -> set[EntryId]:
        """kill -9; returns what a full disk had left in memory alone."""
        self.shelf._lock.close()
        lost = set(self.shelf._unwritten)
        self.shelf._unwritten.clear()
        return lost

    def kept(self) -> set[bytes]:
        """Everything it has: to be sent, or kept for people."""
        return set(self.shelf._unwritten.values()) | {
            path.read_bytes()
            for folder in (self.folder, *self.folder.glob("fenced/*"))
            for path in folder.glob("[0-9]*-*")
        }


class ExactlyOnceOnDisk(ExactlyOnce):
    """Adds disks: each life has one, and may find what an earlier life left on it."""

    lives: list[DiskLife]
    zombies: list[DiskLife]

    def __init__(self) -> None:
        super().__init__()
        self.disks = Path(tempfile.mkdtemp(dir=memory_folder()))
        self.disk = self.disks / "0"
        self.excused: set[tuple[str, EntryId]] = set()
        """(who, id) of what died in memory, or was damaged."""

    def new_life(self) -> DiskLife:
        return DiskLife(self.store, self.clock, len(self.lives), self.disk)

    def holes(self) -> frozenset[EntryId]:
        return frozenset(entry_id for _, entry_id in self.excused)

    def kill(self, life: DiskLife) -> None:
        self.excused |= {(life.who, entry_id) for entry_id in life.die()}

    @rule(keep=st.booleans())
    def actor_restarts(self, keep: bool) -> None:
        """On the same disk, or elsewhere while the old life lives on."""
        if keep:
            self.zombies.append(self.living)
            self.disk = self.disks / str(len(self.lives))
        else:
            self.kill(self.living)
        self.lives.append(self.new_life())

    @precondition(lambda self: self.zombies)
    @rule(index=st.integers(0, 3))
    def zombie_restarts(self, index: int) -> None:
        """The old machine again: it comes back to its disk and takes the slot."""
        zombie = self.zombies.pop(index % len(self.zombies))
        self.kill(zombie)
        self.zombies.append(self.living)
        self.disk = zombie.folder
        self.lives.append(self.new_life())

    @rule(count=st.integers(1, 3))
    def act_on_a_full_disk(self, count: int) -> None:
        with full_disk():
            self.act(count)

    @rule(index=st.integers(0, 9), cut=st.integers(0, 400))
    def a_file_is_torn(self, index: int, cut: int) -> None:
        names = sorted(self.living.shelf._sizes)
        paths = [self.disk / str(name) for name in names]
        paths = [path for path in paths if path.exists() and path.stat().st_size]
        if not paths:
            return
        path = paths[index % len(paths)]
        os.truncate(path, min(cut, path.stat().st_size - 1))
        entry_id = EntryId.parse(path.name)
        self.excused |= {(life.who, entry_id) for life in self.lives if life.folder == self.disk}

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        try:
            self.make_peace()
            self.everything_is_somewhere()
        finally:
            for life in (self.living, *self.zombies):
                life.shelf._lock.close()
            shutil.rmtree(self.disks)

    def make_peace(self) -> None:
        self.living.log.fault = None
        for _ in range(60):
            self.learner.turn()
            for _ in range(4):
                self.living.tick()
        self.ledgers_are_right()
        if self.living.fenced:
            assert self.living.writer.counters.appended == 0
            return
        assert self.living.writer.drained
        assert self.living.writer.settled
        assert len(self.living.shelf._sizes) == 1, "its claim alone is left"

    def everything_is_somewhere(self) -> None:
        """Durable, or on the disk it was sealed on, byte for byte."""
        durable = dict(self.learner.durable.ledger.get(0, []))
        for life in self.lives:
            kept = life.kept()
            for entry_id, payload in life.sealed.items():
                if (life.who, entry_id) not in self.excused:
                    assert durable.get(entry_id) == payload or payload in kept, entry_id


ExactlyOnceOnDisk.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, print_blob=True
)
TestExactlyOnceOnDisk = ExactlyOnceOnDisk.TestCase


def machine_with_a_claim() -> ExactlyOnceOnDisk:
    machine = ExactlyOnceOnDisk()
    machine.start()
    machine.living.tick()
    machine.learner.turn()
    return machine


def test_a_wiped_store_loses_nothing_although_the_actor_restarts_meanwhile() -> None:
    machine = machine_with_a_claim()
    machine.act(count=2)
    machine.write(fault=None, count=2)
    first = machine.living
    assert first.writer.drained
    machine.store_wiped(broken=True)
    machine.actor_restarts(keep=False)
    machine.make_peace()
    assert dict(machine.learner.durable.ledger[0]) == first.sealed
    assert machine.living.writer.incarnation == 2
    machine.teardown()


def test_the_chunks_of_a_machine_that_comes_back_too_late_are_kept_for_people() -> None:
    machine = machine_with_a_claim()
    machine.act(count=3)
    late = machine.living
    machine.actor_restarts(keep=True)
    machine.write(fault=None, count=2)
    machine.learner.turn()
    assert machine.living.writer.incarnation == 2
    machine.zombie_restarts(index=0)
    machine.make_peace()
    assert machine.living.writer.incarnation == 3
    assert {path.name for path in late.folder.glob("fenced/1/1-[1-9]")} == {"1-1", "1-2", "1-3"}
    assert machine.learner.durable.ledger.get(0, []) == []
    machine.teardown()


def test_what_a_full_disk_left_in_memory_does_not_fence_the_next_life() -> None:
    """The store has a newer id of ours than the disk."""
    machine = machine_with_a_claim()
    machine.act_on_a_full_disk(count=1)
    with full_disk():
        machine.write(fault=None, count=1)
    assert machine.store.streams[0].last_id == EntryId(1, 1)
    machine.actor_restarts(keep=False)
    machine.make_peace()
    assert machine.living.writer.incarnation == 2
    assert list((machine.disk / "fenced").glob("*")) == []
    machine.teardown()
