"""The writer's pure parts: no store, no clock."""

from __future__ import annotations

import pytest

from system.errors import Fenced
from system.log.protocol import Notice, SlotNotice
from system.log.rules import Backoff, fenced_by, next_incarnation
from system.log.spool import Item, Spool
from system.types import ZERO_ID, EntryId


def test_claims_count_up_past_the_stream_and_past_the_learner() -> None:
    notice = Notice(epoch=1, tick=1, slots={4: SlotNotice(durable=EntryId(6, 2))})
    assert next_incarnation(0, None, notice) == 1
    assert next_incarnation(0, EntryId(3, 9), notice) == 4
    assert next_incarnation(4, EntryId(3, 9), notice) == 7
    granted = Notice(epoch=1, tick=1, slots={4: SlotNotice(granted=EntryId(8, 2))})
    assert next_incarnation(4, None, granted) == 9


def test_somebody_else_with_our_number_fences() -> None:
    said = SlotNotice(granted=EntryId(2, 5), holder="b")
    assert fenced_by(said, incarnation=2, who="b") is None
    assert fenced_by(said, incarnation=2, who="a") == "incarnation 2 belongs to b, not to a"
    assert fenced_by(said, incarnation=3, who="a") is None
    assert fenced_by(SlotNotice(granted=EntryId(2, 5)), incarnation=2, who="a") is None
    assert fenced_by(SlotNotice(durable=EntryId(3, 0)), incarnation=2, who="a") is not None


def test_pauses_grow_to_a_second_and_start_small_again() -> None:
    backoff = Backoff(seed=0)
    pauses = [backoff.failed() for _ in range(12)]
    assert pauses[0] <= 0.02
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
    assert len(set(pauses)) == len(pauses)
    backoff.succeeded()
    assert backoff.failed() <= 0.02


def test_spool_refuses_an_id_it_never_sent() -> None:
    spool = Spool(Item(entry_id=EntryId(2, 0), payload=b""), spool_chunks=2, retain_bytes=9)
    assert spool.head() is None
    with pytest.raises(Fenced, match="somebody wrote 2-1 in our incarnation"):
        spool.reconcile(EntryId(2, 1))
    with pytest.raises(Fenced, match="incarnation 2 lost its slot to 3-0"):
        spool.reconcile(EntryId(3, 0))
    assert spool.reconcile(ZERO_ID) == 0
    assert spool.head_is_again()


def test_spool_keeps_its_books_through_loss_and_return() -> None:
    spool = Spool(Item(entry_id=EntryId(1, 0), payload=b"c"), spool_chunks=9, retain_bytes=99)
    items = [Item(entry_id=EntryId(1, n), payload=b"x" * n) for n in range(1, 5)]
    for item in items:
        assert not spool.head_is_again()
        spool.offer(item)
    spool.received()
    spool.received()
    assert (spool.num_waiting, spool.num_retained, spool.retained_bytes) == (2, 4, 3)
    assert spool.reconcile(EntryId(1, 3)) == 1
    assert spool.reconcile(None) == -3
    assert spool.head() == spool.claim
    spool.received()
    assert spool.head() == items[0]
    assert spool.head_is_again()
    assert (spool.num_waiting, spool.num_retained, spool.retained_bytes) == (4, 4, 6)
    spool.forget(EntryId(1, 2))
    assert (spool.num_waiting, spool.num_retained, spool.retained_bytes) == (2, 2, 3)
    spool.received()
    assert spool.waiting() == [items[3]]
    assert not spool.head_is_again()
    spool.forget(EntryId(2, 0))
    assert (spool.num_waiting, spool.num_retained, spool.retained_bytes) == (0, 0, 0)
