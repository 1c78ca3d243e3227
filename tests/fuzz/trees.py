"""Messages as trees, written and read by code that shares nothing with the product.

A map is `Pairs`, a list of [key, value], so that a key may stand twice or be anything. `Raw` is put
into the bytes as it is. `to_msgpack` and `to_json` write whatever a tree says; `from_msgpack` is
strict: the slow reader that judges what the product accepted.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass


class Invalid(Exception):
    """The slow reader's verdict."""


class Pairs(list):
    """A map: a list of [key, value]."""


class Raw(bytes):
    """Bytes that are already encoded."""


@dataclass(frozen=True, slots=True)
class Ext:
    code: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Deep:
    """A list in a list in a list: what a reader must not follow for ever."""

    levels: int


def tree_of(value: object) -> object:
    """Plain data as a tree of its own: nothing in it is shared."""
    if isinstance(value, Pairs):
        return Pairs([tree_of(key), tree_of(inner)] for key, inner in value)
    if isinstance(value, dict):
        return Pairs([key, tree_of(inner)] for key, inner in value.items())
    if isinstance(value, list | tuple):
        return [tree_of(inner) for inner in value]
    return value


def plain(tree: object) -> object:
    """A tree as dicts and lists; Invalid if a map names a key twice or with something not text."""
    if isinstance(tree, Pairs):
        keys = [key for key, _ in tree]
        if any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
            raise Invalid("a key twice, or not text")
        return {key: plain(value) for key, value in tree}
    return [plain(inner) for inner in tree] if isinstance(tree, list) else tree


def to_msgpack(tree: object) -> bytes:
    out: list[bytes] = []
    _pack(tree, out.append)
    return b"".join(out)


def _pack(tree, put) -> None:
    if isinstance(tree, Raw):
        put(tree)
    elif isinstance(tree, Pairs):
        put(_head(len(tree), 0x80, 16, ((0xDE, ">H"), (0xDF, ">I"))))
        for key, value in tree:
            _pack(key, put)
            _pack(value, put)
    elif isinstance(tree, list):
        put(_head(len(tree), 0x90, 16, ((0xDC, ">H"), (0xDD, ">I"))))
        for inner in tree:
            _pack(inner, put)
    else:
        put(_scalar(tree))


def _scalar(value: object) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return _head(len(raw), 0xA0, 32, ((0xD9, ">B"), (0xDA, ">H"), (0xDB, ">I"))) + raw
    if isinstance(value, bytes):
        return _head(len(value), 0, 0, ((0xC4, ">B"), (0xC5, ">H"), (0xC6, ">I"))) + value
    if isinstance(value, Deep):
        return b"\x91" * value.levels + b"\xc0"
    assert isinstance(value, Ext)
    head = _head(len(value.data), 0, 0, ((0xC7, ">B"), (0xC8, ">H"), (0xC9, ">I")))
    return head + struct.pack(">b", value.code) + value.data


def _int(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    if value < 0:
        return b"\xd3" + struct.pack(">q", max(value, -(2**63)))
    return b"\xcf" + struct.pack(">Q", min(value, 2**64 - 1))


def _head(size: int, fix: int, fix_below: int, wide: tuple[tuple[int, str], ...]) -> bytes:
    if size < fix_below:
        return bytes([fix | size])
    for code, form in wide:
        if size < 256 ** struct.calcsize(form):
            return bytes([code]) + struct.pack(form, size)
    raise AssertionError(size)


_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZES = {
    0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
    0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I",
}  # fmt: skip


def from_msgpack(data: bytes) -> dict[str, object]:
    """One map with text keys, each once, and nothing after it."""
    tree, end = _parse(data, 0)
    if end != len(data) or not isinstance(tree, Pairs):
        raise Invalid("not one map")
    return plain(tree)


def _parse(data: bytes, at: int) -> tuple[object, int]:
    code = data[at]
    at += 1
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 256), at
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], at
    if code in _NUMBERS:
        form = _NUMBERS[code]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if code < 0xC0:
        size = code & (0x1F if code >= 0xA0 else 0x0F)
    elif code in _SIZES:
        (size,) = struct.unpack_from(_SIZES[code], data, at)
        at += struct.calcsize(_SIZES[code])
    else:
        raise Invalid(f"code {code:#x}")
    if code < 0xA0 or code >= 0xDC:
        return _container(data, at, size, is_map=code < 0x90 or code >= 0xDE)
    raw = data[at : at + size]
    if len(raw) != size:
        raise Invalid("cut off")
    return (raw if 0xC4 <= code <= 0xC6 else raw.decode("utf-8")), at + size


def _container(data: bytes, at: int, size: int, *, is_map: bool) -> tuple[object, int]:
    found: list = Pairs() if is_map else []
    for _ in range(size):
        value, at = _parse(data, at)
        if is_map:
            inner, at = _parse(data, at)
            found.append([value, inner])
        else:
            found.append(value)
    return found, at


def to_json(tree: object) -> bytes:
    """Writes what a tree says, NaN and keys named twice included."""
    if isinstance(tree, Raw):
        return bytes(tree)
    if isinstance(tree, Pairs):
        pairs = (
            to_json(key if isinstance(key, str) else repr(key)[:40]) + b":" + to_json(value)
            for key, value in tree
        )
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(tree, list):
        return b"[" + b",".join(map(to_json, tree)) + b"]"
    if isinstance(tree, Deep):
        return b"[" * tree.levels + b"]" * tree.levels
    if isinstance(tree, bytes | Ext):
        return json.dumps(repr(tree)[:40]).encode()
    return json.dumps(tree).encode()


def to_pretty(tree: object, level: int = 0) -> bytes:
    """As `json.dumps(..., indent=1)` writes it, without its limit of depth."""
    inner, outer = b"\n" + b" " * (level + 1), b"\n" + b" " * level
    if isinstance(tree, Deep):
        ends = range(level + 1, level + tree.levels)
        opening = b"".join(b"[\n" + b" " * n for n in ends)
        return opening + b"[]" + b"".join(b"\n" + b" " * (n - 1) + b"]" for n in reversed(ends))
    if isinstance(tree, Pairs) and tree:
        pairs = (
            to_json(key if isinstance(key, str) else repr(key)[:40])
            + b": "
            + to_pretty(value, level + 1)
            for key, value in tree
        )
        return b"{" + inner + (b"," + inner).join(pairs) + outer + b"}"
    if isinstance(tree, list) and tree:
        return (
            b"[" + inner + (b"," + inner).join(to_pretty(x, level + 1) for x in tree) + outer + b"]"
        )
    return to_json(tree)
