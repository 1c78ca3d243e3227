"""What a robot's actor finds in its spool folder when it comes back."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from random import Random

from system.codec import encode_chunk
from system.errors import RejectedChunk
from system.log.disk_spool import DiskShelf
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.types import EntryId
from tests.chunks_for_tests import SPEC, make_chunk
from tests.fuzz.chunk_targets import forge_chunk
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.slow_chunk import read_chunk
from tests.fuzz.target import need

CLAIM = encode_claim(Claim(who="robot:1", spec_digest=SPEC.digest, num_copies=1))
SAVED_CLAIM = CLAIM + zlib.crc32(CLAIM).to_bytes(4, "little")
NAMES = (EntryId(2, 0), EntryId(2, 17))


class SpoolTarget:
    """A message is one file: its first byte says which, the claim's or the Chunk's."""

    name = "spool"
    refusals: tuple[type[Exception], ...] = (RejectedChunk,)
    weight = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "spool"
        chunk = replace(make_chunk(slot=1000, incarnation=2, sequence=17), copy=0)
        self._files = (SAVED_CLAIM, encode_chunk(chunk))

    def valid(self, random: Random) -> bytes:
        number = random.randrange(2)
        return bytes([number]) + self._files[number]

    def forge(self, random: Random) -> bytes:
        number = random.choice((0, 1, 1, 1))
        data = self._files[number]
        change = forge_chunk(random, data, data) if number else mutate_bytes(random, data)
        return bytes([number]) + change

    def feed(self, data: bytes) -> bytes:
        self._folder.mkdir(exist_ok=True)
        for name, whole in zip(NAMES, self._files, strict=True):
            changed = name == NAMES[data[0]]
            (self._folder / str(name)).write_bytes(data[1:] if changed else whole)
        shelf = DiskShelf(self._folder, slot=1000, max_bytes=1 << 24, memory_bytes=1 << 20)
        try:
            found = shelf.found()
            payload = None if found is None else shelf.get(NAMES[data[0]])
        finally:
            shelf.close()
            for path in sorted(self._folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        if payload is None:
            raise RejectedChunk("refused", "set aside")
        return payload

    def judge(self, data: bytes, value: bytes) -> None:
        if data[0] == 0:
            need(
                value == data[1:-4] and zlib.crc32(value).to_bytes(4, "little") == data[-4:],
                "claim",
            )
            return
        need(value == data[1:], "other bytes")
        header, _ = read_chunk(value)
        need([header[key] for key in ("slot", "incarnation", "sequence")] == [1000, 2, 17], "id")
