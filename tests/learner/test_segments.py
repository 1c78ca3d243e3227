"""Segment files: what was committed is read back once; a torn end is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.segments import Record, SegmentStore, SlotCursor, read_ledger
from system.errors import CheckpointError
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.types import EntryId

CLAIM = encode_claim(Claim(who="host:1", spec_digest="d", num_copies=3))


def record(incarnation: int, sequence: int, slot: int = 0) -> Record:
    payload = CLAIM if sequence == 0 else bytes([sequence]) * 100
    return Record(slot=slot, entry_id=EntryId(incarnation, sequence), payload=payload)


def store_with(folder: Path, *records: Record, segment_bytes: int = 1 << 20) -> SegmentStore:
    store = SegmentStore(folder, segment_bytes=segment_bytes)
    list(store.restore())
    store.epoch += 1
    for ordinal, one in enumerate(records, store.first_ordinal):
        store.append(one, ordinal=ordinal)
    store.commit()
    return store


def test_what_was_committed_is_read_back_in_order_over_several_files(tmp_path: Path) -> None:
    written = [record(1, sequence) for sequence in range(30)]
    store_with(tmp_path, *written, segment_bytes=500).seal()
    assert len(list(tmp_path.glob("*.segment"))) > 4
    again = SegmentStore(tmp_path, segment_bytes=500)
    assert list(again.restore()) == written
    assert again.cursors == {0: SlotCursor(stored=EntryId(1, 29), holder="host:1", num_copies=3)}


@pytest.mark.parametrize("cut", [1, 50, 101, 120])
def test_a_torn_last_record_is_dropped_and_nothing_else(tmp_path: Path, cut: int) -> None:
    store_with(tmp_path, record(1, 0), record(1, 1), record(1, 2)).seal()
    (path,) = tmp_path.glob("*.segment")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_ledger(tmp_path) == [(0, EntryId(1, 1))]


def test_a_flipped_byte_ends_the_file_there(tmp_path: Path) -> None:
    store_with(tmp_path, record(1, 0), record(1, 1), record(1, 2)).seal()
    (path,) = tmp_path.glob("*.segment")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert read_ledger(tmp_path) == [(0, EntryId(1, 1))]


def test_two_epochs_that_both_stored_an_entry_give_it_once(tmp_path: Path) -> None:
    zombie = store_with(tmp_path, record(1, 0), record(1, 1))
    successor = store_with(tmp_path, record(1, 2), record(1, 3))
    zombie.append(record(1, 2), ordinal=2)
    zombie.seal()
    successor.seal()
    assert [e.sequence for _, e in read_ledger(tmp_path)] == [1, 2, 3]


def test_dropped_files_leave_cursor_holder_and_ordinal_behind(tmp_path: Path) -> None:
    store = store_with(tmp_path, *[record(1, s) for s in range(30)], segment_bytes=500)
    store.drop_below(20)
    kept = SegmentStore(tmp_path, segment_bytes=500)
    left = list(kept.restore())
    assert 0 < kept.first_ordinal <= 20
    assert left[0].entry_id == EntryId(1, kept.first_ordinal)
    assert kept.cursors[0].holder == "host:1"
    assert kept.cursors[0].stored == EntryId(1, 29)


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    store_with(tmp_path, record(1, 0)).seal()
    (path,) = tmp_path.glob("*.segment")
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 7'))
    with pytest.raises(CheckpointError, match="has format 7, not 1"):
        read_ledger(tmp_path)
