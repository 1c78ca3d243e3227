"""What every spool must do: the same suite over entries in memory and entries in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from system.codec import encode_chunk
from system.errors import Fenced
from system.log.disk_spool import DiskShelf
from system.log.spool import Item, MemoryShelf, Shelf, Spool, SpoolSetup
from system.types import ZERO_ID, EntryId
from tests.log_for_tests import small_chunk


@pytest.fixture(params=["memory", "disk"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "memory":
        yield MemoryShelf()
        return
    with closing(
        DiskShelf(tmp_path / "spool", slot=0, max_bytes=1 << 20, memory_bytes=1 << 20)
    ) as opened:
        yield opened


def item(incarnation: int, sequence: int) -> Item:
    if sequence == 0:
        return Item(entry_id=EntryId(incarnation, 0), payload=b"claim")
    chunk = small_chunk(EntryId(incarnation, sequence), num_steps=8 * sequence)
    return Item(entry_id=chunk.entry_id, payload=encode_chunk(chunk))


def make_spool(shelf: Shelf, incarnation: int = 1, **limits: int) -> Spool:
    sizes = {"spool_chunks": 9, "retain_bytes": 1 << 16} | limits
    return Spool(item(incarnation, 0), SpoolSetup(**sizes, shelf=shelf))


def weight(*items: Item) -> int:
    return sum(len(each.payload) for each in items)


def test_refuses_an_id_it_never_sent(shelf: Shelf) -> None:
    spool = make_spool(shelf, incarnation=2)
    assert spool.head() is None
    with pytest.raises(Fenced, match="somebody wrote 2-1 in our incarnation"):
        spool.reconcile(EntryId(2, 1))
    with pytest.raises(Fenced, match="incarnation 2 lost its slot to 3-0"):
        spool.reconcile(EntryId(3, 0))
    assert spool.reconcile(ZERO_ID) == 0
    assert spool.head_is_again()
    assert spool.head() == item(2, 0)


def test_keeps_its_books_through_loss_and_return(shelf: Shelf) -> None:
    spool = make_spool(shelf)
    items = [item(1, n) for n in range(1, 5)]
    for each in items:
        assert not spool.head_is_again()
        spool.offer(each)
    spool.received()
    spool.received()
    assert (spool.num_waiting, spool.num_received, spool.num_retained) == (2, 2, 4)
    assert spool.retained_bytes == weight(*items[:2])
    assert spool.reconcile(EntryId(1, 3)) == 1
    assert spool.reconcile(None) == -3
    assert spool.head() == spool.claim
    spool.received()
    assert spool.head() == items[0]
    assert spool.head_is_again()
    assert (spool.num_waiting, spool.num_retained) == (4, 4)
    assert spool.retained_bytes == weight(*items[:3])
    spool.forget(EntryId(1, 2))
    assert (spool.num_waiting, spool.num_retained) == (2, 2)
    assert spool.retained_bytes == weight(items[2])
    spool.received()
    assert spool.head() == items[3]
    assert not spool.head_is_again()
    spool.forget(EntryId(2, 0))
    assert (spool.num_waiting, spool.num_retained, spool.retained_bytes) == (0, 0, 0)
    assert spool.head_id() is None


def test_is_full_by_count_and_by_what_is_not_durable(shelf: Shelf) -> None:
    spool = make_spool(shelf, spool_chunks=2, retain_bytes=weight(item(1, 1)))
    spool.offer(item(1, 1))
    assert not spool.full
    spool.offer(item(1, 2))
    assert spool.full
    with pytest.raises(ValueError, match="1-3 must wait"):
        spool.offer(item(1, 3))
    spool.received()
    assert not spool.full
    spool.received()
    assert spool.full, "received, but not durable"
    spool.offer(item(1, 3), beyond=True)
    spool.forget(EntryId(1, 2))
    assert not spool.full
    with pytest.raises(ValueError, match="1-9 offered, 1-4 expected"):
        spool.offer(item(1, 9))


def test_a_new_incarnation_begins_with_an_empty_shelf(shelf: Shelf) -> None:
    make_spool(shelf).offer(item(1, 1))
    spool = make_spool(shelf, incarnation=2)
    assert spool.expect() == EntryId(2, 1)
    assert spool.num_retained == 0
    spool.offer(item(2, 1))
    assert spool.head() == item(2, 1)
