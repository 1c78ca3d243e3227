"""Entries in files: what a crash, damage and a full disk leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.clock import ManualClock
from system.codec import decode_chunk, encode_chunk
from system.errors import RunError
from system.log.disk_spool import RETRY_S, DiskShelf
from system.log.earlier import EarlierLife
from system.log.memory import MemoryLog
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.log.spool import Item, Spool, SpoolSetup
from system.types import EntryId
from tests.disks_for_tests import full_disk
from tests.log_for_tests import ModelLearner, make_writer, small_chunk

CLAIM = Claim(who="robot:1", spec_digest="digest", num_copies=1)
ROOT = Path(__file__).parents[2]


class Disk:
    """One folder, opened by one life after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[str] = []
        self.shelf: DiskShelf | None = None

    def open(self, max_bytes: int = 1 << 20, memory_bytes: int = 1 << 20) -> DiskShelf:
        if self.shelf is not None:
            self.shelf.close()
        self.shelf = DiskShelf(
            self.folder,
            slot=0,
            max_bytes=max_bytes,
            memory_bytes=memory_bytes,
            on_event=lambda kind, text: self.events.append(kind),
        )
        return self.shelf

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("[0-9]*-*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "spool" / "0")
    yield made
    if made.shelf is not None:
        made.shelf.close()


def item(sequence: int) -> Item:
    if sequence == 0:
        return Item(entry_id=EntryId(1, 0), payload=encode_claim(CLAIM))
    chunk = small_chunk(EntryId(1, sequence), num_steps=16)
    return Item(entry_id=chunk.entry_id, payload=encode_chunk(chunk))


def spool_of(shelf: DiskShelf, count: int, *, thin: bool = False) -> Spool:
    setup = SpoolSetup(spool_chunks=99, retain_bytes=1 << 20, thin=thin, shelf=shelf)
    spool = Spool(item(0), setup)
    for sequence in range(1, count + 1):
        spool.offer(item(sequence))
    return spool


def test_a_next_life_finds_everything_that_is_not_durable(disk: Disk) -> None:
    spool = spool_of(disk.open(), 3)
    spool.received()
    spool.forget(EntryId(1, 1))
    found = disk.open().found()
    assert found is not None
    assert found.claim == item(0)
    assert [str(held.entry_id) for held in found.chunks] == ["1-2", "1-3"]
    assert disk.names() == ["1-0", "1-2", "1-3"]
    assert disk.folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_has_one_user(disk: Disk) -> None:
    shelf = disk.open()
    with pytest.raises(RunError, match="in use by another process"):
        DiskShelf(disk.folder, slot=0, max_bytes=1, memory_bytes=1)
    shelf.close()
    disk.shelf = None
    disk.open()


def test_a_file_cut_at_any_byte_is_set_aside_and_never_sent(disk: Disk) -> None:
    spool_of(disk.open(), 1)
    whole = (disk.folder / "1-1").read_bytes()
    for length in range(len(whole)):
        shelf = disk.open()
        (disk.folder / "1-1").write_bytes(whole[:length])
        assert disk.open().get(EntryId(1, 1)) is None, length
        assert disk.names() == ["1-0"]
        assert shelf is not disk.shelf
    assert disk.events == ["spool_damaged"] * len(whole)
    (disk.folder / "1-1").write_bytes(whole)
    assert disk.open().get(EntryId(1, 1)) == whole


def test_a_flipped_byte_and_a_foreign_file_are_set_aside(disk: Disk) -> None:
    spool_of(disk.open(), 2)
    data = bytearray((disk.folder / "1-1").read_bytes())
    data[-3] ^= 1
    (disk.folder / "1-1").write_bytes(data)
    (disk.folder / "1-2").write_bytes(encode_chunk(small_chunk(EntryId(1, 2), slot=7)))
    shelf = disk.open()
    assert shelf.get(EntryId(1, 1)) is None
    assert shelf.get(EntryId(1, 2)) is None
    assert sorted(path.name for path in (disk.folder / "torn").iterdir()) == ["1-1", "1-2"]
    assert shelf.num_chunks == 0


def test_damage_is_passed_over(disk: Disk) -> None:
    spool = spool_of(disk.open(), 3)
    (disk.folder / "1-1").write_bytes(b"")
    assert spool.head() is None
    assert spool.head() == item(2)
    assert spool.counts == {"damaged": 1}
    assert (spool.num_waiting, spool.num_retained) == (2, 2)


def test_chunks_whose_claim_is_damaged_are_kept_for_people(disk: Disk) -> None:
    spool_of(disk.open(), 2)
    (disk.folder / "1-0").write_bytes(b"\x01" * 30)
    assert disk.open().found() is None
    assert disk.names() == []
    kept = sorted(path.name for path in disk.folder.glob("fenced/*/*"))
    assert kept == ["1-1", "1-2"]
    assert disk.events == ["spool_damaged", "spool_fenced"]


def test_a_file_appears_whole_or_not_at_all(disk: Disk) -> None:
    disk.open()
    (disk.folder / ".1-1.tmp").write_bytes(b"half")
    shelf = disk.open()
    assert shelf.num_bytes == 0
    assert not (disk.folder / ".1-1.tmp").exists()


def test_while_the_disk_takes_nothing_entries_wait_in_memory_in_order(disk: Disk) -> None:
    shelf = disk.open(memory_bytes=3 * len(item(1).payload))
    spool = spool_of(shelf, 1)
    with full_disk():
        for sequence in (2, 3):
            spool.offer(item(sequence))
        shelf.tend(RETRY_S)
        assert not spool.full
        spool.offer(item(4))
        assert spool.full
        assert disk.names() == ["1-0", "1-1"]
        spool.received()
        assert spool.head() == item(2), "what waits in memory can be sent"
    assert disk.events == ["spool_disk_refuses"]
    spool.tend(2 * RETRY_S)
    assert not spool.full
    assert disk.names() == ["1-0", "1-1", "1-2", "1-3", "1-4"]
    assert disk.events == ["spool_disk_refuses", "spool_disk_recovered"]


def test_a_full_budget_refuses_or_thins_but_never_what_was_received(disk: Disk) -> None:
    budget = len(item(0).payload) + 4 + 3 * len(item(1).payload)
    spool = spool_of(disk.open(max_bytes=budget), 3)
    assert spool.full
    assert spool.fill == 1
    spool = spool_of(disk.open(max_bytes=budget), 3, thin=True)
    spool.received()
    assert not spool.full
    spool.offer(item(4))
    spool.offer(item(5))
    assert disk.names() == ["1-0", "1-1", "1-4", "1-5"]
    assert spool.counts == {"thinned": 2}
    assert spool.head() == item(4)
    for _ in range(2):
        spool.received()
    assert spool.full, "all of it was received: none may be dropped"


def test_after_thinning_credit_is_still_given(tmp_path: Path) -> None:
    """The next id lies beyond any grant: then Chunks are counted."""
    store, clock = MemoryLog(), ManualClock()
    learner = ModelLearner(store.reader(), credit=2)
    learner.publish()
    shelf = DiskShelf(tmp_path / "0", slot=0, max_bytes=800, memory_bytes=1 << 20)
    writer = make_writer(store.slot_log(0), clock, shelf=shelf, spool_chunks=99, thin=True)
    assert writer.try_claim() == 1
    for sequence in range(1, 20):
        writer.offer(small_chunk(EntryId(1, sequence), num_steps=16))
    assert writer.given_up["thinned"] > 10
    for _ in range(40):
        clock.sleep(0.1)
        learner.turn()
        writer.tick()
    assert writer.settled
    assert [entry_id for entry_id, _ in learner.durable.ledger[0]][-1] == EntryId(1, 19)
    shelf.close()


WRITE = """
import sys
from pathlib import Path
from system.log.disk_spool import DiskShelf
from system.log.spool import Item
from tests.system.test_disk_spool import item
shelf = DiskShelf(Path(sys.argv[1]), slot=0, max_bytes=1 << 30, memory_bytes=1)
for sequence in range(100_000):
    shelf.put(item(sequence))
    print(sequence, flush=True)
"""


def test_kill_9_while_writing_leaves_whole_files_without_holes(disk: Disk) -> None:
    told = -1
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(disk.folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        told = int(line)
        if told == 60:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    shelf = disk.open()
    found = shelf.found()
    assert found is not None
    sequences = [held.entry_id.sequence for held in found.chunks]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) >= told, "what was taken is there"
    for held in found.chunks:
        data = shelf.get(held.entry_id)
        assert data is not None
        assert decode_chunk(data).entry_id == held.entry_id


def test_an_earlier_life_is_finished_before_the_next_one_claims(disk: Disk) -> None:
    store, clock = MemoryLog(), ManualClock()
    learner = ModelLearner(store.reader(), credit=1)
    learner.publish()
    log = store.slot_log(0)
    assert EarlierLife(log, disk.open(), slot=0, clock=clock).tick() is None
    writer = make_writer(log, clock, who=CLAIM.who, shelf=disk.open())
    assert writer.try_claim() == 1
    for sequence in (1, 2, 3):
        writer.offer(small_chunk(EntryId(1, sequence)))
    earlier = EarlierLife(log, disk.open(), slot=0, clock=clock)
    assert earlier.who == CLAIM.who
    reasons = []
    while (left := earlier.tick()) is not None:
        reasons.append(left.reason)
        clock.sleep(0.2)
        if left.reason in ("credit", "data"):
            learner.turn()
    assert {"credit", "earlier"} <= set(reasons)
    assert [str(entry_id) for entry_id, _ in learner.durable.ledger[0]] == ["1-1", "1-2", "1-3"]
    following = make_writer(log, clock, who="robot:2", shelf=disk.shelf)
    assert following.try_claim() == 2
    assert disk.names() == ["2-0"]
