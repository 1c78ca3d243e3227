"""What is predicted against what is really kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from actors.config import EnvConfig
from deploy.memory import Memory, arena_bytes, check_memory, free_memory
from deploy.presets import SIZES, laptop
from learner.arena import Arena
from learner.memory import FLOAT_BYTES, update_bytes
from learner.update import Learning
from system.errors import ConfigError
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.chunks_for_tests import make_chunk
from tests.learning_for_tests import CPU, make_batch

GIB = 1024**3
CONFIG = laptop(EnvConfig(name="x"), run="x")
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
        check_memory(config, PIXELS, Memory(host_bytes=10 * GIB))
    with pytest.raises(ConfigError, match=r"none of the sizes fits: lower learner\.batch_size"):
        check_memory(config, PIXELS, Memory(host_bytes=64 * GIB, device_bytes=GIB // 8))
    check_memory(CONFIG, PIXELS, Memory(host_bytes=8 * GIB))
    assert free_memory(CPU).host_bytes > 0


def test_an_arena_that_would_outgrow_the_machine_is_named():
    config = replace(CONFIG, frames=0, replay=replace(CONFIG.replay, capacity_bytes=40 * GIB))
    with pytest.raises(ConfigError, match=r"grow to 40\.0 GiB.*--set replay\.capacity_bytes=\d+$"):
        check_memory(config, PIXELS, Memory(host_bytes=16 * GIB))
    short = replace(config, frames=1000)
    check_memory(short, PIXELS, Memory(host_bytes=16 * GIB))
    assert arena_bytes(short, PIXELS) < 20 * 1024**2


def test_an_arena_of_images_takes_what_was_predicted():
    """Bytes that are really there, not those that numpy promises."""
    spec = PIXELS
    config = replace(CONFIG, frames=400, replay=replace(CONFIG.replay, capacity_bytes=2 * GIB))
    before = resident_bytes()
    arena = Arena(
        spec=spec, model=config.model, batch_length=4, capacity_bytes=GIB // 8, device=CPU
    )
    full = arena.capacity
    for sequence in range(1, full // 100 + 1):
        chunk = make_chunk(sequence=sequence, length=100, spec=spec)
        arena.insert(replace(chunk, latent={}))
    held = resident_bytes() - before
    assert len(arena) > 0.98 * full
    assert held == pytest.approx(len(arena) * arena_row(config), rel=0.1)


def arena_row(config):
    return arena_bytes(replace(config, frames=1000), PIXELS) / 1000


def resident_bytes():
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * 4096
