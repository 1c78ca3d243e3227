"""Judges an accepted Chunk from its bytes and the documented format, not with our codec."""

from __future__ import annotations

import math
import struct
import zlib

from system.specs import EnvSpec
from system.types import Chunk
from tests.fuzz.target import count, need, text
from tests.fuzz.trees import from_msgpack

FORMS = {
    "float16": "e", "float32": "f", "float64": "d", "uint8": "B", "int8": "b", "int16": "h",
    "int32": "i", "int64": "q", "bool": "B",
}  # fmt: skip
COUNTS = (
    "slot", "incarnation", "sequence", "copy", "first_step", "policy_version_min",
    "policy_version_max",
)  # fmt: skip


def judge_chunk(data: bytes, chunk: Chunk, spec: EnvSpec) -> None:
    """Raises unless `data` is a valid Chunk of `spec` and `chunk` says just what it says."""
    header, columns = read_chunk(data)
    need(set(header) == {*COUNTS, "spec_digest", "env", "flags", "table"}, "fields of the header")
    need(all(count(header[key]) for key in COUNTS), "counts")
    need(header["policy_version_min"] <= header["policy_version_max"], "versions")
    need(text(header["env"]) and header["spec_digest"] == spec.digest, "digest")
    need(all(type(held) is bool for held in header["flags"].values()), "flags")
    for key in (*COUNTS, "spec_digest", "env", "flags"):
        need(getattr(chunk, key) == header[key], f"{key} differs")
    held = {("fields", name): array for name, array in chunk.fields.items()}
    held |= {("latent", name): array for name, array in chunk.latent.items()}
    need(set(held) == set(columns), "columns differ")
    for key, (dtype, shape, raw) in columns.items():
        need(held[key].dtype.name == dtype and held[key].shape == shape, f"{key} differs")
        need(held[key].tobytes() == raw, f"{key} has other bytes")
        need(not held[key].flags.writeable, f"{key} may be written")
        form = FORMS[dtype]
        for number in struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw):
            need(math.isfinite(number), f"{key} holds {number}")
    _judge_steps({name: held for (role, name), held in columns.items() if role == "fields"}, spec)


def read_chunk(data: bytes) -> tuple[dict, dict]:
    """(header, (role, name) -> (dtype, shape, bytes))."""
    version, length, checksum = struct.unpack_from("<BII", data)
    need(version == 1 and zlib.crc32(data[9:]) == checksum and length <= 1 << 18, "frame")
    header = from_msgpack(data[9 : 9 + length])
    at = 9 + length
    while at % 8:
        need(data[at] == 0, "padding")
        at += 1
    columns: dict = {}
    need(type(header["table"]) is list and 0 < len(header["table"]) <= 256, "table")
    for role, name, dtype, shape in header["table"]:
        need(role in ("fields", "latent") and text(name) and (role, name) not in columns, "column")
        need(
            type(shape) is list and len(shape) <= 8 and all(count(n) and n for n in shape), "shape"
        )
        size = struct.calcsize(FORMS[dtype])
        for n in shape:
            size *= n
        raw = data[at : at + size]
        need(len(raw) == size, "cut off")
        columns[role, name] = (dtype, tuple(shape), raw)
        need(dtype != "bool" or max(raw) < 2, f"{name} holds what is no boolean")
        at += size
    need(at == len(data), "bytes at the end")
    return header, columns


def _judge_steps(columns: dict, spec: EnvSpec) -> None:
    wanted = {
        f"observation/{key}": (spec.dtype, spec.shape) for key, spec in spec.observation.items()
    }
    wanted |= {"action": ("float32", (spec.action.size,)), "reward": ("float32", ())}
    wanted |= {f"is_{word}": ("bool", ()) for word in ("first", "last", "terminal")}
    need(set(columns) == set(wanted), "names")
    steps = columns["reward"][1][0]
    for name, (dtype, shape) in wanted.items():
        need(columns[name][:2] == (dtype, (steps, *shape)), f"{name} has another form")
    is_last, is_terminal = columns["is_last"][2], columns["is_terminal"][2]
    need(
        all(last for last, end in zip(is_last, is_terminal, strict=True) if end),
        "terminal, not last",
    )
    numbers = struct.unpack(f"<{steps * spec.action.size}f", columns["action"][2])
    for step in range(steps):
        action = numbers[step * spec.action.size : (step + 1) * spec.action.size]
        if spec.action.kind == "continuous":
            need(all(abs(number) <= 1.00001 + 1e-7 for number in action), "action")
        else:
            one_hot = sorted(action) == [0.0] * (spec.action.size - 1) + [1.0]
            need(one_hot or (is_last[step] and not any(action)), "discrete action")
