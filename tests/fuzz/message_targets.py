"""The small messages: claim, notice, policy manifest, the records of the control plane, and the
totals of the exporter."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, fields
from random import Random

import numpy as np

from actors.envs.wire import get_arrays, put_arrays
from deploy.exporter import saved
from deploy.exporter.merge import Place, RunMerge
from deploy.exporter.totals import Totals
from system.channel.manifest import decode_manifest, encode_manifest
from system.codec import pack, unpack
from system.control.protocol import Desired, Event, Lease, Point, ProcessMetrics
from system.control.records import read, write
from system.errors import RejectedChunk
from system.log.messages import decode_claim, decode_notice, encode_claim, encode_notice
from system.log.protocol import Claim, Notice, SlotNotice
from system.metrics import COUNTED, EVENT_KINDS, ROLES
from system.types import EntryId, Snapshot
from tests.fuzz.mutate import mutate_bytes, mutate_tree
from tests.fuzz.target import Target, count, finite, need, text
from tests.fuzz.trees import from_msgpack, to_msgpack, tree_of

RUNS = ("swing", "cart", "a")
BOMB = b"\x01\x81\xa1a\xdd\x00\x40\x00\x00" + b"\x90" * 0x400000
"""Four million empty lists in one small message: 250 MB, if somebody reads it."""


class MessageTarget:
    """Version byte and one msgpack map."""

    name = ""
    refusals: tuple[type[Exception], ...] = (RejectedChunk,)
    weight = 6
    bombs = True

    def encoded(self, random: Random) -> bytes:
        raise NotImplementedError

    def check(self, message: dict, value: object) -> None:
        raise NotImplementedError

    def valid(self, random: Random) -> bytes:
        return self.encoded(random)

    def forge(self, random: Random) -> bytes:
        if self.bombs and random.random() < 0.0005:
            return BOMB
        data = self.encoded(random)
        if random.random() < 0.8:
            other = random.choice(FOREIGN)(random)
            tree = mutate_tree(random, _tree(data), _tree(other))
            data = data[:1] + to_msgpack(tree)
        else:
            data = mutate_bytes(random, data)
        return data if random.random() < 0.9 else mutate_bytes(random, data, most=1)

    def judge(self, data: bytes, value: object) -> None:
        need(data[0] == 1, "version")
        self.check(from_msgpack(data[1:]), value)


def _tree(data: bytes) -> object:
    return tree_of(from_msgpack(data[1:]))


def _id(random: Random) -> EntryId:
    return EntryId(random.randrange(1, 9), random.randrange(1000))


def _claim(random: Random) -> bytes:
    who = f"host{random.randrange(9)}:{random.randrange(9999)}"
    return encode_claim(
        Claim(who=who, spec_digest="0123456789abcdef", num_copies=random.randrange(1, 9))
    )


def _notice(random: Random) -> bytes:
    slots = {
        slot: SlotNotice(durable=_id(random), granted=_id(random), holder=f"host:{slot}")
        for slot in random.sample(range(1200), random.randrange(4))
    }
    return encode_notice(Notice(epoch=1, tick=1, slots=slots))


def _manifest(random: Random) -> bytes:
    snapshot = Snapshot(
        epoch=1, version=random.randrange(1, 9), update=random.randrange(9999), agent_steps=7,
        elapsed_s=random.random(), model_digest="0123456789abcdef", time_s=1.7e9, weights=bytes(64),
    )  # fmt: skip
    return encode_manifest(snapshot, num_pieces=random.randrange(1, 4))


def _desired(random: Random) -> bytes:
    return write(
        Desired(
            generation=random.randrange(9),
            actors=random.randrange(200),
            held=sorted(random.sample(range(200), random.randrange(4))),
            retired={str(random.randrange(200)): random.randrange(1, 9)},
        )
    )


def _lease(random: Random) -> bytes:
    return write(
        Lease(role="actor", slot=random.randrange(9), incarnation=3, who="host:1", doing="acting",
              time_s=random.random() * 1e9)
    )  # fmt: skip


def _event(random: Random) -> bytes:
    return write(
        Event(time_s=1.7e9, role="learner", slot=0, kind="gap", text="x" * random.randrange(99))
    )


def _metrics(random: Random) -> bytes:
    values = {f"m{i}": random.random() for i in range(random.randrange(6))}
    return write(
        ProcessMetrics(role="actor", slot=random.randrange(9), time_s=1.7e9, values=values)
    )


def _point(random: Random) -> bytes:
    values = {f"m{i}": random.random() for i in range(random.randrange(6))}
    return write(Point(time_s=1.7e9 + random.random(), values=values))


def _arrays(random: Random) -> bytes:
    arrays = {f"k{i}": np.ones((2, random.randrange(1, 4)), np.float32) for i in range(3)}
    return pack(put_arrays(arrays | {"eye": np.ones((2, 2, 3), np.uint8)}))


def _totals(random: Random) -> bytes:
    processes = {}
    for slot in random.sample(range(1200), random.randrange(3)):
        totals = processes[Place(random.choice(sorted(ROLES)), slot)] = Totals()
        for _ in range(random.randrange(7)):  # more lives than are kept apart
            keys = random.sample(sorted(COUNTED), 2)
            totals.see(random.random() * 1e9, {key: random.randrange(99) for key in keys})
    events = {random.choice((*EVENT_KINDS, "other")): random.randrange(9)}
    merge = RunMerge()
    merge.restore(processes, events, random.choice(("", str(_id(random)))))
    return saved.encode(merge)


FOREIGN = (_claim, _notice, _manifest, _desired, _lease, _event, _metrics, _totals)


class ClaimTarget(MessageTarget):
    name, encoded, feed = "claim", staticmethod(_claim), staticmethod(decode_claim)

    def check(self, message, value) -> None:
        need(message == asdict(value), "not the same claim")
        need(text(message["who"], 256) and text(message["spec_digest"], 64), "texts")
        need(count(message["num_copies"], 4096) and message["num_copies"], "copies")


class NoticeTarget(MessageTarget):
    name, encoded = "notice", staticmethod(_notice)

    def feed(self, data: bytes) -> Notice:
        return decode_notice(EntryId(3, 4), data)

    def check(self, message, value) -> None:
        need(set(message) == {"slots"} and type(message["slots"]) is list, "no slots")
        rows = message["slots"]
        for row in rows:
            need(type(row) is list and len(row) == 6 and text(row[5], 256), "row")
            need(count(row[0], 2**32 - 1) and all(map(count, row[1:5])), "numbers")
        need(len({row[0] for row in rows}) == len(rows), "a slot twice")
        said = [
            [slot, *each.durable, *each.granted, each.holder] for slot, each in value.slots.items()
        ]
        need(rows == said and (value.epoch, value.tick) == (3, 4), "not the same notice")


class ManifestTarget(MessageTarget):
    name, encoded, feed = "manifest", staticmethod(_manifest), staticmethod(decode_manifest)

    def check(self, message, value) -> None:
        need(message == asdict(value), "not the same manifest")
        need(re.fullmatch("[0-9a-f]{64}", message["sha256"]), "sha256")
        need(count(message["num_bytes"]) and count(message["num_pieces"], 1 << 16), "sizes")
        need(message["num_pieces"] <= message["num_bytes"], "more pieces than bytes")
        facts = message["facts"]
        need(
            set(facts) == {"update", "agent_steps", "elapsed_s", "model_digest", "time_s"}, "facts"
        )
        need(count(facts["update"]) and count(facts["agent_steps"]), "counts")
        need(finite(facts["elapsed_s"]) and finite(facts["time_s"]), "times")
        need(text(facts["model_digest"]), "digest")


class RecordTarget(MessageTarget):
    """Desired, Lease, Event, ProcessMetrics."""

    def __init__(self, name, kind, encoded) -> None:
        self.name, self.encoded, self._kind = name, encoded, kind

    def feed(self, data: bytes) -> object:
        return read(self._kind, data)

    def check(self, message, value) -> None:
        known = {field.name: field.default_factory for field in fields(self._kind)}
        # A list or map that is missing is empty.
        message = {k: make() for k, make in known.items() if make is not MISSING} | message
        need(_shown(message) == _shown(asdict(value)), "not the same record")
        for field, held in message.items():
            if field in ("generation", "actors", "slot", "incarnation"):
                need(count(held), field)
            elif field == "stopping":
                need(type(held) is bool, field)
            elif field == "time_s":
                need(finite(held), field)
            elif field == "held":
                need(all(map(count, held)), field)
            elif field == "retired":
                need(all(count(last) and slot.isdecimal() for slot, last in held.items()), field)
            elif field == "values":
                need(all(type(v) is float and text(k) for k, v in held.items()), field)
            else:
                need(text(held, 16_000), field)
        need(_shown(from_msgpack(write(value)[1:])) == _shown(message), "does not survive writing")


def _shown(message: dict) -> str:
    """For comparing: NaN equals NaN here, and the order of fields means nothing."""
    return repr(sorted(message.items()))


class TotalsTarget(MessageTarget):
    """What an exporter goes on with. Counts of a name that nobody knows are left out."""

    name, encoded, feed = "totals", staticmethod(_totals), staticmethod(saved.decode)

    def check(self, message, value) -> None:
        need(set(message) == {"events", "cursor", "processes"}, "fields")
        cursor = message["cursor"]
        need(cursor == "" or re.fullmatch(r"[0-9]+-[0-9]+", cursor), "cursor")
        need(cursor == "" or all(count(int(part)) for part in cursor.split("-")), "cursor")
        need(value.cursor == cursor, "not the same cursor")
        counted = _counts(message["events"], (*EVENT_KINDS, "other"))
        need({k: v for k, v in value.events.items() if v or k in counted} == counted, "events")
        need(len(message["processes"]) == len(value.totals) <= 1024, "processes")
        for name, said in message["processes"].items():
            role, slot = name.split(":")
            need(role in ROLES and str(int(slot)) == slot and count(int(slot)), "place")
            totals = value.totals[Place(role, int(slot))]
            need(set(said) == {"starts", "base", "lives"}, "fields of a process")
            need(count(said["starts"]) and totals.starts == said["starts"], "starts")
            need(totals.base == _counts(said["base"], COUNTED), "base")
            need(len(said["lives"]) <= 4 and all(map(finite, totals.lives)), "lives")
            lives = {life: _counts(counts, COUNTED) for life, counts in said["lives"].items()}
            need({repr(life): counts for life, counts in totals.lives.items()} == lives, "lives")
        again = saved.encode(value)
        need(saved.encode(saved.decode(again)) == again, "does not survive writing")


def _counts(said: dict, known) -> dict:
    need(all(map(count, said.values())), "counts")
    return {key: number for key, number in said.items() if key in known}


class ArraysTarget(MessageTarget):
    """What a copy in a process of its own sends to its actor."""

    name, encoded = "env arrays", staticmethod(_arrays)
    bombs = False  # from a child of the actor: capped by the socket's reader

    def feed(self, data: bytes) -> object:
        return get_arrays(unpack(data))

    def check(self, message, value) -> None:
        need(set(message) == set(value), "keys")
        for key, (dtype, shape, raw) in message.items():
            need(dtype in ("float32", "uint8"), "dtype")
            size = {"float32": 4, "uint8": 1}[dtype]
            for length in shape:
                need(count(length), "length")
                size *= length
            need(size == len(raw) and value[key].shape == tuple(shape), "shape")
            need(value[key].tobytes() == raw and value[key].dtype.name == dtype, "bytes")


def message_targets() -> list[Target]:
    return [
        ClaimTarget(), NoticeTarget(), ManifestTarget(), ArraysTarget(), TotalsTarget(),
        RecordTarget("desired", Desired, _desired), RecordTarget("lease", Lease, _lease),
        RecordTarget("event", Event, _event), RecordTarget("metrics", ProcessMetrics, _metrics),
        RecordTarget("point", Point, _point),
    ]  # fmt: skip
