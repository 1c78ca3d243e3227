"""Chunks: the codec with the checks of the learner, and a whole ingest fed through a log."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random

import torch

from learner.arena import Arena
from learner.ingest import Ingest
from learner.segments import SegmentStore
from system.chunk_check import check_chunk
from system.clock import ManualClock
from system.codec import decode_chunk, encode_chunk
from system.config import ModelConfig, ReplayConfig
from system.errors import RejectedChunk
from system.log.memory import MemoryLog
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Chunk, EntryId
from tests.chunks_for_tests import SPEC, make_chunk
from tests.fuzz.mutate import DTYPES, mutate_bytes, mutate_tree
from tests.fuzz.slow_chunk import judge_chunk
from tests.fuzz.target import Target, need
from tests.fuzz.trees import Pairs, from_msgpack, to_msgpack, tree_of

DISCRETE = EnvSpec(
    name="walls",
    observation={"x": ArraySpec(shape=(2,))},
    action=ActionSpec(kind="discrete", size=3),
)
OTHER = replace(SPEC, name="another run")
MODEL = ModelConfig(size="fuzz", deter=8, hidden=8, classes=16, units=8, stoch=4, blocks=1)
PREFIX = struct.Struct("<BII")
BOMB = b"\x81\xa1a\xdd\x03\x00\x00\x00" + b"\x90" * 0x3000000
"""A header of 48 MB that would become 3 GB of empty lists."""


def seal(header: bytes, columns: bytes, *, padding: bytes | None = None, lie: int = 0) -> bytes:
    """The format of `system.codec`, written by hand; the checksum is always right."""
    if padding is None:
        padding = bytes(-(PREFIX.size + len(header)) % 8)
    body = header + padding + columns
    return PREFIX.pack(1, max(0, len(header) + lie), zlib.crc32(body)) + body


class ChunkTarget:
    """`decode_chunk` and `check_chunk`, for one EnvSpec."""

    refusals: tuple[type[Exception], ...] = (RejectedChunk,)
    weight = 6

    def __init__(self, name: str, spec: EnvSpec) -> None:
        self.name = name
        self._spec = spec
        self._samples = [_sample(spec, seed) for seed in range(32)]
        self._foreign = [_sample(OTHER, seed) for seed in range(4)]

    def valid(self, random: Random) -> bytes:
        return encode_chunk(random.choice(self._samples))

    def forge(self, random: Random) -> bytes:
        if random.random() < 0.00005:
            return seal(BOMB, b"")
        if random.random() < 0.02:  # another run's, whole
            return encode_chunk(random.choice(self._foreign))
        return forge_chunk(random, self.valid(random), encode_chunk(random.choice(self._foreign)))

    def feed(self, data: bytes) -> Chunk:
        chunk = decode_chunk(data, spec=self._spec)
        check_chunk(chunk, self._spec)
        return chunk

    def judge(self, data: bytes, value: object) -> None:
        judge_chunk(data, value, self._spec)
        judge_chunk(encode_chunk(value), value, self._spec)


class IngestTarget(ChunkTarget):
    """A learner's whole way: log, checks, segments, arena. One slot, one entry at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__("ingest", SPEC)
        self._log, self._clock = MemoryLog(), ManualClock()
        self._segments = SegmentStore(folder / "ingest", segment_bytes=1 << 20)
        self._arena = Arena(
            spec=SPEC,
            model=MODEL,
            batch_length=4,
            capacity_bytes=1 << 17,
            device=torch.device("cpu"),
        )
        reader = self._log.reader()
        self._reader = reader
        replay = ReplayConfig(ratio=1, chunk_length=6)
        self._ingest = Ingest(
            reader, self._segments, self._arena, replay, self._clock, lambda kind, text: None
        )
        self._segments.epoch = reader.claim_epoch()
        self._slot = self._log.slot_log(0)
        self._sequence = 0
        claim = Claim(who="fuzz", spec_digest=SPEC.digest, num_copies=2)
        self._slot.append(EntryId(1, 0), encode_claim(claim), create=True)
        self._clock.sleep(1.0)
        self._ingest.insert_next()

    def valid(self, random: Random) -> bytes:
        chunk = replace(random.choice(self._samples), sequence=self._sequence + 1)
        return encode_chunk(replace(chunk, first_step=4 * self._sequence))

    def feed(self, data: bytes) -> Chunk:
        self._sequence += 1
        end, refused = self._arena.end, sum(self._refused().values())
        self._slot.append(EntryId(1, self._sequence), data, create=True)
        inserted = self._ingest.insert_next()
        if self._sequence % 50 == 0:
            need(self._ingest.commit(), "nothing to say")
            self._reader.trim(0, EntryId(1, self._sequence))
        if not inserted:
            need(sum(self._refused().values()) == refused + 1, "neither inserted nor refused")
            raise RejectedChunk("refused", "by the ingest")
        chunk = decode_chunk(data)
        need(self._arena.end == end + chunk.num_steps, "the arena did not grow by the chunk")
        need(len(self._arena.tracks) <= 2, "more tracks than copies")
        return chunk

    def judge(self, data: bytes, value: object) -> None:
        super().judge(data, value)
        need((value.slot, value.incarnation, value.sequence) == (0, 1, self._sequence), "id")
        need(value.num_steps <= 6 and value.copy < 2, "longer than a chunk, or a copy too many")
        latent = {name: (array.dtype.name, array.shape) for name, array in value.latent.items()}
        need(latent in ({}, {"deter": ("float16", (8,)), "stoch": ("uint8", (4,))}), "latent")
        need(not latent or max(value.latent["stoch"].tolist()) < 16, "class")

    def _refused(self) -> dict[str, int]:
        return {k: v for k, v in self._ingest.counts.items() if k.startswith("rejected_")}


def forge_chunk(random: Random, data: bytes, foreign: bytes) -> bytes:
    """Takes a sealed Chunk apart, changes something, and seals it again."""
    kind = random.randrange(10)
    if kind == 0:
        return mutate_bytes(random, data)
    header, columns = _open(data)
    tree = tree_of(from_msgpack(header))
    padding, lie = None, 0
    if kind < 5:
        tree = mutate_tree(random, tree, tree_of(from_msgpack(_open(foreign)[0])))
    elif kind < 8:
        columns = _change_table(random, tree, columns)
    elif kind == 8:
        columns = mutate_bytes(random, columns)
    else:
        padding = random.choice((b"", b"\1" * 8, bytes(8), bytes(3), None))
        lie = random.choice((-1, 1, 8, 2**31, 1000))
    packed = to_msgpack(tree)
    if random.random() < 0.05:
        packed = mutate_bytes(random, packed, most=1)
    return seal(packed, columns, padding=padding, lie=lie)


def _open(data: bytes) -> tuple[bytes, bytes]:
    _, length, _ = PREFIX.unpack_from(data)
    start = PREFIX.size + length
    return data[PREFIX.size : start], data[start + -start % 8 :]


def _change_table(random: Random, header: Pairs, columns: bytes) -> bytes:
    """Changes one row of the table; mostly keeps its promise about the number of bytes."""
    table = next(value for key, value in header if key == "table")
    row = random.choice(table)
    kind = random.randrange(8)
    if kind == 0:
        row[2] = random.choice(DTYPES)
    elif kind == 1:  # the same bytes, another shape
        row[3] = random.choice(
            (row[3][::-1], [*row[3], 1], [1, *row[3]], [_product(row[3])], row[3][:-1])
        )
    elif kind == 2:  # the same bytes in smaller or wider elements
        row[2], row[3] = "uint8", [*row[3], {"float32": 4, "float16": 2}.get(row[2], 1)]
    elif kind == 3:
        row[3] = [random.choice((0, 2**31, 2**62, 2**63, -1, 1))] * random.choice((1, 2, 8, 9))
    elif kind == 4:  # columns change names, as two of the same size may
        other = random.choice(table)
        row[1], other[1] = other[1], row[1]
    elif kind == 5:  # something small that is no valid element: not finite, or no boolean
        at = random.randrange(len(columns) // 4) * 4
        word = random.choice(
            (b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff\xff\xff\xff", b"\2\0\0\0", b"\1\1\1\1")
        )
        columns = columns[:at] + word + columns[at + 4 :]
    elif kind == 6:  # a column more, with its bytes, that may shadow another
        role = random.choice(("fields", "latent"))
        table.append([role, random.choice([row[1], "reward", "extra", "deter"]), "uint8", [4]])
        columns += bytes(4)
    else:
        row[0] = random.choice(("fields", "latent"))
    return columns


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _sample(spec: EnvSpec, seed: int) -> Chunk:
    random = Random(seed)
    chunk = make_chunk(spec=spec, length=random.choice((1, 3, 4, 4, 6)), seed=seed)
    latent = chunk.latent if random.random() < 0.7 else {}
    flags = random.choice(({}, {"partial": True}, {"partial": False, "cut": True}))
    return replace(chunk, latent=latent, flags=flags, copy=random.randrange(2))


def chunk_targets(folder: Path) -> list[Target]:
    return [
        ChunkTarget("chunk", SPEC),
        ChunkTarget("discrete chunk", DISCRETE),
        IngestTarget(folder),
    ]
