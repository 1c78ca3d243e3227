"""The writer's pure parts: no store, no clock."""

from __future__ import annotations

from system.log.protocol import Notice, SlotNotice
from system.log.rules import Backoff, fenced_by, has_credit, next_incarnation
from system.types import EntryId


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


def test_credit_counts_chunks_because_ids_may_have_holes() -> None:
    said = SlotNotice(durable=EntryId(2, 5), granted=EntryId(2, 7))
    assert has_credit(said, incarnation=2, num_received=1)
    assert not has_credit(said, incarnation=2, num_received=2)
    assert not has_credit(said, incarnation=3, num_received=0), "it has not seen our claim"
    assert not has_credit(SlotNotice(), incarnation=1, num_received=0)
    behind = SlotNotice(durable=EntryId(1, 9), granted=EntryId(2, 2))
    assert has_credit(behind, incarnation=2, num_received=1)
    assert not has_credit(behind, incarnation=2, num_received=2)
