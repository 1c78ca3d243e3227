"""One actor over a log, channel and control in memory, and what a learner would do to it."""

from __future__ import annotations

import pytest

from actors.actor import Actor, ActorSetup, Seams
from actors.config import ActorConfig, EnvConfig
from system.channel.memory import MemoryChannel
from system.clock import ManualClock
from system.codec import decode_chunk
from system.control.memory import MemoryControl
from system.log.memory import MemoryLog
from system.log.protocol import Claim, Notice, SlotNotice
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.tick import Progress
from system.types import EntryId
from tests.actors.agents_for_tests import CountingAgent

SLOT = 4
LENGTH = 4


class Fleet:
    """One actor, and what the learner would do."""

    def __init__(
        self, *, name="CartPole-v1", log=None, spool_chunks=8, retain_bytes=1 << 20, copies=2,
        follow="policy", **args,
    ):  # fmt: skip
        self.clock = ManualClock(50.0)
        self.log = log or MemoryLog()
        self.reader = self.log.reader()
        self.channel, self.control = MemoryChannel(), MemoryControl(self.clock)
        self.config = ActorConfig(copies=copies, spool_chunks=spool_chunks)
        claim = Claim(who=f"here:{id(self)}", spec_digest="", num_copies=copies)
        self.writer = SlotWriter(
            self.log.slot_log(SLOT),
            slot=SLOT,
            claim=claim,
            spool=SpoolSetup(spool_chunks=spool_chunks, retain_bytes=retain_bytes),
            clock=self.clock,
        )
        setup = ActorSetup(
            env=EnvConfig(name=name, args=args),
            actor=self.config,
            chunk_length=LENGTH,
            slot=SLOT,
            seed=0,
            who=claim.who,
            follow=follow,
        )
        seams = Seams(
            writer=self.writer, channel=self.channel, control=self.control, clock=self.clock
        )
        self.actor = Actor(setup, seams, self._new_agent)
        self.ticks = 0

    def _new_agent(self, spec):
        self.agent = CountingAgent(spec)
        return self.agent

    def grant(self, sequence, *, incarnation=1, durable=0):
        epoch = 1 if self.ticks else self.reader.claim_epoch()
        self.ticks += 1
        said = SlotNotice(
            granted=EntryId(incarnation, sequence), durable=EntryId(incarnation, durable)
        )
        self.reader.publish(Notice(epoch=epoch, tick=self.ticks, slots={SLOT: said}))

    def turn(self, count):
        """Ticks `count` times; how often each outcome came."""
        outcomes = []
        for _ in range(count):
            outcome = self.actor.tick()
            outcomes.append(outcome.what if isinstance(outcome, Progress) else outcome.reason)
            self.clock.sleep(0.05)
        return outcomes

    def stored(self):
        entries = self.reader.read({SLOT: EntryId(0, 0)}, limit=10_000)
        return [decode_chunk(entry.payload) for entry in entries if entry.entry_id.sequence]

    def drain(self):
        for _ in range(100):
            if self.actor.drain() == Progress("drained"):
                return
            self.clock.sleep(0.05)
        pytest.fail("did not drain")
