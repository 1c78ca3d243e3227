"""Bytes on the wire: Chunks and small messages. Versioned, bounded, checked; never pickled.

A Chunk, little-endian throughout::

    u8 version | u32 header length | u32 crc32 of the rest | header (msgpack), zeros | columns

The header names everything (env, slot, incarnation, sequence, ...) and holds the table of columns:
role, name, dtype, shape. The columns follow as raw buffers in the table's order, wide elements
first, so that each view lies aligned. Decoding copies nothing: the arrays are read-only views.

Whatever arrives, either a valid record comes out or RejectedChunk is raised with one of `REASONS`;
what the steps *mean* is for `check_chunk`. Small messages are `system.message`'s.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

import numpy as np

from system.chunk_check import check_chunk
from system.errors import RejectedChunk
from system.message import (
    FORMAT_VERSION,
    MAX_MESSAGE_BYTES,
    Message,
    check_frame,
    is_count,
    pack,
    packb,
    unpack,
    unpackb,
)
from system.specs import EnvSpec
from system.types import Array, Chunk

__all__ = [
    "FORMAT_VERSION", "MAX_CHUNK_BYTES", "MAX_MESSAGE_BYTES", "REASONS", "Message", "check_chunk",
    "decode_chunk", "encode_chunk", "is_count", "pack", "unpack",
]  # fmt: skip

MAX_CHUNK_BYTES = 64 * 1024**2
MAX_HEADER_BYTES = 256 * 1024
"""One byte of msgpack may become 64 bytes of empty lists: what is parsed must be small [bytes]."""
MAX_COLUMNS = 256
MAX_AXES = 8

REASONS = (
    "oversize", "truncated", "version", "header", "dtype", "shape", "length", "checksum", "value",
    "digest", "field", "nan", "action", "flags", "latent",
)  # fmt: skip
"""Every word a RejectedChunk may carry; the last six come from `check_chunk` and the arena."""

_PREFIX = struct.Struct("<BII")
_DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool",
    )
}  # fmt: skip
_WIRE = {form: dtype for dtype in _DTYPES.values() for form in (dtype, dtype.newbyteorder(">"))}
"""Any byte order -> little-endian."""
_BOOL = _DTYPES["bool"]
_TEXTS = ("spec_digest", "env")
_COUNTS = (
    "slot", "incarnation", "sequence", "copy", "first_step", "policy_version_min",
    "policy_version_max",
)  # fmt: skip
_ROLES = ("fields", "latent")

_Column = tuple[str, str, np.dtype[np.generic], tuple[int, ...]]


def encode_chunk(chunk: Chunk) -> bytes:
    """Packs a Chunk for the log.

    Raises:
      ValueError: a dtype that does not travel, an empty column, or more columns or axes than
        `MAX_COLUMNS`, `MAX_AXES`; names that fill more than `MAX_HEADER_BYTES`.
    """
    columns = [
        (role, name, np.asarray(array))
        for role, arrays in (("fields", chunk.fields), ("latent", chunk.latent))
        for name, array in arrays.items()
    ]
    columns.sort(key=lambda column: -column[2].dtype.itemsize)
    layout = tuple((role, name, array.dtype, array.shape) for role, name, array in columns)
    packed = _pack_header(chunk, _packed_table(layout))
    if len(packed) > MAX_HEADER_BYTES:
        raise ValueError(f"chunk header of {len(packed)} bytes, at most {MAX_HEADER_BYTES} travel")
    # The arrays are joined as they lie in memory: images are copied once.
    body: list[bytes | memoryview] = [packed]
    body.append(bytes(_columns_start(len(packed)) - _PREFIX.size - len(packed)))
    body += [np.ascontiguousarray(array, _WIRE[array.dtype]).data for _, _, array in columns]
    checksum = 0
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    return b"".join([_PREFIX.pack(FORMAT_VERSION, len(packed), checksum), *body])


def decode_chunk(
    data: bytes, *, max_bytes: int = MAX_CHUNK_BYTES, spec: EnvSpec | None = None
) -> Chunk:
    """Reads a Chunk; its arrays are read-only views of `data`.

    Args:
      data: what `encode_chunk` made, or anything at all.
      max_bytes: refused before anything is looked at [bytes].
      spec: if given, the digest must be this one's. `check_chunk` looks at the steps themselves.

    Raises:
      RejectedChunk: with a reason from `REASONS`; nothing else, whatever the bytes.
    """
    check_frame(data, max_bytes)
    if len(data) < _PREFIX.size:
        raise RejectedChunk("truncated", f"{len(data)} bytes are less than the prefix")
    _, header_length, checksum = _PREFIX.unpack_from(data)
    if header_length > MAX_HEADER_BYTES:
        raise RejectedChunk("oversize", f"header of {header_length} bytes")
    end, start = _PREFIX.size + header_length, _columns_start(header_length)
    if len(data) < start:
        raise RejectedChunk("truncated", f"header of {header_length} bytes is cut off")
    header = unpackb(data[_PREFIX.size : end])
    _check_header(header)
    table = _read_table(header["table"])
    _check_length(len(data) - start, table)
    if zlib.crc32(memoryview(data)[_PREFIX.size :]) != checksum:
        raise RejectedChunk("checksum", "the bytes are not those that were sealed")
    if any(data[end:start]):
        raise RejectedChunk("header", "something between header and columns")
    if spec is not None and header["spec_digest"] != spec.digest:
        raise RejectedChunk("digest", f"spec {header['spec_digest']}, expected {spec.digest}")
    return _build(header, _views(data, start, table))


def _columns_start(header_length: int) -> int:
    """Where the first column lies [bytes]: after the header, at a multiple of 8."""
    end = _PREFIX.size + header_length
    return end + -end % 8


def _pack_header(chunk: Chunk, table: bytes) -> bytes:
    """One map, whose last entry is the table that `_packed_table` made."""
    header: Message = {key: getattr(chunk, key) for key in _TEXTS}
    header.update({key: int(getattr(chunk, key)) for key in _COUNTS})
    header["flags"] = {key: bool(value) for key, value in chunk.flags.items()}
    packed = packb(header)
    return bytes([packed[0] + 1]) + packed[1:] + table


@lru_cache(maxsize=256)
def _packed_table(layout: tuple[_Column, ...]) -> bytes:
    """The entry "table" of a header; an actor's Chunks differ in little else than their values."""
    if len(layout) > MAX_COLUMNS:
        raise ValueError(f"chunk has {len(layout)} columns, at most {MAX_COLUMNS} travel")
    table = [[role, name, *_table_entry(name, dtype, shape)] for role, name, dtype, shape in layout]
    return packb({"table": table})[1:]


def _table_entry(
    name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> tuple[str, list[int]]:
    if dtype not in _WIRE:
        raise ValueError(f"column {name!r} has dtype {dtype}; these travel: {list(_DTYPES)}")
    if 0 in shape or len(shape) > MAX_AXES:
        raise ValueError(f"column {name!r} of shape {shape} is empty or has too many axes")
    return dtype.name, list(shape)


def _check_header(header: Message) -> None:
    expected = {*_TEXTS, *_COUNTS, "flags", "table"}
    if set(header) != expected:
        odd = sorted(set(header) ^ expected)
        raise RejectedChunk("header", f"missing or unknown: {', '.join(odd)}"[:200])
    for key in _TEXTS:
        if not isinstance(header[key], str):
            raise RejectedChunk("header", f"{key} is not text")
    for key in _COUNTS:
        if not is_count(header[key]):
            raise RejectedChunk("header", f"{key} is not a count")
    if header["policy_version_min"] > header["policy_version_max"]:  # type: ignore[operator]
        raise RejectedChunk("header", "the oldest policy version is newer than the newest")
    flags = header["flags"]
    if not isinstance(flags, dict) or not all(type(value) is bool for value in flags.values()):
        raise RejectedChunk("header", "flags is not a map of booleans")


def _read_table(table: object) -> list[_Column]:
    if not isinstance(table, list) or not 0 < len(table) <= MAX_COLUMNS:
        raise RejectedChunk("header", f"table is not a list of 1 to {MAX_COLUMNS} columns")
    columns = [_read_column(row) for row in table]
    if len({(role, name) for role, name, _, _ in columns}) != len(columns):
        raise RejectedChunk("header", "a column is named twice")
    return columns


def _read_column(row: object) -> _Column:
    if not isinstance(row, list) or len(row) != 4:
        raise RejectedChunk("header", "a table row is not [role, name, dtype, shape]")
    role, name, dtype, shape = row
    # Only text is shown: the repr of a list nested deeply enough is a RecursionError.
    if role not in _ROLES or not isinstance(name, str):
        raise RejectedChunk(
            "header", f"a column is neither of {' or '.join(_ROLES)}, or has no name"
        )
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        shown = dtype[:40] if isinstance(dtype, str) else type(dtype).__name__
        raise RejectedChunk("dtype", f"column {name!r:.80} has dtype {shown!r}")
    if not isinstance(shape, list) or len(shape) > MAX_AXES:
        raise RejectedChunk("shape", f"column {name!r:.80} has no usable shape")
    if not all(is_count(length) and length > 0 for length in shape):
        raise RejectedChunk("shape", f"column {name!r:.80} has a length that is not a count")
    return role, name, _DTYPES[dtype], tuple(shape)


def _check_length(num_bytes: int, table: list[_Column]) -> None:
    size = sum(_num_bytes(dtype, shape) for _, _, dtype, shape in table)
    if num_bytes < size:
        raise RejectedChunk("truncated", f"{num_bytes} of {size} column bytes")
    if num_bytes > size:
        raise RejectedChunk("length", f"{num_bytes - size} bytes after the last column")


def _num_bytes(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size


def _views(data: bytes, start: int, table: list[_Column]) -> dict[str, dict[str, Array]]:
    views: dict[str, dict[str, Array]] = {role: {} for role in _ROLES}
    for role, name, dtype, shape in table:
        size = _num_bytes(dtype, shape)
        count = size // dtype.itemsize
        if dtype is _BOOL and data[start : start + count].translate(None, b"\0\1"):
            raise RejectedChunk("value", f"column {name!r:.80} holds bytes that are not booleans")
        views[role][name] = np.frombuffer(data, dtype, count, start).reshape(shape)
        start += size
    return views


def _build(header: Message, views: dict[str, dict[str, Array]]) -> Chunk:
    values = {key: header[key] for key in (*_TEXTS, *_COUNTS, "flags")}
    return Chunk(fields=views["fields"], latent=views["latent"], **values)  # type: ignore[arg-type]
