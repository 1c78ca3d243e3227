"""Small messages as bytes: one version byte and one msgpack map. Bounded, checked; never pickled.

Whatever arrives, either a map of plain values comes out or RejectedChunk is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import msgpack

from system.errors import RejectedChunk

FORMAT_VERSION = 1
MAX_MESSAGE_BYTES = 4 * 1024**2
MAX_INTEGER = 2**63 - 1

Message = dict[str, object]


def pack(message: Mapping[str, object]) -> bytes:
    """Packs a small message: a map of texts, numbers, bytes, lists and maps.

    Raises:
      TypeError: a value that does not travel.
    """
    return bytes([FORMAT_VERSION]) + packb(message)


def unpack(data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Reads what `pack` made.

    Raises:
      RejectedChunk: reason oversize, truncated, version or header.
    """
    check_frame(data, max_bytes)
    return unpackb(data[1:])


def check_frame(data: bytes, max_bytes: int) -> None:
    """Raises RejectedChunk: too long, empty, or of another version."""
    if len(data) > max_bytes:
        raise RejectedChunk("oversize", f"{len(data)} bytes, at most {max_bytes} are taken")
    if not data:
        raise RejectedChunk("truncated", "no bytes at all")
    if data[0] != FORMAT_VERSION:
        raise RejectedChunk("version", f"format {data[0]}, this program reads {FORMAT_VERSION}")


def packb(message: Mapping[str, object]) -> bytes:
    """One map as msgpack, without a version."""
    packed: bytes = msgpack.packb(message, use_bin_type=True, strict_types=True, buf_size=1024)
    return packed


def unpackb(data: bytes) -> Message:
    """Reads one map with text keys and nothing after it; msgpack extensions are refused."""
    try:
        message = msgpack.unpackb(
            data, raw=False, object_pairs_hook=_map_of, ext_hook=_refuse_extension, timestamp=0
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise RejectedChunk("header", f"not msgpack: {error}"[:200]) from None
    if not isinstance(message, dict):
        raise RejectedChunk("header", "not a map with text keys")
    return message


def _map_of(pairs: list[tuple[object, object]]) -> dict[object, object]:
    """Every key is text and stands once: two readers must not see two different messages."""
    found = dict(pairs)
    if len(found) != len(pairs) or not all(type(key) is str for key in found):
        raise ValueError("a map names a key twice, or with something that is not text")
    return found


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} of {len(data)} bytes")


def is_count(value: object) -> bool:
    """Whether this is a whole number that every reader can hold: 0 .. `MAX_INTEGER`."""
    return type(value) is int and 0 <= value <= MAX_INTEGER
