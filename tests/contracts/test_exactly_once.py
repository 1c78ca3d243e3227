"""Whatever fails, in whatever order: each acknowledged Chunk becomes durable exactly once."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from system.clock import ManualClock
from system.codec import encode_chunk
from system.errors import Fenced
from system.log.memory import MemoryLog
from system.log.writer import SlotWriter
from system.types import EntryId
from tests.log_for_tests import FaultyLog, ModelLearner, check_ledger, make_writer, small_chunk

FAULTS = st.sampled_from([None, None, None, "request", "reply"])


class Life:
    """One actor process: its writer, its faulty connection, what it sealed."""

    def __init__(self, store: MemoryLog, clock: ManualClock, number: int) -> None:
        self.who = f"host:{number}"
        self.clock = clock
        self.log = FaultyLog(store.slot_log(0))
        self.writer: SlotWriter = make_writer(self.log, clock, who=self.who)
        self.sealed: dict[EntryId, bytes] = {}
        self.fenced = False

    def offer(self) -> None:
        if self.writer.incarnation is None or self.writer.full:
            return
        chunk = small_chunk(EntryId(self.writer.incarnation, len(self.sealed) + 1), who=self.who)
        self.writer.offer(chunk)
        self.sealed[chunk.entry_id] = encode_chunk(chunk)

    def tick(self) -> None:
        self.clock.sleep(1.1)  # longer than any pause
        if self.writer.incarnation is None:
            self.writer.try_claim()
            return
        try:
            self.writer.tick()
        except Fenced:
            self.fenced = True


class ExactlyOnce(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryLog()
        self.learner = ModelLearner(self.store.reader())
        self.learner.publish()
        self.lives: list[Life] = []
        self.zombies: list[Life] = []
        self.lives.append(self.new_life())

    def new_life(self) -> Life:
        return Life(self.store, self.clock, len(self.lives))

    def holes(self) -> frozenset[EntryId]:
        """Ids that may be missing."""
        return frozenset()

    @property
    def living(self) -> Life:
        return self.lives[-1]

    @rule(count=st.integers(1, 3))
    def act(self, count: int) -> None:
        for _ in range(count):
            self.living.offer()

    @rule(fault=FAULTS, count=st.integers(1, 4))
    def write(self, fault: str | None, count: int) -> None:
        self.living.log.fault = fault or self.living.log.fault
        for _ in range(count):
            self.living.tick()

    @precondition(lambda self: self.zombies)
    @rule(fault=FAULTS, index=st.integers(0, 3), count=st.integers(1, 4))
    def zombie_continues(self, fault: str | None, index: int, count: int) -> None:
        zombie = self.zombies[index % len(self.zombies)]
        zombie.log.fault = fault or zombie.log.fault
        zombie.offer()
        for _ in range(count):
            zombie.tick()

    @rule(keep=st.booleans())
    def actor_restarts(self, keep: bool) -> None:
        """The supervisor starts the next life; the old one is dead, or only thought to be."""
        if keep and self.living.writer.incarnation is not None:
            self.zombies.append(self.living)
        self.lives.append(self.new_life())

    @rule(broken=st.booleans(), server=st.sampled_from(["both", "data", "control"]))
    def store_wiped(self, broken: bool, server: str = "both") -> None:
        """FLUSHALL keeps connections; a killed server without persistence breaks them."""
        self.store.wipe(data=server != "control", control=server != "data")
        if broken:
            self.break_connections()

    @rule(count=st.integers(1, 5))
    def tail_lost(self, count: int) -> None:
        self.store.lose_tail(0, count)
        self.break_connections()

    def break_connections(self) -> None:
        for life in (self.living, *self.zombies):
            life.log.broken = True

    @rule()
    def learner_reads(self) -> None:
        self.learner.read()

    @rule()
    def learner_commits(self) -> None:
        self.learner.commit()
        self.learner.trim()

    @rule()
    def learner_speaks(self) -> None:
        self.learner.publish()

    @rule()
    def learner_turns(self) -> None:
        self.learner.turn()

    @rule(speak=st.booleans())
    def learner_restarts(self, speak: bool) -> None:
        self.learner.restart()
        if speak:
            self.learner.publish()

    @invariant()
    def ledgers_are_right(self) -> None:
        if not hasattr(self, "lives"):
            return
        sealed = {
            (life.who, entry_id): payload
            for life in self.lives
            for entry_id, payload in life.sealed.items()
        }
        for books in (self.learner.books, self.learner.durable):
            check_ledger(books.ledger.get(0, []), sealed, holes=self.holes())

    def teardown(self) -> None:
        """Peace: the living actor's every Chunk becomes durable."""
        if not hasattr(self, "lives"):
            return
        life = self.living
        life.log.fault = None
        for _ in range(40):
            self.learner.turn()
            for _ in range(4):
                life.tick()
        self.ledgers_are_right()
        if life.fenced:
            # Two lives had claimed one number in a store that forgot: the later never had credit.
            assert life.writer.counters.appended == 0
            return
        assert life.writer.drained
        assert life.writer.settled
        durable = dict(self.learner.durable.ledger.get(0, []))
        for entry_id, payload in life.sealed.items():
            assert durable[entry_id] == payload


ExactlyOnce.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, print_blob=True
)
TestExactlyOnce = ExactlyOnce.TestCase


def claimed(machine: ExactlyOnce) -> Life:
    machine.living.tick()
    assert machine.living.writer.incarnation is not None
    return machine.living


def test_a_forgotten_process_cannot_hide_from_the_holder_that_the_store_was_wiped() -> None:
    """Too rare for chance: the holder must not append to a stream that another made again."""
    machine = ExactlyOnce()
    machine.start()
    forgotten = claimed(machine)
    machine.learner.turn()
    machine.act(count=1)
    machine.write(fault=None, count=1)
    machine.actor_restarts(keep=True)
    holder = claimed(machine)
    machine.learner.turn()
    machine.act(count=2)
    machine.write(fault=None, count=2)
    assert holder.writer.drained  # received, and not read by anybody
    machine.store_wiped(broken=False)
    for _ in range(4):
        forgotten.offer()
        forgotten.tick()
    machine.act(count=1)
    machine.write(fault=None, count=1)
    machine.learner_turns()
    machine.zombie_continues(fault=None, index=0, count=4)
    machine.ledgers_are_right()
    machine.teardown()


def test_two_claims_of_one_number_have_one_author() -> None:
    """A wiped store gave the number twice; the learner names the one it saw."""
    machine = ExactlyOnce()
    machine.start()
    forgotten = claimed(machine)
    machine.store_wiped(broken=False)
    machine.learner_speaks()
    machine.actor_restarts(keep=True)
    holder = claimed(machine)
    assert holder.writer.incarnation == forgotten.writer.incarnation
    machine.learner.turn()
    forgotten.offer()
    machine.act(count=2)
    for _ in range(3):
        forgotten.tick()
        holder.tick()
    assert forgotten.fenced
    machine.ledgers_are_right()
    machine.teardown()
    assert len(machine.learner.durable.ledger[0]) == 2
