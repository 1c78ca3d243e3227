"""Records of the control plane as bytes: one version byte and one map, checked when read."""

from __future__ import annotations

import contextlib
import math
from dataclasses import MISSING, asdict, fields
from typing import TypeVar

from system.codec import Message, is_count, pack, unpack
from system.control.protocol import Desired, Event, Lease, Point, ProcessMetrics
from system.errors import RejectedChunk

_MAX_BYTES = 256 * 1024
"""Of one record [bytes]."""
_MAX_TEXT_CHARS = 16_000
"""Of one text; the stack of a hang is shorter."""

RecordT = TypeVar("RecordT", Desired, Lease, Event, Point, ProcessMetrics)


def write(record: Desired | Lease | Event | Point | ProcessMetrics) -> bytes:
    """Packs one record; numbers become plain floats where the record says so, texts are cut."""
    message = asdict(record)
    for field in fields(record):
        value = message[field.name]
        if field.type == "str":  # it may quote anything: half a character would not travel
            message[field.name] = value[:_MAX_TEXT_CHARS].encode("utf-8", "replace").decode()
        elif field.type == "float":
            message[field.name] = float(value)
        elif field.type == "dict[str, float]":
            message[field.name] = {name: float(number) for name, number in value.items()}
    return pack(message)


def readable(kind: type[RecordT], values: list[bytes]) -> list[RecordT]:
    """Those that are records: one broken process must not hide all others."""
    found = []
    for data in values:
        with contextlib.suppress(RejectedChunk):
            found.append(read(kind, data))
    return found


def read(kind: type[RecordT], data: bytes) -> RecordT:
    """Reads one record; its fields must be exactly those of `kind`, with values of their types.

    A list or map that an older release did not know yet is empty.

    Raises:
      RejectedChunk: they are not.
    """
    message: Message = unpack(data, max_bytes=_MAX_BYTES)
    types = {field.name: str(field.type) for field in fields(kind)}
    for field in fields(kind):
        if field.default_factory is not MISSING:
            message.setdefault(field.name, field.default_factory())
    if message.keys() != types.keys() or not all(
        _fits(message[name], type_name) for name, type_name in types.items()
    ):
        raise RejectedChunk("header", f"not a {kind.__name__}")
    if not all(_is_proper(value) for value in message.values()):
        raise RejectedChunk("value", f"a {kind.__name__} with a value that cannot be")
    return kind(**message)  # type: ignore[arg-type]


def _fits(value: object, type_name: str) -> bool:
    """Whether a value is exactly of the type that a field's annotation spells."""
    if type_name == "list[int]":
        return isinstance(value, list) and all(type(item) is int for item in value)
    if type_name.startswith("dict"):
        kind = float if type_name == "dict[str, float]" else int
        return isinstance(value, dict) and all(type(item) is kind for item in value.values())
    return type(value).__name__ == type_name


def _is_proper(value: object) -> bool:
    """Whole numbers are counts, times are finite; a measured value (in a dict) may be NaN.

    What is counted by name is counted by slot.
    """
    if isinstance(value, list):
        return all(map(is_count, value))
    if isinstance(value, dict):
        return all(
            type(item) is float or (slot.isdecimal() and slot.isascii() and is_count(item))
            for slot, item in value.items()
        )
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT_CHARS
    if type(value) is int:
        return is_count(value)
    return not isinstance(value, float) or math.isfinite(value)
