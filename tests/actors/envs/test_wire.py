"""Frames between an actor and its copies: read whole, or refused."""

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.envs.wire import Inbox, frame, get_arrays, put_arrays
from system.codec import MAX_MESSAGE_BYTES
from system.errors import RejectedChunk


def received(data, piece_bytes=1 << 14):
    """What an inbox makes of bytes that arrive in pieces."""
    ours, theirs = socket.socketpair()
    inbox, messages = Inbox(ours), []
    with ours, theirs:
        for start in range(0, len(data), piece_bytes):
            theirs.sendall(data[start : start + piece_bytes])
            messages.append(inbox.receive())
    return [message for message in messages if message is not None]


@pytest.mark.parametrize("piece_bytes", [1, 3, 1 << 14])
def test_a_message_arrives_however_it_is_cut(piece_bytes):
    arrays = {
        "": np.float32([[1, np.inf], [np.nan, -0.0]]),
        "x/y": np.float32(3),
        "eye": np.uint8([[0, 255]]),
    }
    data = frame({"id": 7, "kind": "step", "arrays": put_arrays(arrays)})
    (message,) = received(data, piece_bytes)
    assert (message["id"], message["kind"]) == (7, "step")
    got = get_arrays(message["arrays"])
    assert {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()} == {
        key: (a.dtype, a.shape, a.tobytes()) for key, a in got.items()
    }


def test_oversize_is_refused_on_both_sides():
    with pytest.raises(ValueError, match="at most"):
        frame({"x": bytes(MAX_MESSAGE_BYTES)})
    with pytest.raises(RejectedChunk, match="oversize"):
        received((MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_refused(body):
    try:
        messages = received(len(body).to_bytes(4, "little") + body)
    except RejectedChunk:
        return
    assert all(isinstance(message, dict) for message in messages)


values = st.recursive(
    st.none() | st.integers() | st.binary(max_size=9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


kinds = st.sampled_from(["float32", "uint8"]) | st.text(max_size=3)


@given(
    values | st.dictionaries(st.text(), st.tuples(kinds, st.lists(st.integers(-1, 9)), st.binary()))
)
def test_anything_is_arrays_or_refused(value):
    if isinstance(value, dict):
        value = {
            key: list(each) if isinstance(each, tuple) else each for key, each in value.items()
        }
    try:
        arrays = get_arrays(value)
    except RejectedChunk:
        return
    assert all(array.dtype in (np.float32, np.uint8) for array in arrays.values())
