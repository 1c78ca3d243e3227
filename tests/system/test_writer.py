from __future__ import annotations

from collections.abc import Callable

import pytest

from system.clock import ManualClock
from system.errors import Fenced
from system.log.memory import MemoryLog
from system.log.protocol import AppendReply, Claim, SlotLog
from system.log.spool import MemoryShelf, SpoolSetup
from system.log.writer import NOTICE_INTERVAL_S, PROBE_INTERVAL_S, SlotWriter
from system.tick import Progress, Wait
from system.types import EntryId
from tests.log_for_tests import FaultyLog, ModelLearner, make_writer, small_chunk


class Bench:
    """A store, a learner that has spoken, and one writer."""

    def __init__(self, *, credit: int = 10, **limits: int) -> None:
        self.clock = ManualClock()
        self.store = MemoryLog()
        self.learner = ModelLearner(self.store.reader(), credit=credit)
        self.learner.publish()
        self.log = FaultyLog(self.store.slot_log(0))
        self.writer = make_writer(self.log, self.clock, **limits)

    def claim(self) -> Bench:
        assert isinstance(self.writer.try_claim(), int)
        self.learner.turn()
        return self

    def offer(self, count: int = 1, *, num_steps: int = 1) -> None:
        for _ in range(count):
            chunk = small_chunk(self.next_id(), num_steps=num_steps)
            self.writer.offer(chunk)

    def next_id(self) -> EntryId:
        spool = self.writer._spool
        assert spool is not None
        return spool.expect()

    def ticks(self, count: int) -> list[str]:
        """What each tick came to."""
        found = []
        for _ in range(count):
            self.clock.sleep(NOTICE_INTERVAL_S)
            came_to = self.writer.tick()
            if isinstance(came_to, Wait) and came_to.reason == "redis":
                self.clock.sleep(came_to.seconds)
            found.append(came_to.what if isinstance(came_to, Progress) else came_to.reason)
        return found

    def stored(self) -> list[str]:
        return [str(entry_id) for entry_id in self.store.streams[0].entries]


class ShortShelf(MemoryShelf):
    """Full on demand."""

    fill = 0.0


class Midway(FaultyLog):
    """Something happens while an append is on its way, as when a thread sends."""

    def __init__(self, inner: SlotLog) -> None:
        super().__init__(inner)
        self.meanwhile: Callable[[], None] = lambda: None

    def append(self, entry_id: EntryId, payload: bytes, *, create: bool) -> AppendReply:
        reply = super().append(entry_id, payload, create=create)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return reply


def test_a_chunk_that_is_thinned_on_its_way_takes_no_other_with_it() -> None:
    store, clock, shelf = MemoryLog(), ManualClock(), ShortShelf()
    learner = ModelLearner(store.reader())
    learner.publish()
    log = Midway(store.slot_log(0))
    setup = SpoolSetup(spool_chunks=9, retain_bytes=1 << 20, thin=True, shelf=shelf)
    claim = Claim(who="me", spec_digest="digest", num_copies=1)
    writer = SlotWriter(log, slot=0, claim=claim, spool=setup, clock=clock)
    assert writer.try_claim() == 1
    learner.turn()
    writer.offer(small_chunk(EntryId(1, 1)))
    shelf.fill = 1.0
    log.meanwhile = lambda: writer.offer(small_chunk(EntryId(1, 2)))
    for _ in range(2):
        clock.sleep(NOTICE_INTERVAL_S)
        assert writer.tick() == Progress("appended")
    assert writer.given_up == {"thinned": 1}
    assert writer.drained
    assert [str(name) for name in store.streams[0].entries] == ["1-0", "1-1", "1-2"]


def test_claim_waits_for_the_learner() -> None:
    store = MemoryLog()
    writer = make_writer(store.slot_log(0), ManualClock())
    assert writer.try_claim() == Wait("learner", 0.2)
    learner = ModelLearner(store.reader())
    assert isinstance(writer.try_claim(), Wait)
    learner.publish()
    assert writer.try_claim() == 1
    assert writer.try_claim() == 1
    assert writer.incarnation == 1


def test_claim_refused_or_unanswered_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with monkeypatch.context() as patch:
        patch.setattr(bench.log.inner, "append", lambda *_, **__: AppendReply.REFUSED)
        assert bench.writer.try_claim() == Wait("claim", 0.01)
    bench.log.fault = "reply"
    lost = bench.writer.try_claim()
    assert isinstance(lost, Wait)
    assert lost.reason == "redis"
    assert isinstance(bench.writer.try_claim(), Wait)
    bench.clock.sleep(1.0)
    assert bench.writer.try_claim() == 1
    assert bench.writer.counters.waits == {"claim": 1, "redis": 2}


def test_appends_in_order_within_credit() -> None:
    bench = Bench(credit=2).claim()
    bench.offer(3)
    assert bench.writer.pending == 3
    assert bench.ticks(3) == ["appended", "appended", "credit"]
    assert not bench.writer.drained
    bench.learner.turn()
    assert bench.ticks(2) == ["appended", "data"]
    assert bench.writer.drained
    assert bench.stored() == ["1-0", "1-1", "1-2", "1-3"]
    counters = bench.writer.counters
    assert (counters.appended, counters.reappended, counters.duplicates) == (3, 0, 0)
    assert counters.bytes_sent == sum(map(len, bench.store.streams[0].entries.values())) - len(
        bench.store.streams[0].entries[EntryId(1, 0)]
    )


def test_one_append_at_a_time_and_only_the_next_chunk() -> None:
    bench = Bench().claim()
    with pytest.raises(ValueError, match="chunk 1-2 offered, 1-1 expected"):
        bench.writer.offer(small_chunk(EntryId(1, 2)))
    with pytest.raises(ValueError, match="chunk 2-1 offered, 1-1 expected"):
        bench.writer.offer(small_chunk(EntryId(2, 1)))
    with pytest.raises(ValueError, match="chunk of slot 5 offered to slot 0"):
        bench.writer.offer(small_chunk(EntryId(1, 1), slot=5))
    bench.offer(3)
    assert bench.writer.full
    with pytest.raises(ValueError, match="the spool is full"):
        bench.offer()


def test_full_until_what_was_received_is_durable() -> None:
    bench = Bench(spool_chunks=8, retain_bytes=2000).claim()
    bench.offer(3, num_steps=600)
    bench.ticks(3)
    assert bench.writer.drained
    assert bench.writer.full
    assert not bench.writer.settled
    assert bench.writer.retained_bytes > 1800
    bench.learner.turn()
    bench.ticks(1)
    assert bench.writer.settled
    assert not bench.writer.full
    assert bench.writer.retained_bytes == 0


def test_lost_request_is_sent_again() -> None:
    bench = Bench().claim()
    bench.offer()
    bench.log.fault = "request"
    assert bench.ticks(3) == ["redis", "reconciled", "appended"]
    assert bench.writer.counters.duplicates == 0


def test_lost_reply_is_found_stored_and_not_sent_again() -> None:
    bench = Bench().claim()
    bench.offer(2)
    bench.log.fault = "reply"
    assert bench.ticks(4) == ["redis", "reconciled", "appended", "data"]
    assert bench.stored() == ["1-0", "1-1", "1-2"]
    counters = bench.writer.counters
    assert (counters.appended, counters.duplicates) == (1, 1)


def test_refused_but_ours_means_stored() -> None:
    bench = Bench().claim()
    bench.offer(2)
    bench.store.slot_log(0).append(EntryId(1, 1), b"a network repeats itself", create=False)
    assert bench.ticks(4) == ["refused", "reconciled", "appended", "data"]


def test_a_newer_incarnation_fences_for_good() -> None:
    bench = Bench(credit=1).claim()
    bench.offer(3)
    bench.ticks(1)
    other = make_writer(bench.store.slot_log(0), bench.clock, who="other")
    assert other.try_claim() == 2
    bench.learner.turn()
    for _ in range(2):
        with pytest.raises(Fenced, match="the learner follows incarnation 2, ours is 1"):
            bench.ticks(2)
    assert bench.writer.pending == 2
    bench.writer.close()


def test_a_newer_claim_fences_before_the_learner_knows() -> None:
    bench = Bench().claim()
    bench.offer(1)
    make_writer(bench.store.slot_log(0), bench.clock, who="other").try_claim()
    assert bench.ticks(1) == ["refused"]
    with pytest.raises(Fenced, match="incarnation 1 lost its slot to 2-0"):
        bench.ticks(1)
    assert bench.writer.pending == 1


def test_a_wiped_store_is_rebuilt_in_order_once_the_learner_speaks() -> None:
    bench = Bench().claim()
    bench.offer(3)
    bench.ticks(2)
    bench.store.wipe()
    assert bench.ticks(3) == ["wiped", "learner", "learner"]
    assert bench.store.streams == {}
    bench.learner.turn()
    assert bench.ticks(6) == ["appended"] * 4 + ["data", "data"]
    assert bench.stored() == ["1-0", "1-1", "1-2", "1-3"]
    counters = bench.writer.counters
    assert (counters.appended, counters.reappended) == (3, 2)


def test_a_wipe_is_noticed_while_there_is_nothing_to_send() -> None:
    bench = Bench().claim()
    bench.offer(1)
    bench.ticks(1)
    bench.store.wipe()
    bench.learner.publish()
    bench.clock.sleep(PROBE_INTERVAL_S)
    assert bench.ticks(4) == ["wiped", "appended", "appended", "data"]
    assert bench.stored() == ["1-0", "1-1"]


def test_a_forgotten_process_does_not_rebuild_a_wiped_stream() -> None:
    bench = Bench().claim()
    bench.offer(1)
    bench.ticks(1)
    holder = make_writer(bench.store.slot_log(0), bench.clock, who="holder")
    assert holder.try_claim() == 2
    bench.learner.read()
    bench.store.wipe()
    bench.offer(1)
    assert bench.ticks(2) == ["wiped", "learner"]
    bench.learner.publish()
    with pytest.raises(Fenced):
        bench.ticks(1)
    assert bench.store.streams == {}


def test_a_lost_tail_is_sent_again_claim_included() -> None:
    bench = Bench().claim()
    bench.offer(3)
    bench.ticks(3)
    for lost, sent in ((2, ["1-2", "1-3"]), (4, ["1-0", "1-1", "1-2", "1-3"])):
        bench.store.lose_tail(0, lost)
        bench.log.fault = "request"
        bench.log.sent.clear()
        bench.ticks(7)
        assert [str(entry_id) for entry_id in bench.log.sent] == sent
        assert bench.stored() == ["1-0", "1-1", "1-2", "1-3"]
    assert bench.writer.counters.reappended == 5


def test_durable_chunks_are_not_sent_again() -> None:
    bench = Bench().claim()
    bench.offer(2)
    bench.ticks(2)
    bench.learner.turn()
    bench.ticks(1)
    bench.offer(1)
    bench.ticks(1)
    bench.store.wipe()
    bench.learner.publish()
    bench.clock.sleep(PROBE_INTERVAL_S)
    bench.ticks(4)
    assert bench.stored() == ["1-0", "1-3"]


def test_notices_are_read_at_intervals_unless_credit_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(credit=5, spool_chunks=10).claim()
    asked: list[float] = []
    read = bench.log.notice
    monkeypatch.setattr(bench.log, "notice", lambda: asked.append(bench.clock.now()) or read())
    bench.offer(6)
    for _ in range(5):
        assert bench.writer.tick() == Progress("appended")
    assert len(asked) == 1
    for _ in range(3):
        assert bench.writer.tick() == Wait("credit", 0.02)
    assert len(asked) == 4


def test_while_redis_is_away_ticks_only_wait() -> None:
    bench = Bench().claim()
    bench.offer(1)
    bench.store.unavailable = True
    for _ in range(5):
        came_to = bench.writer.tick()
        assert isinstance(came_to, Wait)
        assert came_to.reason == "redis"
        assert 0 < came_to.seconds <= 1.0
        assert not bench.writer.drained
    bench.store.unavailable = False
    bench.clock.sleep(1.0)
    assert bench.ticks(2) == ["reconciled", "appended"]


def test_before_the_claim_there_is_nothing_to_tick() -> None:
    writer = SlotWriter(
        MemoryLog().slot_log(0),
        slot=0,
        claim=Claim(who="", spec_digest="", num_copies=1),
        spool=SpoolSetup(spool_chunks=1, retain_bytes=1),
        clock=ManualClock(),
    )
    with pytest.raises(AssertionError, match="try_claim"):
        writer.tick()
