from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from system.codec import REASONS, check_chunk, decode_chunk, encode_chunk, pack, unpack
from system.errors import RejectedChunk
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Chunk
from tests.chunks_for_tests import SPEC, assert_equal_chunks, make_chunk

DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
COUNTS = st.integers(0, 2**63 - 1)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    columns = st.dictionaries(st.text(max_size=12), ARRAYS, max_size=6)
    counts = ("slot", "incarnation", "sequence", "copy", "first_step")
    oldest, newest = sorted((draw(COUNTS), draw(COUNTS)))
    return Chunk(
        spec_digest=draw(st.text(max_size=16)),
        env=draw(st.text(max_size=16)),
        policy_version_min=oldest,
        policy_version_max=newest,
        flags=draw(st.dictionaries(st.text(max_size=8), st.booleans(), max_size=3)),
        fields=draw(columns.filter(bool)),
        latent=draw(columns),
        **{name: draw(COUNTS) for name in counts},
    )


@st.composite
def specs(draw: st.DrawFn) -> EnvSpec:
    names = st.text("abcdef/_", min_size=1, max_size=8)
    shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
    observation = st.dictionaries(names, shapes.map(lambda shape: ArraySpec(shape=shape)))
    kind = draw(st.sampled_from(["continuous", "discrete"]))
    return EnvSpec(
        name="any",
        observation=draw(observation.filter(bool)),
        action=ActionSpec(kind=kind, size=draw(st.integers(1, 5))),
    )


def reason_of(data: bytes, **options: object) -> str:
    with pytest.raises(RejectedChunk) as caught:
        decode_chunk(data, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def decoded_or_rejected(decode: Callable[[bytes], object], data: bytes) -> None:
    """Anything but RejectedChunk fails the test."""
    reason = REASONS[0]
    with contextlib.suppress(RejectedChunk):
        try:
            decode(data)
        except RejectedChunk as rejected:
            reason = rejected.reason
            raise
    assert reason in REASONS


def forge(header: object, columns: bytes = b"") -> bytes:
    """Sealed bytes with any header: the checksum is right, the content need not be."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    body = packed + bytes(-(9 + len(packed)) % 8) + columns
    return struct.pack("<BII", 1, len(packed), zlib.crc32(body)) + body


def forge_column(role: object, name: object, dtype: object, shape: object, data: bytes) -> bytes:
    return forge(header_of(table=[[role, name, dtype, shape]]), data)


def header_of(**changes: object) -> dict[str, object]:
    data = encode_chunk(make_chunk())
    length = struct.unpack_from("<BII", data)[1]
    return msgpack.unpackb(data[9 : 9 + length]) | changes


@given(chunks())
@settings(max_examples=150, deadline=None)
def test_round_trip_of_any_columns(chunk: Chunk) -> None:
    assert_equal_chunks(chunk, decode_chunk(encode_chunk(chunk)))


@given(specs(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_spec_obeys_it(spec: EnvSpec, length: int) -> None:
    chunk = make_chunk(spec=spec, length=length)
    decoded = decode_chunk(encode_chunk(chunk), spec=spec)
    assert_equal_chunks(chunk, decoded)
    check_chunk(decoded, spec)


def test_decoded_arrays_are_aligned_read_only_views() -> None:
    decoded = decode_chunk(encode_chunk(make_chunk()))
    for array in (*decoded.fields.values(), *decoded.latent.values()):
        assert array.flags.aligned
        assert not array.flags.writeable
        assert array.base is not None


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_chunk_or_rejected(data: bytes) -> None:
    for attempt in (data, b"\x01" + data, forge(data)):
        decoded_or_rejected(decode_chunk, attempt)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_bytes_are_rejected(data: st.DataObject) -> None:
    sealed = bytearray(encode_chunk(make_chunk(length=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 20))
    mutated = bytes(sealed[: len(sealed) - cut])
    if mutated != encode_chunk(make_chunk(length=2)):
        reason_of(mutated)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_headers_with_a_right_checksum_never_crash(data: st.DataObject) -> None:
    """An attacker can compute a checksum too."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
        | st.binary(max_size=4),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )  # fmt: skip
    key = data.draw(st.sampled_from([*header_of(), "surprise"]))
    header = header_of(**{key: data.draw(values)})
    sealed = forge(header, data.draw(st.binary(max_size=64)))
    decoded_or_rejected(lambda data: check_chunk(decode_chunk(data), SPEC), sealed)


def test_reject_reasons_of_the_frame() -> None:
    sealed = encode_chunk(make_chunk())
    assert reason_of(sealed, max_bytes=len(sealed) - 1) == "oversize"
    assert reason_of(b"") == "truncated"
    assert reason_of(sealed[:5]) == "truncated"
    assert reason_of(sealed[:40]) == "truncated"
    assert reason_of(sealed[:-1]) == "truncated"
    assert reason_of(b"\x02" + sealed[1:]) == "version"
    assert reason_of(b"\x80" + sealed[1:]) == "version"  # a pickle
    assert reason_of(sealed + b"\0") == "length"
    assert reason_of(sealed[:-1] + bytes([sealed[-1] ^ 1])) == "checksum"


def test_size_is_capped_before_anything_is_read() -> None:
    assert reason_of(b"\xff" * 1000, max_bytes=999) == "oversize"


def test_digest_must_be_that_of_the_spec() -> None:
    other = replace(SPEC, name="other")
    with pytest.raises(RejectedChunk, match=f"digest: spec {SPEC.digest}, expected {other.digest}"):
        decode_chunk(encode_chunk(make_chunk()), spec=other)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\xc1", "header"),
        (b"\xc7\x01\x05x", "header"),
        (b"\x80\x80", "header"),
        ([1, 2], "header"),
        ({1: 2}, "header"),
        ({"env": "x"}, "header"),
        (header_of(env=3), "header"),
        (header_of(slot=-1), "header"),
        (header_of(slot=True), "header"),
        (header_of(sequence=1.5), "header"),
        (header_of(sequence=2**63), "header"),
        (header_of(flags=[1]), "header"),
        (header_of(flags={"partial": 1}), "header"),
        (header_of(table=[]), "header"),
        (header_of(table=[["fields", "x", "uint8", [1]]] * 300), "header"),
        (header_of(table=[["fields", "x", "uint8", [1]]] * 2), "header"),
        (header_of(table=[["fields", "x", "uint8"]]), "header"),
        (header_of(table=[["other", "x", "uint8", [1]]]), "header"),
        (header_of(table=[["fields", "x", "object", [1]]]), "dtype"),
        (header_of(table=[["fields", "x", "complex64", [1]]]), "dtype"),
        (header_of(table=[["fields", "x", ["uint8"], [1]]]), "dtype"),
        (header_of(table=[["fields", "x", "uint8", [0]]]), "shape"),
        (header_of(table=[["fields", "x", "uint8", [-1]]]), "shape"),
        (header_of(table=[["fields", "x", "uint8", [1.0]]]), "shape"),
        (header_of(table=[["fields", "x", "uint8", [1] * 9]]), "shape"),
        (header_of(table=[["fields", "x", "uint8", 4]]), "shape"),
        (header_of(table=[["fields", "x", "float64", [2**62, 2**62]]]), "truncated"),
        (header_of(table=[["fields", "x", "uint8", [1]]]), "length"),
    ],
)
def test_reject_reasons_of_the_header(header: object, reason: str) -> None:
    assert reason_of(forge(header, b"\0\0")) == reason


def test_bytes_that_are_not_booleans_are_rejected() -> None:
    assert reason_of(forge_column("fields", "is_first", "bool", [2], b"\x01\x02")) == "value"


@pytest.mark.parametrize(
    "array",
    [np.zeros(2, complex), np.array(["a"]), np.array([None]), np.zeros((0, 2)), np.zeros([1] * 9)],
)
def test_what_cannot_travel_is_an_error_of_the_caller(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="column 'x'"):
        encode_chunk(make_chunk(fields={"x": array}))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"extra": np.zeros(4, np.float32)}, "field"),
        ({"reward": np.zeros(3, np.float32)}, "shape"),
        ({"reward": np.zeros((4, 1), np.float32)}, "shape"),
        ({"observation/image": np.zeros((4, 4, 4, 3), np.float32)}, "shape"),
        ({"is_first": np.zeros(5, bool)}, "shape"),
        ({"reward": np.zeros(4, np.float64)}, "dtype"),
        ({"is_last": np.zeros(4, np.uint8)}, "dtype"),
        ({"reward": np.array([0, np.nan, 0, 0], np.float32)}, "nan"),
        ({"observation/position": np.full((4, 3), np.inf, np.float32)}, "nan"),
        ({"action": np.full((4, 2), 1.1, np.float32)}, "action"),
        ({"is_terminal": np.ones(4, bool)}, "flags"),
    ],
)
def test_check_chunk_reasons(fields: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(RejectedChunk) as caught:
        check_chunk(make_chunk(fields=fields), SPEC)
    assert caught.value.reason == reason


def test_check_chunk_needs_every_column_and_the_digest_and_finite_latents() -> None:
    chunk = make_chunk()
    without = {key: value for key, value in chunk.fields.items() if key != "is_first"}
    with pytest.raises(RejectedChunk, match="field: missing or unknown: is_first"):
        check_chunk(replace(chunk, fields=without), SPEC)
    with pytest.raises(RejectedChunk, match="digest"):
        check_chunk(replace(chunk, spec_digest="?"), SPEC)
    with pytest.raises(RejectedChunk, match="nan: deter"):
        check_chunk(replace(chunk, latent={"deter": np.full(2, np.nan, np.float16)}), SPEC)


def test_check_chunk_of_discrete_actions() -> None:
    spec = replace(SPEC, action=ActionSpec(kind="discrete", size=3))
    one_hot = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    ending = np.concatenate([one_hot, np.zeros((1, 3), np.float32)])
    is_last = np.array([False, False, False, True])
    check_chunk(make_chunk(spec=spec, fields={"action": ending, "is_last": is_last}), spec)
    for action in (ending, np.full((4, 3), 0.5, np.float32), np.ones((4, 3), np.float32)):
        with pytest.raises(RejectedChunk, match="action"):
            check_chunk(make_chunk(spec=spec, fields={"action": action}), spec)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary()
        | st.floats(allow_nan=False) | st.lists(st.integers(0, 9)),
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_messages_round_trip(message: dict[str, object]) -> None:
    assert unpack(pack(message)) == message


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_message_or_rejected(data: bytes) -> None:
    for attempt in (data, b"\x01" + data):
        decoded_or_rejected(unpack, attempt)


def test_messages_are_capped_versioned_and_plain() -> None:
    for data, options, reason in [
        (pack({"a": b"x" * 100}), {"max_bytes": 50}, "oversize"),
        (b"", {}, "truncated"),
        (b"\x07\x80", {}, "version"),
        (b"\x01\xc1", {}, "header"),
        (b"\x01\x01", {}, "header"),
        (b"\x01" + b"\x91" * 5000, {}, "header"),
    ]:
        with pytest.raises(RejectedChunk, match=reason):
            unpack(data, **options)
    with pytest.raises(TypeError):
        pack({"a": object()})
