"""The chunker neither loses, repeats nor reorders a Step."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chunker import Chunker
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import TimeStep

SPEC = EnvSpec(
    name="test",
    observation={"pose": ArraySpec(shape=(2,)), "grid": ArraySpec(shape=(2, 1))},
    action=ActionSpec(kind="continuous", size=2),
)
NOTHING = dict
COLUMNS = {"observation/pose", "observation/grid", "action", "reward", "is_first", "is_last",
           "is_terminal"}  # fmt: skip


def time_step(t, ends, num_copies):
    """Row t of every copy; `ends[t][i]` is "", "last", "terminal", or "cut" (a fault after it)."""
    mark = np.float32([[10 * t + i, i] for i in range(num_copies)])
    before = ends[t - 1] if t else ["last"] * num_copies
    return TimeStep(
        observation={"pose": mark, "grid": mark[:, :, None]},
        reward=np.float32([t + i / 10 for i in range(num_copies)]),
        is_first=np.array([end != "" for end in before]),
        is_last=np.array([end in ("last", "terminal") for end in ends[t]]),
        is_terminal=np.array([end == "terminal" for end in ends[t]]),
    )


def tracks(chunks, num_copies):
    """Columns of each copy, its Chunks joined."""
    return [
        {
            name: np.concatenate([chunk.fields[name] for chunk in chunks if chunk.copy == copy])
            for name in COLUMNS
        }
        for copy in range(num_copies)
    ]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_conserves_steps_order_and_counts(data):
    num_copies = data.draw(st.integers(1, 5))
    length = data.draw(st.integers(1, 7))
    kinds = st.sampled_from(["", "", "", "last", "terminal", "cut"])
    ends = data.draw(
        st.lists(st.lists(kinds, min_size=num_copies, max_size=num_copies), min_size=1, max_size=40)
    )
    chunker = Chunker(SPEC, slot=3, incarnation=2, num_copies=num_copies, chunk_length=length)
    steps = [time_step(t, ends, num_copies) for t in range(len(ends))]
    chunks = []
    for t, step in enumerate(steps):
        action = np.full((num_copies, 2), t % 3 - 1, np.float32)
        chunks += chunker.add(step, action, t, lambda t=t: {"deter": np.full((num_copies, 1), t)})
    full = len(chunks)
    chunks += chunker.flush()
    assert chunker.flush() == []

    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert sum(chunk.num_steps for chunk in chunks) == len(ends) * num_copies
    assert all(chunk.flags == {} for chunk in chunks[:full])
    assert all(chunk.flags == {"partial": True} for chunk in chunks[full:])
    for copy, track in enumerate(tracks(chunks, num_copies)):
        mine = [chunk for chunk in chunks if chunk.copy == copy]
        check_headers(mine, length, length - copy * length // num_copies)
        check_track(track, copy, steps, [each[copy] for each in ends], mine)


def check_headers(mine, length, first_length):
    sizes = [chunk.num_steps for chunk in mine]
    for i, chunk in enumerate(mine):
        start, wanted = sum(sizes[:i]), length if i else first_length
        assert chunk.num_steps == wanted or (chunk.flags and chunk.num_steps < wanted)
        assert chunk.first_step == start
        # Row t was chosen by version t and its posterior was t.
        versions = (chunk.policy_version_min, chunk.policy_version_max)
        assert versions == (start, start + chunk.num_steps - 1)
        assert chunk.latent["deter"].tolist() == [start]


def check_track(track, copy, steps, ends, mine):
    for name in ("reward", "is_first", "is_terminal"):
        assert track[name].tolist() == [getattr(step, name)[copy] for step in steps]
    assert np.array_equal(track["observation/pose"], [s.observation["pose"][copy] for s in steps])
    final_rows = {chunk.first_step + chunk.num_steps - 1 for chunk in mine}
    for t, end in enumerate(ends):
        # A cut shows only with the next row, and only while both rows are in one Chunk.
        cut = end == "cut" and t + 1 < len(ends) and t not in final_rows
        last = end in ("last", "terminal") or cut
        assert track["is_last"][t] == last
        assert np.all(track["action"][t] == (0 if last else t % 3 - 1))


def test_copies_do_not_seal_at_the_same_step():
    chunker = Chunker(SPEC, slot=0, incarnation=1, num_copies=4, chunk_length=8)
    ends = [[""] * 4] * 64
    sealed = [
        [
            chunk.copy
            for chunk in chunker.add(
                time_step(t, ends, 4), np.zeros((4, 2), np.float32), 0, NOTHING
            )
        ]
        for t in range(64)
    ]
    assert max(len(copies) for copies in sealed) == 1
    assert [t for t, copies in enumerate(sealed) if copies == [3]][:2] == [1, 9]


def test_the_latent_is_asked_for_only_at_the_start_of_a_chunk():
    chunker = Chunker(SPEC, slot=0, incarnation=1, num_copies=2, chunk_length=4)
    ends, asked = [["", ""]] * 10, []

    def latent():
        asked.append(t)
        return {"stoch": np.array([[1], [2]], np.uint8)}

    for t in range(10):
        for chunk in chunker.add(time_step(t, ends, 2), np.zeros((2, 2), np.float32), 0, latent):
            assert chunk.latent["stoch"].tolist() == [chunk.copy + 1]
    assert asked == [0, 2, 4, 6, 8]


def test_stores_the_executed_action():
    chunker = Chunker(SPEC, slot=0, incarnation=1, num_copies=1, chunk_length=1)
    (chunk,) = chunker.add(time_step(0, [[""]], 1), np.float32([[3, -0.5]]), 0, NOTHING)
    assert chunk.fields["action"].tolist() == [[1, -0.5]]
    spec = dataclasses.replace(SPEC, action=ActionSpec(kind="discrete", size=2))
    chunker = Chunker(spec, slot=0, incarnation=1, num_copies=1, chunk_length=1)
    (chunk,) = chunker.add(time_step(0, [[""]], 1), np.float32([[0.3, 0.5]]), 0, NOTHING)
    assert chunk.fields["action"].tolist() == [[0, 1]]


def test_a_sealed_chunk_never_changes():
    chunker = Chunker(SPEC, slot=0, incarnation=1, num_copies=1, chunk_length=2)
    ends = [["cut"]] * 8
    chunks = []
    for t in range(8):
        chunks += chunker.add(time_step(t, ends, 1), np.ones((1, 2), np.float32), 0, NOTHING)
        if t == 1:
            kept = {name: column.copy() for name, column in chunks[0].fields.items()}
    assert all(np.array_equal(chunks[0].fields[name], kept[name]) for name in COLUMNS)
    # The row before the cut was sealed already: the reader derives that it was the last.
    assert chunks[0].fields["is_last"].tolist() == [True, False]


@pytest.mark.parametrize("num_copies", [1, 3, 16])
def test_more_copies_than_rows(num_copies):
    chunker = Chunker(SPEC, slot=0, incarnation=1, num_copies=num_copies, chunk_length=2)
    ends = [[""] * num_copies] * 4
    chunks = []
    for t in range(4):
        action = np.zeros((num_copies, 2), np.float32)
        chunks += chunker.add(time_step(t, ends, num_copies), action, 0, NOTHING)
    chunks += chunker.flush()
    assert sum(chunk.num_steps for chunk in chunks) == 4 * num_copies
    assert min(chunk.num_steps for chunk in chunks) >= 1
