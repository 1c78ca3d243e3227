"""What is predicted against what is really kept."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from actors.config import EnvConfig
from deploy.memory import Memory, arena_bytes, check_memory, free_memory, host_bytes
from deploy.presets import SIZES, laptop
from learner.arena import Arena
from learner.memory import FLOAT_BYTES, update_bytes
from learner.placement import placement
from learner.setup import LearnerSetup
from learner.update import Learning
from system.errors import ConfigError
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.chunks_for_tests import make_chunk
from tests.learning_for_tests import CPU, make_batch

GIB = 1024**3
CONFIG = laptop(EnvConfig(name="x"), run="x")
ARENA_CONFIG = replace(CONFIG, frames=400, replay=replace(CONFIG.replay, capacity_bytes=2 * GIB))
IMAGE = ArraySpec(shape=(64, 64, 3), dtype="uint8")
PIXELS = EnvSpec(
    name="pixels", observation={"image": IMAGE}, action=ActionSpec(kind="continuous", size=1)
)


def kept_bytes(learning, batch):
    """What autograd holds for the backward pass, parameters apart."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        learning.update(batch)
    return sum(kept.values())


@pytest.mark.parametrize("size", ["nano", "1m"])
def test_an_update_takes_about_what_was_predicted(size):
    # In bfloat16 pictures keep half of it, which the prediction leaves as room.
    config = replace(CONFIG.learner, batch_size=4, dream_starts=16)
    learning = Learning(config, SIZES[size], PIXELS, CPU)
    images = torch.randint(256, (4, 16, *IMAGE.shape), dtype=torch.uint8)
    batch = make_batch(PIXELS, 4, 16, model=SIZES[size], observation={"image": images})
    trained = sum(p.numel() for p in learning.parameters() if p.requires_grad)
    kept = kept_bytes(learning, batch)
    predicted = update_bytes(config, SIZES[size], PIXELS)
    assert kept + 4 * trained * FLOAT_BYTES < predicted < 3 * (kept + 4 * trained * FLOAT_BYTES)


def test_the_nearest_size_that_fits_is_named():
    config = replace(CONFIG, model=SIZES["200m"])
    with pytest.raises(ConfigError, match=r"model\.size='200m' needs about .* --size 1m$"):
        check_memory(config, PIXELS, Memory(host_bytes=64 * GIB, device_bytes=GIB * 13 // 10))
    with pytest.raises(ConfigError, match=r"fits is --size 100m$"):
        check_memory(config, PIXELS, Memory(host_bytes=12 * GIB))
    with pytest.raises(ConfigError, match=r"none of the sizes fits: lower learner\.batch_size"):
        check_memory(config, PIXELS, Memory(host_bytes=64 * GIB, device_bytes=GIB // 8))
    with pytest.raises(ConfigError, match=r"or learner\.dream_starts$"):
        check_memory(
            CONFIG,
            replace(PIXELS, observation={"x": ArraySpec(shape=(3,))}),
            Memory(host_bytes=64 * GIB, device_bytes=1),
        )
    check_memory(CONFIG, PIXELS, Memory(host_bytes=8 * GIB))
    assert free_memory(CPU, Path.cwd()).host_bytes > 0
    assert free_memory(CPU, Path.cwd()).disk_bytes < 2**62


def test_cached_files_of_a_container_count_as_free(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 500\nactive_file 200\n")
    assert host_bytes(tmp_path) == 600
    (tmp_path / "memory.stat").unlink()
    assert host_bytes(tmp_path) == 100
    (tmp_path / "memory.max").write_text("max\n")
    assert host_bytes(tmp_path) > 1000


def test_an_arena_that_would_outgrow_the_machine_is_named():
    replay = replace(CONFIG.replay, capacity_bytes=10 * GIB, memory_bytes=10 * GIB)
    config = replace(CONFIG, frames=0, replay=replay)
    message = r"grow to 10\.0 GiB.*replay\.memory_bytes=\d+, .*--set replay\.capacity_bytes=\d+$"
    with pytest.raises(ConfigError, match=message):
        check_memory(config, PIXELS, Memory(host_bytes=8 * GIB))
    short = replace(config, frames=1000)
    check_memory(short, PIXELS, Memory(host_bytes=8 * GIB))
    assert arena_bytes(short, PIXELS) < 20 * 1024**2
    mapped = replace(config, replay=replace(replay, memory_bytes=GIB))
    check_memory(mapped, PIXELS, Memory(host_bytes=8 * GIB))
    with pytest.raises(ConfigError, match=r"mapped.*--set replay\.capacity_bytes=9663676415$"):
        check_memory(mapped, PIXELS, Memory(host_bytes=8 * GIB, disk_bytes=10 * GIB - 1))
    endless = replace(short, replay=replace(replay, capacity_bytes=2**60, memory_bytes=2**60))
    with pytest.raises(ConfigError, match=r"capacity_bytes=1152921504606846976.* can ever hold"):
        check_memory(endless, PIXELS, Memory(host_bytes=8 * GIB))


def test_an_arena_on_the_device_leaves_room_for_the_update():
    replay = replace(CONFIG.replay, capacity_bytes=30 * GIB, memory_bytes=40 * GIB)
    config, host = replace(CONFIG, frames=0, replay=replay), 16 * GIB
    check_memory(config, PIXELS, Memory(host_bytes=host, device_bytes=70 * GIB))
    with pytest.raises(ConfigError, match=r"grow to 30\.0 GiB"):
        check_memory(config, PIXELS, Memory(host_bytes=host, device_bytes=59 * GIB))
    none = replace(config, learner=replace(config.learner, arena_device_share=0.0))
    with pytest.raises(ConfigError, match=r"grow to 30\.0 GiB"):
        check_memory(none, PIXELS, Memory(host_bytes=host, device_bytes=70 * GIB))


def test_an_arena_above_the_budget_of_memory_is_mapped(tmp_path):
    def placed(**changes):
        setup = LearnerSetup(
            config=CONFIG.learner, replay=replace(CONFIG.replay, **changes), model=CONFIG.model,
            folder=tmp_path, frames=0, seed=0, who="test",
        )  # fmt: skip
        return Arena(
            spec=PIXELS, model=CONFIG.model, batch_length=4, device=CPU,
            capacity_bytes=setup.replay.capacity_bytes, allocate=placement(setup, PIXELS, CPU),
        ).storage.place  # fmt: skip

    assert placed(capacity_bytes=2**22, memory_bytes=2**22) == "memory"
    assert placed(capacity_bytes=2**22, memory_bytes=2**22 - 1) == "file"
    with pytest.raises(ConfigError, match=r"replay\.memory_bytes=1.*bytes free.*lower the first"):
        placed(capacity_bytes=2**55, memory_bytes=1)


def test_an_arena_of_images_takes_what_was_predicted():
    """In a process of its own: what others freed before may be kept, and used again."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        steps, held = alone.submit(arena_held).result()
    assert held == pytest.approx(steps * arena_row(ARENA_CONFIG), rel=0.1)


def arena_held():
    """Steps and bytes that are really there, not those that numpy promises."""
    filled(GIB // 64)  # what comes once with the first
    before = resident_bytes()
    arena = filled(GIB // 8)
    return len(arena), resident_bytes() - before


def filled(capacity_bytes):
    arena = Arena(
        spec=PIXELS, model=ARENA_CONFIG.model, batch_length=4, capacity_bytes=capacity_bytes,
        device=CPU,
    )  # fmt: skip
    for sequence in range(1, arena.capacity // 100 + 1):
        chunk = make_chunk(sequence=sequence, length=100, spec=PIXELS)
        arena.insert(replace(chunk, latent={}))
    assert len(arena) > 0.9 * arena.capacity
    return arena


def arena_row(config):
    return arena_bytes(replace(config, frames=1000), PIXELS) / 1000


def resident_bytes():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * 4096
