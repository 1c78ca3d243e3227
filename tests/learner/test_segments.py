"""Segment files: what was committed is read back once; damage is told and read around."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from learner.epochs import Takeover
from learner.segment_format import Damage, Record, SegmentHeader, SlotCursor, scan
from learner.segments import SegmentStore, read_ledger
from system.errors import CheckpointError, DiskFull, Fenced
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.types import EntryId
from tests.learner.disk_for_tests import no_file_larger_than

CLAIM = encode_claim(Claim(who="host:1", spec_digest="d", num_copies=3))
EVERYTHING = Takeover()


def record(incarnation: int, sequence: int, slot: int = 0, ordinal: int | None = None) -> Record:
    """By default the ordinals of slot 0, four Steps a Chunk."""
    payload = CLAIM if sequence == 0 else bytes([sequence]) * 100
    if ordinal is None:
        ordinal = 4 * max(0, sequence - 1)
    return Record(
        slot=slot, entry_id=EntryId(incarnation, sequence), ordinal=ordinal, payload=payload
    )


def store_with(folder: Path, *records: Record, epoch: int = 1, size: int = 1 << 20) -> SegmentStore:
    store = SegmentStore(folder, segment_bytes=size)
    list(store.restore(EVERYTHING))
    store.epoch = epoch
    for one in records:
        store.append(one)
    store.commit()
    return store


def read(folder: Path, before: Takeover = EVERYTHING) -> list[Record | Damage]:
    return list(SegmentStore(folder, segment_bytes=1).restore(before))


def test_what_was_committed_is_read_back_in_order_over_several_files(tmp_path: Path) -> None:
    written = [record(1, sequence) for sequence in range(30)]
    store_with(tmp_path, *written, size=500).seal()
    assert len(list(tmp_path.glob("*.segment"))) > 4
    again = SegmentStore(tmp_path, segment_bytes=500)
    assert list(again.restore(EVERYTHING)) == written
    assert again.cursors == {0: SlotCursor(stored=EntryId(1, 29), holder="host:1", num_copies=3)}


@pytest.mark.parametrize("cut", [1, 50, 101, 120, 139])
def test_a_torn_last_record_is_left_out_and_said(tmp_path: Path, cut: int) -> None:
    store_with(tmp_path, record(1, 0), record(1, 1), record(1, 2)).seal()
    (path,) = tmp_path.glob("*.segment")
    path.write_bytes(path.read_bytes()[:-cut])
    *whole, damage = read(tmp_path)
    assert whole == [record(1, 0), record(1, 1)]
    assert isinstance(damage, Damage)
    assert damage.torn
    assert damage.num_bytes == 140 - cut
    assert read_ledger(tmp_path) == [(0, EntryId(1, 1))]


def test_a_file_cut_off_in_its_header_is_torn_too(tmp_path: Path) -> None:
    store_with(tmp_path, record(1, 0)).seal()
    (path,) = tmp_path.glob("*.segment")
    for length in (2, 10, 40):
        path.write_bytes(path.read_bytes()[:length])
        (damage,) = read(tmp_path)
        assert isinstance(damage, Damage)
        assert damage.torn


def test_a_flipped_byte_anywhere_costs_one_record_and_is_said(tmp_path: Path) -> None:
    written = [record(1, sequence) for sequence in range(20)]
    store_with(tmp_path, *written, size=900).seal()
    files = {path: path.read_bytes() for path in sorted(tmp_path.glob("*.segment"))}
    assert len(files) == 4
    dice = random.Random(0)
    for _ in range(50):
        path = dice.choice(list(files))
        data, where = bytearray(files[path]), dice.randrange(len(files[path]))
        data[where] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        found = read(tmp_path)
        (damage,) = [item for item in found if isinstance(item, Damage)]
        assert damage.path == path
        assert damage.offset <= where < damage.offset + damage.num_bytes
        records = [item for item in found if isinstance(item, Record)]
        assert len(records) >= len(written) - 1
        assert all(one in written for one in records)
        path.write_bytes(files[path])


def test_whole_headers_bring_back_what_a_lost_claim_said(tmp_path: Path) -> None:
    store_with(tmp_path, *[record(1, s) for s in range(12)], size=500).seal()
    first, second = sorted(tmp_path.glob("*.segment"))[:2]
    first.write_bytes(b"")
    store = SegmentStore(tmp_path, segment_bytes=500)
    assert next(r for r in store.restore(EVERYTHING) if isinstance(r, Record)) in read(tmp_path)
    assert store.cursors[0].holder == "host:1"
    header = next(scan(second, None))
    assert isinstance(header, SegmentHeader)
    assert store.first_ordinal == header.first_ordinal > 0


def test_a_lost_claim_leaves_the_holder_unknown() -> None:
    before = SlotCursor(stored=EntryId(1, 9), holder="old", num_copies=3)
    assert before.after(record(2, 5)) == SlotCursor(stored=EntryId(2, 5), num_copies=3)


def test_two_epochs_that_both_stored_an_entry_give_it_once(tmp_path: Path) -> None:
    zombie = store_with(tmp_path, record(1, 0), record(1, 1))
    successor = store_with(tmp_path, record(1, 2), record(1, 3), epoch=2)
    zombie.append(record(1, 2))
    zombie.seal()
    successor.seal()
    assert [e.sequence for _, e in read_ledger(tmp_path)] == [1, 2, 3]


def test_what_a_fenced_learner_wrote_late_does_not_count_and_is_cleared(tmp_path: Path) -> None:
    zombie = store_with(tmp_path, record(1, 0), record(1, 1), size=300)
    successor = SegmentStore(tmp_path, segment_bytes=300)
    list(successor.restore(EVERYTHING))
    before = Takeover(epoch=2, judged=2, segments=successor.read_bytes)
    successor.epoch = 2
    # The same ordinals as the successor's, from another slot: exactly what must not be mixed up.
    for sequence in range(5):
        zombie.append(record(1, sequence, slot=7, ordinal=4 + 4 * sequence))
    zombie.commit()
    successor.append(record(1, 2))
    successor.commit()
    assert len(list(tmp_path.glob("00001-*.segment"))) > 1
    expected = [record(1, 0), record(1, 1), record(1, 2)]
    assert read(tmp_path, before) == expected
    again = SegmentStore(tmp_path, segment_bytes=300)
    again.epoch = 3
    list(again.restore(before))
    again.drop_foreign()
    assert [path.name[:5] for path in sorted(tmp_path.glob("*.segment"))] == ["00001", "00002"]
    assert read(tmp_path, before) == expected


def test_nothing_is_written_or_deleted_once_fenced(tmp_path: Path) -> None:
    def check() -> None:
        if fenced:
            raise Fenced("a newer one")

    fenced = False
    store = SegmentStore(tmp_path, segment_bytes=300, check=check)
    store.epoch = 1
    for sequence in range(9):
        store.append(record(1, sequence))
    store.commit()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    fenced = True
    store.append(record(1, 9))
    for write in (store.commit, store.seal, lambda: store.drop_below(20), store.drop_foreign):
        with pytest.raises(Fenced):
            write()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_dropped_files_leave_cursor_holder_and_ordinal_behind(tmp_path: Path) -> None:
    store = store_with(tmp_path, *[record(1, s) for s in range(30)], size=500)
    store.drop_below(80)
    kept = SegmentStore(tmp_path, segment_bytes=500)
    left = list(kept.restore(EVERYTHING))
    assert 0 < kept.first_ordinal <= 80
    assert isinstance(left[0], Record)
    assert left[0].ordinal == kept.first_ordinal
    assert kept.cursors[0].holder == "host:1"
    assert kept.cursors[0].stored == EntryId(1, 29)


@pytest.mark.parametrize("limit", [0, 30, 200, 333])
def test_a_full_disk_leaves_whole_records_and_forgets_nothing(tmp_path: Path, limit: int) -> None:
    store = SegmentStore(tmp_path, segment_bytes=500)
    store.epoch = 1
    written = [record(1, sequence) for sequence in range(12)]
    for one in written[:2]:
        store.append(one)
    for one in written[2:]:
        store.append(one)
        with no_file_larger_than(limit), pytest.raises(DiskFull, match="bytes free"):
            store.commit()
        assert not [item for item in read(tmp_path) if isinstance(item, Damage)]
    store.commit()
    assert read(tmp_path) == written


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    store_with(tmp_path, record(1, 0)).seal()
    (path,) = tmp_path.glob("*.segment")
    path.write_bytes(b'\x50\x00\x00\x00{"format": 1, "epoch": 1, "first": 0, "slots": {}}')
    with pytest.raises(CheckpointError, match="has format 1, not 2"):
        read_ledger(tmp_path)
