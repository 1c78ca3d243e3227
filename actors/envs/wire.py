"""What travels between an actor and a copy in a process of its own.

::

    u32 length | system.codec message: {"id": n, "kind": ..., ...}

An array is `[dtype, shape, raw]`: numbers are float32, images uint8. Whatever
arrives is bounded, and either read or refused.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from system.codec import MAX_MESSAGE_BYTES, Message, pack, unpack
from system.errors import RejectedChunk
from system.types import Array

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 1 << 16
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1")}

Arrays = Mapping[str, Array]


def frame(message: Message) -> bytes:
    """A message as it travels.

    Raises:
      ValueError: it is longer than a message may be.
      TypeError: a value that does not travel.
    """
    body = pack(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(body)} bytes, at most {MAX_MESSAGE_BYTES} travel")
    return _LENGTH.pack(len(body)) + body


class Inbox:
    """Messages from one socket.

    The loop that uses it::

        while (message := inbox.receive()) is None: ...
    """

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._bytes = bytearray()

    def receive(self) -> Message | None:
        """Reads once; None while the message is not whole.

        Raises:
          EOFError: the other side is gone.
          RejectedChunk: the bytes are no message.
        """
        received = self._source.recv(_RECEIVE_BYTES)
        if not received:
            raise EOFError
        self._bytes += received
        return self._take()

    def _take(self) -> Message | None:
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if length > MAX_MESSAGE_BYTES:
            raise RejectedChunk("oversize", f"{length} bytes, at most {MAX_MESSAGE_BYTES} travel")
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[_LENGTH.size : end])
        del self._bytes[:end]
        return unpack(body)


def put_arrays(arrays: Arrays) -> dict[str, object]:
    """float32 or uint8 [...] by key, as they travel; other numbers become float32."""
    return {key: _packed(array) for key, array in arrays.items()}


def get_arrays(value: object) -> dict[str, Array]:
    """Inverse of `put_arrays`: read-only views.

    Raises:
      RejectedChunk: not what `put_arrays` makes.
    """
    if not isinstance(value, dict):
        raise RejectedChunk("field", "not a map of arrays")
    return {str(key): _array(each) for key, each in value.items()}


def _packed(array: Array) -> list[object]:
    name = "uint8" if array.dtype == np.uint8 else "float32"
    return [name, list(array.shape), array.astype(_DTYPES[name], copy=False).tobytes()]


def _array(value: object) -> Array:
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], bytes):
        raise RejectedChunk("field", "an array is not [dtype, shape, bytes]")
    name, shape, raw = value
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise RejectedChunk("dtype", f"an array is neither of {list(_DTYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise RejectedChunk("shape", "a shape is not a list of counts")
    if len(raw) != dtype.itemsize * math.prod(shape):
        raise RejectedChunk("shape", f"{len(raw)} bytes for shape {shape!r:.80}")
    return np.frombuffer(raw, dtype).reshape(shape)
