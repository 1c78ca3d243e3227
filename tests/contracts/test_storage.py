"""Every storage of the arena holds the same bits: memory, a mapped file, the learner's device.

A tensor on the CPU stands for the device here; `make test-gpu` runs the same on CUDA.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.samplers import FreshThenUniform
from learner.storage import ColumnSpec, HostStorage, in_file, in_memory, on_device
from system.errors import DiskFull
from tests.device_ops import WAITING, Watch
from tests.learner.test_arena import Robots, check_batch, events, latents_of, make_arena

ROWS = 40
COLUMNS = {
    "image": ColumnSpec("uint8", (3, 2, 3)),
    "number": ColumnSpec("float32", ()),
    "half": ColumnSpec("float16", (5,)),
    "flag": ColumnSpec("bool", ()),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PLACES = ["memory", "file", "device"]


def allocate_at(place, folder):
    return {"memory": in_memory, "file": in_file(folder), "device": on_device}[place]


def values_of(random, count):
    return {
        "image": random.integers(256, size=(count, 3, 2, 3)).astype(np.uint8),
        "number": random.normal(size=count).astype(np.float32),
        "half": random.normal(size=(count, 5)).astype(np.float16),
        "flag": random.random(count) < 0.5,
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_read_is_what_was_written_last(place, device, tmp_path):
    device = torch.device(device)
    storage = allocate_at(place, tmp_path)(COLUMNS, ROWS, device)
    assert storage.place == place
    twin = {name: np.zeros((ROWS, *c.shape), c.dtype) for name, c in COLUMNS.items()}
    random = np.random.default_rng(0)
    for turn in range(20):
        rows = random.permutation(ROWS)[: random.integers(0, 9)]
        values = values_of(random, len(rows))
        if turn % 2:
            values.pop("flag")
            given_there = {k: torch.from_numpy(v).to(device) for k, v in values.items()}
            given_there["half"] = given_there["half"].float()  # a latent comes in float32
            storage.put(rows, given_there)
        else:
            storage.write(rows, values)
        for name, array in values.items():
            for row, value in zip(rows, array, strict=True):
                twin[name][row] = value
        asked = random.integers(ROWS, size=(2, 3))
        found = storage.gather(asked, list(COLUMNS))
        for name, column in twin.items():
            assert found[name].device.type == device.type
            assert found[name].cpu().numpy().dtype == column.dtype
            np.testing.assert_array_equal(found[name].cpu().numpy(), column[asked])
            np.testing.assert_array_equal(storage.read(name, asked), column[asked])


@pytest.mark.parametrize("place", PLACES)
def test_what_was_gathered_is_a_copy(place, tmp_path):
    storage = allocate_at(place, tmp_path)(COLUMNS, ROWS, torch.device("cpu"))
    rows = np.arange(2)
    found = storage.gather(rows, ["number"])["number"]
    read = storage.read("number", rows)
    storage.write(rows, {"number": np.ones(2, np.float32)})
    assert found.tolist() == read.tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=50), st.sampled_from([17, 30, 200]), st.integers(0, 9))
def test_an_arena_samples_the_same_wherever_its_rows_lie(tmp_path_factory, history, rows, seed):
    folder = tmp_path_factory.getbasetemp()
    arenas = [make_arena(rows, allocate=allocate_at(place, folder)) for place in PLACES]
    robots, sampler = Robots(), FreshThenUniform(seed)
    for name, *arguments in history:
        if name == "chunk":
            track, length, firsts, lasts, latent = arguments
            chunk = robots.chunk(
                track, length, firsts=list(firsts), lasts=list(lasts), latent=latent
            )
            for arena in arenas:
                arena.insert(chunk)
        elif name != "train":
            getattr(robots, name)(*arguments)
        elif len(contexts := sampler.draw(arenas[0], arguments[0])):
            batches = [arena.sample(contexts) for arena in arenas]
            check_batch(robots, batches[0], contexts)
            for arena, batch in zip(arenas, batches, strict=True):
                assert_equal_batches(batch, batches[0])
                arena.write_back(batch, latents_of(batch.ordinals))


def assert_equal_batches(one, other):
    for name in ("action", "previous_action", "reward", "is_first", "is_last", "is_terminal"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for name, seen in one.observation.items():
        assert torch.equal(seen, other.observation[name])
    assert torch.equal(one.context.deter, other.context.deter)
    assert torch.equal(one.context.stoch, other.context.stoch)
    np.testing.assert_array_equal(one.ordinals, other.ordinals)


def test_sampling_on_a_device_never_waits_for_it():
    arena, robots = make_arena(200, allocate=on_device), Robots()
    for _ in range(5):
        arena.insert(robots.chunk(0, 9))
    contexts = np.array([0, 9])
    latents = latents_of(arena.sample(contexts).ordinals)
    with Watch(forbid=WAITING) as watch:
        batch = arena.sample(contexts)
        arena.write_back(batch, latents)
    assert watch.counts["index_select"] == 10  # a column each: seven of Chunks, three of contexts
    assert watch.counts["index_copy_"] == 2
    check_batch(robots, batch, [0, 9])


def test_a_mapped_file_takes_all_its_bytes_at_once_and_leaves_no_name(tmp_path):
    storage = in_file(tmp_path)({"number": ColumnSpec("float32", ())}, 1000, torch.device("cpu"))
    assert isinstance(storage, HostStorage)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DiskFull, match="bytes free"):
        in_file(tmp_path)({"number": ColumnSpec("float32", ())}, 2**50, torch.device("cpu"))
    assert not list(tmp_path.iterdir())
