"""Log -> segments -> arena: once, in order, whatever restarts; bad bytes are counted, not fatal."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from learner.segments import read_ledger
from system.clock import ManualClock
from system.codec import encode_chunk
from system.errors import Fenced
from system.log.memory import MemoryLog
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.types import Chunk, EntryId
from tests.learner.fleets_for_tests import MODEL, SPEC, FrontHalf, chunk_of
from tests.log_for_tests import FaultyLog


class Life:
    """One actor process; every Chunk has four Steps."""

    def __init__(self, store: MemoryLog, slot: int, number: int, clock: ManualClock) -> None:
        self.log = FaultyLog(store.slot_log(slot))
        claim = Claim(who=f"{slot}:{number}", spec_digest=SPEC.digest, num_copies=1)
        self.writer = SlotWriter(
            self.log,
            slot=slot,
            claim=claim,
            clock=clock,
            spool=SpoolSetup(spool_chunks=4, retain_bytes=1 << 20),
        )
        self.slot, self.sealed = slot, 0

    def turn(self, *, offer: bool = True) -> None:
        if self.writer.incarnation is None:
            self.writer.try_claim()
            return
        if offer and not self.writer.full:
            self.sealed += 1
            self.writer.offer(
                chunk_of(
                    slot=self.slot, incarnation=self.writer.incarnation, sequence=self.sealed,
                    first_step=4 * (self.sealed - 1),
                )
            )  # fmt: skip
        self.writer.tick()


def disturb(dice: random.Random, store: MemoryLog, lives: list[Life], clock: ManualClock) -> None:
    """One of the things that happen to a store or to an actor."""
    what = dice.choice(["request", "reply", "wipe", "tail", "actor"])
    index = dice.randrange(len(lives))
    if what == "actor":
        old = lives[index]
        number = int(old.writer._claim.who.split(":")[1]) + 1
        lives[index] = Life(store, old.slot, number, clock)
    elif what in ("request", "reply"):
        lives[index].log.fault = what
    else:
        store.wipe() if what == "wipe" else store.lose_tail(index, dice.randint(1, 4))
        for life in lives:
            life.log.broken = True


class World:
    """Two slots, a store and a learner, and everything that happens to them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.dice = folder, random.Random(seed)
        self.clock, self.store = ManualClock(), MemoryLog()
        self.half = FrontHalf(self.store.reader(), folder, self.clock)
        self.lives = [Life(self.store, slot, 0, self.clock) for slot in range(2)]

    def chaos(self) -> None:
        self.clock.sleep(0.7)
        for life in self.lives:
            life.turn()
        for _ in range(self.dice.randint(0, 3)):
            self.half.ingest.insert_next()
        if self.dice.random() < 0.3:
            self.half.ingest.commit()
        if self.dice.random() < 0.08:
            disturb(self.dice, self.store, self.lives, self.clock)
        if self.dice.random() < 0.02:
            self.half = FrontHalf(self.store.reader(), self.folder, self.clock)

    def peace(self) -> None:
        self.clock.sleep(1.1)
        for life in self.lives:
            life.turn(offer=False)
        while self.half.ingest.insert_next():
            pass
        self.half.ingest.repeat_notice()
        self.half.ingest.commit()


def check_once_and_in_order(ids: list[EntryId]) -> None:
    assert ids == sorted(set(ids))
    for before, after in pairwise(ids):
        assert after.sequence == (before.sequence + 1 if before[0] == after[0] else 1)


@pytest.mark.parametrize("seed", range(12))
def test_every_durable_chunk_is_in_the_arena_once_and_in_order(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    for _ in range(300):
        world.chaos()
    for _ in range(80):
        world.peace()
    ledger, arena = read_ledger(tmp_path / "replay"), world.half.arena
    for slot in range(2):
        check_once_and_in_order([entry_id for s, entry_id in ledger if s == slot])
    assert arena.end == 4 * len(ledger) > 100
    position = arena.storage.read("observation/position", np.arange(arena.end)).reshape(-1, 4, 2)
    for rows, (slot, entry_id) in zip(position, ledger, strict=True):
        assert (rows[:, 0] == 100 * slot).all()
        assert (rows[:, 1] == 4 * (entry_id.sequence - 1) + np.arange(4)).all()
    for life in world.lives:
        assert life.writer.drained
        mine = [e for s, e in ledger if s == life.slot and e.incarnation == life.writer.incarnation]
        assert len(mine) == life.sealed
    assert not [event for event in world.half.events if event[0] == "gap"]


def rejected(half: FrontHalf, store: MemoryLog, payload: bytes, sequence: int) -> str:
    log = store.slot_log(0)
    log.append(EntryId(1, sequence), payload, create=True)
    half.clock.sleep(11.0)  # or it would only be counted
    assert not half.ingest.insert_next()
    return half.events[-1][1]


def good(sequence: int) -> Chunk:
    return chunk_of(slot=0, incarnation=1, sequence=sequence, first_step=4 * (sequence - 1))


def test_bad_chunks_are_counted_by_reason_and_never_crash(tmp_path: Path) -> None:
    store = MemoryLog()
    half = FrontHalf(store.reader(), tmp_path, ManualClock())
    claim = encode_claim(Claim(who="x", spec_digest=SPEC.digest, num_copies=1))
    store.slot_log(0).append(EntryId(1, 0), claim, create=True)
    chunk = good(1)
    bad_field = dict(chunk.fields, reward=chunk.fields["reward"].astype(np.float64))
    bad_latent = {"deter": np.zeros(3, np.float16), "stoch": np.zeros(MODEL.stoch, np.uint8)}
    scalar = dict(chunk.fields, is_first=np.array(True))
    wide = {"deter": np.zeros(MODEL.deter, np.float64), "stoch": np.zeros(MODEL.stoch, np.int8)}
    flipped = bytearray(encode_chunk(replace(chunk, sequence=3)))
    flipped[-1] ^= 1
    cases = [
        ("digest", encode_chunk(replace(chunk, spec_digest="0" * 16))),
        ("dtype", encode_chunk(replace(chunk, sequence=2, fields=bad_field))),
        ("checksum", bytes(flipped)),
        ("length", encode_chunk(replace(chunk, sequence=4)) + b"more"),
        ("latent", encode_chunk(replace(chunk, sequence=5, latent=bad_latent))),
        ("header", encode_chunk(good(99))),
        ("truncated", b"\x01"),
        ("shape", encode_chunk(replace(chunk, sequence=8, fields=scalar))),
        ("dtype", encode_chunk(replace(chunk, sequence=9, latent=wide))),
    ]
    for sequence, (reason, payload) in enumerate(cases, 1):
        assert f"{reason}:" in rejected(half, store, payload, sequence)
    assert half.ingest.counts["rejected_dtype"] == 2
    assert sum(half.ingest.counts.values()) == len(cases)
    store.slot_log(0).append(EntryId(1, 10), encode_chunk(good(10)), create=True)
    assert half.ingest.insert_next()
    assert half.arena.end == 4
    assert half.ingest.counts["gaps"] == 0
    assert half.ingest.commit()
    notice = store.slot_log(0).notice()
    assert notice is not None
    assert notice.slots[0].durable == EntryId(1, 10)
    assert notice.slots[0].granted == EntryId(1, 11)


def test_an_older_learner_is_fenced_and_what_it_wrote_late_is_read_once(tmp_path: Path) -> None:
    clock, store = ManualClock(), MemoryLog()
    old = FrontHalf(store.reader(), tmp_path, clock)
    life = Life(store, 0, 0, clock)
    for _ in range(6):
        clock.sleep(1.0)
        life.turn()
        old.ingest.insert_next()
        old.ingest.commit()
    new = FrontHalf(store.reader(), tmp_path, clock)
    for _ in range(3):
        clock.sleep(1.0)
        life.turn()
    for half in (old, new):
        while half.ingest.insert_next():
            pass
    with pytest.raises(Fenced):
        old.ingest.commit()
    assert new.ingest.commit()
    ids = read_ledger(tmp_path / "replay")
    assert len(ids) == len(set(ids)) == new.arena.end // 4


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (Claim(who="x", spec_digest=SPEC.digest, num_copies=-3), "header"),
        (Claim(who="x", spec_digest=SPEC.digest, num_copies=2**40), "header"),
        (Claim(who="x", spec_digest="0" * 16, num_copies=1), "digest"),
    ],
)
def test_a_bad_claim_is_counted_and_its_slot_gets_no_strange_credit(
    tmp_path: Path, claim: Claim, reason: str
) -> None:
    store = MemoryLog()
    half = FrontHalf(store.reader(), tmp_path, ManualClock())
    store.slot_log(0).append(EntryId(1, 0), encode_claim(claim), create=True)
    assert not half.ingest.insert_next()
    assert half.ingest.counts[f"rejected_{reason}"] == 1
    assert half.ingest.commit()
    notice = store.slot_log(0).notice()
    assert notice is not None
    assert notice.slots[0].granted <= EntryId(1, 1)


def test_a_wiped_store_is_told_everything_again(tmp_path: Path) -> None:
    store = MemoryLog()
    half = FrontHalf(store.reader(), tmp_path, ManualClock())
    store.wipe()
    half.ingest.repeat_notice()
    assert half.ingest.commit()
    assert store.slot_log(0).notice() is not None
