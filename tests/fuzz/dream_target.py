"""Dreams: a header in msgpack, and the arrays that it describes."""

from __future__ import annotations

import math
import struct
from random import Random

from system.dream import DreamReport
from system.dream_codec import decode_dream, encode_dream
from system.errors import RejectedChunk
from tests.dreams_for_tests import dream_report, said
from tests.fuzz.mutate import mutate_bytes, mutate_tree
from tests.fuzz.target import Target, count, finite, need, text
from tests.fuzz.trees import from_msgpack, to_msgpack, tree_of

COUNTS = ("update", "frames", "context_steps", "horizon", "starts", "samples")
GAP = {"real_return", "dreamed_return", "policy_return", "ratio", "policy_ratio"}
BOMB = b"\xdd\x00\x3f\x00\x00" + b"\x90" * 0x3F0000
"""Four million empty lists where the header should be."""


class DreamTarget:
    name = "dream"
    refusals = (RejectedChunk,)
    weight = 2

    def valid(self, random: Random) -> bytes:
        changes: dict[str, object] = {}
        if random.random() < 0.5:
            changes = {"earlier_update": None, "earlier_error": None, "parting_step": None}
        return encode_dream(dream_report(random.randrange(1 << 30), **changes))

    def forge(self, random: Random) -> bytes:
        data = self.valid(random)
        header, arrays = _parts(data)
        if random.random() < 0.7:
            packed = to_msgpack(mutate_tree(random, tree_of(from_msgpack(header)), []))
            if random.random() < 0.002:
                packed = BOMB
            if random.random() < 0.3:
                arrays = mutate_bytes(random, arrays)
            data = data[:1] + struct.pack("<I", len(packed)) + packed + arrays
        elif random.random() < 0.5:
            data = data[: len(data) - len(arrays)] + mutate_bytes(random, arrays)
        else:
            data = mutate_bytes(random, data)
        return data

    def feed(self, data: bytes) -> DreamReport:
        return decode_dream(data)

    def judge(self, data: bytes, value: DreamReport) -> None:
        need(data[0] == 1 and len(data) <= 4 << 20, "frame")
        header, arrays = _parts(data)
        need(len(header) <= 1 << 18, "a large header")
        message = from_msgpack(header)
        said_of = said(value)
        for name in COUNTS:
            need(count(message[name]) and message[name] == said_of[name], name)
        for name in ("time_s", "elapsed_s"):
            need(finite(message[name]) and message[name] == said_of[name], name)
        need(set(message["gap"]) == GAP and all(map(finite, message["gap"].values())), "gap")
        need(message["gap"] == said_of["gap"], "not the same gap")
        context, H = message["context_steps"], message["horizon"]
        need(context > 0 and H > 0 and context + H <= 4096, "steps")
        parting, earlier = message["parting_step"], message["earlier_update"]
        need(parting is None or (count(parting, H) and parting), "parting")
        need(earlier is None or count(earlier), "earlier")
        need((parting, earlier) == (value.parting_step, value.earlier_update), "not the same")
        position = _Place()
        curves = [value.model_error, value.repeat_error]
        if earlier is not None:
            curves.append(value.earlier_error)
        for curve in curves:
            _floats(arrays, position, H, curve)
        need(len(message["examples"]) == len(value.examples) <= 64, "examples")
        for told, shown in zip(message["examples"], value.examples, strict=True):
            _example(arrays, position, told, shown, (context, context + H))
        need(position.at == len(arrays), "something is left")


class _Place:
    at = 0


def _example(arrays, position, told, shown, between) -> None:
    need(set(told) == {"steps", "vectors", "images"}, "fields of an example")
    steps = told["steps"]
    need(count(steps, between[1]) and steps > between[0], "steps of an example")
    need(shown.steps == steps, "not the same steps")
    need(len(told["vectors"]) <= 256 and len(told["images"]) <= 16, "too many")
    need([band.name for band in shown.vectors] == told["vectors"], "names")
    need(all(text(name, 200) and name for name in told["vectors"]), "names")
    for band in (*shown.vectors, shown.reward, shown.continues):
        for line in (band.real, band.mean, band.low, band.high):
            _floats(arrays, position, steps, line)
    for (name, *shape), film in zip(told["images"], shown.images, strict=True):
        need(text(name, 200) and name == film.name and name, "name of a film")
        need(len(shape) == 3 and all(count(n, 4096) and n for n in shape), "shape")
        need(shape[2] in (1, 3), "colors")
        for pixels in (film.real, film.dreamed):
            size = steps * math.prod(shape)
            part = arrays[position.at : position.at + size]
            need(len(part) == size and pixels.tobytes() == part, "pixels")
            need(pixels.shape == (steps, *shape), "shape of pixels")
            position.at += size


def _floats(arrays, position, length, line) -> None:
    part = arrays[position.at : position.at + 4 * length]
    need(len(part) == 4 * length, "cut off")
    need(all(map(math.isfinite, struct.unpack(f"<{length}f", part))), "not finite")
    need(line.tobytes() == part and line.shape == (length,), "not the same numbers")
    position.at += 4 * length


def _parts(data: bytes) -> tuple[bytes, bytes]:
    """The header and the arrays."""
    (length,) = struct.unpack_from("<I", data, 1)
    return data[5 : 5 + length], data[5 + length :]


def dream_targets() -> list[Target]:
    return [DreamTarget()]
