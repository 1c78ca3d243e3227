"""What a learner finds in its folder when it comes back: checkpoint, takeover, segments."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from random import Random

import safetensors.torch
import torch

from learner.bookmark import Bookmark, FreshCursor
from learner.checkpoint import Checkpoint, load
from learner.epochs import Takeover
from learner.segment_format import Damage, Record, SegmentHeader, SlotCursor, scan
from system.codec import encode_chunk
from system.errors import CheckpointError
from system.types import EntryId
from tests.chunks_for_tests import make_chunk
from tests.fuzz.mutate import mutate_bytes, mutate_tree
from tests.fuzz.target import Target, count, finite, need, text
from tests.fuzz.trees import to_json, to_pretty, tree_of

PARTS = ("weights.safetensors", "optimizer.safetensors", "latents.safetensors", "progress.json")
HEAD = struct.Struct("<BI")
LIMIT = 1 << 62


def sealed(tree: object) -> bytes:
    """The format of `learner.sealed`, by hand: the hash is right, whatever the content says."""
    seal = hashlib.sha256(to_pretty(tree)).hexdigest()
    return to_pretty(type(tree)([*tree, ["sha256", seal]]))


def judge_sealed(raw: bytes) -> dict:
    message = json.loads(raw)
    seal = message.pop("sha256")
    need(seal == hashlib.sha256(json.dumps(message, indent=1).encode()).hexdigest(), "seal")
    return message


def forged_sealed(random: Random, tree: object) -> bytes:
    changed = mutate_tree(random, tree)
    if not isinstance(changed, type(tree)) or random.random() < 0.1:
        return mutate_bytes(random, to_pretty(changed))
    return sealed(changed)


class CheckpointTarget:
    """A message is one part and the manifest: u8 part, u32 length of the manifest, both."""

    name = "checkpoint"
    refusals: tuple[type[Exception], ...] = (CheckpointError,)
    weight = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "checkpoints" / "00001-000000007"
        self._folder.mkdir(parents=True)
        torch.manual_seed(0)
        tensors = {"a.weight": torch.randn(3, 2), "b": torch.arange(4)}
        self._parts = {part: safetensors.torch.save(tensors) for part in PARTS[:3]}
        bookmark = Bookmark(
            epoch=1, update=7, version=2, agent_steps=100, elapsed_s=1.5, time_s=1.7e9, replayed=9,
            resets=5, optimizer_steps=7, torch_generator=b"abcd", sampler_generator={"a": {"b": 1}},
            fresh=[FreshCursor(slot=0, copy=1, ordinal=5)],
        )  # fmt: skip
        self._parts["progress.json"] = json.dumps(bookmark.to_json(), indent=1).encode()
        for part, data in self._parts.items():
            (self._folder / part).write_bytes(data)
        self._last = PARTS[0]

    def valid(self, random: Random) -> bytes:
        number = random.randrange(4)
        return self._message(number, self._parts[PARTS[number]], self._manifest({}))

    def forge(self, random: Random) -> bytes:
        number = random.choice((0, 3, 3))
        part, kind = self._parts[PARTS[number]], random.randrange(4)
        if kind == 0:  # damage that nobody sealed
            return self._message(number, mutate_bytes(random, part), self._manifest({}))
        if kind == 1:
            return self._message(number, part, forged_sealed(random, tree_of(self._plain({}))))
        if number == 3:
            part = to_json(mutate_tree(random, tree_of(json.loads(part))))
        else:
            part = mutate_bytes(random, part)
        return self._message(number, part, self._manifest({PARTS[number]: part}))

    def feed(self, data: bytes) -> Checkpoint:
        number, length = HEAD.unpack_from(data)
        (self._folder / self._last).write_bytes(self._parts[self._last])
        self._last = PARTS[number]
        (self._folder / "manifest.json").write_bytes(data[HEAD.size : HEAD.size + length])
        (self._folder / self._last).write_bytes(data[HEAD.size + length :])
        return load(self._folder)

    def judge(self, data: bytes, value: Checkpoint) -> None:
        number, length = HEAD.unpack_from(data)
        manifest = judge_sealed(data[HEAD.size : HEAD.size + length])
        parts = {**self._parts, PARTS[number]: data[HEAD.size + length :]}
        hashes = {part: hashlib.sha256(raw).hexdigest() for part, raw in parts.items()}
        need(manifest["parts"] == hashes and manifest["format"] == 3, "manifest")
        need(
            text(manifest["model_digest"]) and value.model_digest == manifest["model_digest"],
            "digest",
        )
        need(set(value.tensors) == {"weights", "optimizer", "latents"}, "tensors")
        mark = value.bookmark
        for name in ("epoch", "update", "version", "agent_steps", "replayed", "optimizer_steps"):
            need(count(getattr(mark, name), LIMIT), name)
        for name in ("elapsed_s", "time_s"):
            need(finite(float(getattr(mark, name))) and getattr(mark, name) >= 0, name)
        need(
            type(mark.torch_generator) is bytes and type(mark.sampler_generator) is dict,
            "generators",
        )
        need(all(count(n, LIMIT) for each in mark.fresh for n in asdict(each).values()), "fresh")
        written = json.loads(parts["progress.json"])
        need(mark.sampler_generator == written["sampler_generator"], "not the same")

    def _plain(self, changed: dict[str, bytes]) -> dict:
        parts = {**self._parts, **changed}
        hashes = {part: hashlib.sha256(parts[part]).hexdigest() for part in PARTS}
        return {"format": 3, "model_digest": "0123456789abcdef", "parts": hashes}

    def _manifest(self, changed: dict[str, bytes]) -> bytes:
        return sealed(tree_of(self._plain(changed)))

    @staticmethod
    def _message(number: int, part: bytes, manifest: bytes) -> bytes:
        return HEAD.pack(number, len(manifest)) + manifest + part


class TakeoverTarget:
    """`epochs/00006.json`: what a learner found when it began."""

    name = "takeover"
    refusals: tuple[type[Exception], ...] = (ValueError,)
    weight = 1

    def _tree(self, random: Random) -> object:
        takeover = Takeover(
            epoch=random.randrange(9), who="host:1", judged=random.randrange(9),
            checkpoint=random.choice(("", "00001-000000007")), known_steps=random.randrange(9),
            segments=random.choice(({}, {"00001-00000.segment": 7})),
        )  # fmt: skip
        return tree_of(asdict(takeover))

    def valid(self, random: Random) -> bytes:
        return sealed(self._tree(random))

    def forge(self, random: Random) -> bytes:
        return forged_sealed(random, self._tree(random))

    def feed(self, data: bytes) -> Takeover:
        return Takeover.read(data)

    def judge(self, data: bytes, value: Takeover) -> None:
        message = judge_sealed(data)
        need(message == asdict(value), "not the same")
        need(all(count(message[name]) for name in ("epoch", "judged", "known_steps")), "counts")
        need(text(message["who"]) and text(message["checkpoint"]), "texts")
        need(all(count(size) for size in message["segments"].values()), "segments")


class SegmentTarget:
    """A segment file. Damage is left out and told; what is read was written."""

    name = "segment"
    refusals: tuple[type[Exception], ...] = (CheckpointError,)
    weight = 1
    BODY = struct.Struct("<4sIIIQQQ")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "00001-00000.segment"
        self._payloads = [encode_chunk(make_chunk(sequence=n)) for n in range(1, 5)]

    def valid(self, random: Random) -> bytes:
        return self._header(random) + b"".join(self._records(random))

    def forge(self, random: Random) -> bytes:
        kind = random.randrange(3)
        if kind == 0:
            return mutate_bytes(random, self.valid(random))
        if kind == 1:
            header = self._header(random)
            body = to_json(mutate_tree(random, tree_of(json.loads(header[12:]))))
            lie = random.choice((0, 0, 0, 1, 2**31))
            head = struct.pack("<4sII", header[:4], len(body) + lie, zlib.crc32(body))
            return head + body + b"".join(self._records(random))
        records = self._records(random)
        at = random.randrange(len(records))
        records[at] = mutate_bytes(random, records[at])
        return self._header(random) + b"".join(records)

    def feed(self, data: bytes) -> list[SegmentHeader | Record | Damage]:
        self._path.write_bytes(data)
        return list(scan(self._path, None))

    def judge(self, data: bytes, value: list[SegmentHeader | Record | Damage]) -> None:
        at = 0
        for item in value:
            header = isinstance(item, SegmentHeader)
            size = 12 + struct.unpack_from("<I", data, 4)[0] if header else item.num_bytes
            piece = data[at : at + size]
            at += len(piece)
            if isinstance(item, SegmentHeader):
                self._judge_header(item, piece)
            elif isinstance(item, Record):
                head, payload = self.BODY.unpack_from(piece), piece[self.BODY.size :]
                need(head[1] == zlib.crc32(piece[8:]) and head[2] == len(payload), "checksum")
                need(payload == item.payload and head[4:6] == tuple(item.entry_id), "not the same")
                need((head[3], head[6]) == (item.slot, item.ordinal), "slot or ordinal")
            else:
                need(item.offset == at - len(piece), "offset")
        need(at == len(data), "not all bytes are told")

    def _judge_header(self, header: SegmentHeader, piece: bytes) -> None:
        need(zlib.crc32(piece[12:]) == struct.unpack_from("<I", piece, 8)[0], "checksum")
        need(count(header.epoch) and count(header.first_ordinal), "numbers")
        for slot, cursor in header.slots.items():
            need(count(slot, 2**32 - 1) and text(cursor.holder), "slot")
            need(all(count(n, 2**64 - 1) for n in (cursor.num_copies, *cursor.stored)), "cursor")

    def _header(self, random: Random) -> bytes:
        slots = {
            n: SlotCursor(stored=EntryId(1, n), holder="host:1", num_copies=2) for n in range(2)
        }
        return SegmentHeader(epoch=1, first_ordinal=random.randrange(99), slots=slots).to_bytes()

    def _records(self, random: Random) -> list[bytes]:
        return [
            Record(slot=0, entry_id=EntryId(1, n + 1), ordinal=4 * n, payload=payload).to_bytes()
            for n, payload in enumerate(self._payloads[: random.randint(1, 4)])
        ]


def learner_targets(folder: Path) -> list[Target]:
    return [CheckpointTarget(folder), TakeoverTarget(), SegmentTarget(folder)]
