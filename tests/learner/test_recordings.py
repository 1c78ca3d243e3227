"""Which stretches are dreamed beside: by brute force, one Step at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from learner.arena import Arena, row_bytes
from learner.recordings import VARIANCE_BYTES, newest_stretches, variances
from system.specs import ArraySpec
from system.types import Chunk
from tests.learner.fleets_for_tests import MODEL, SPEC

CONTEXT, HORIZON = 2, 3


def arena_of(rows=5000):
    return Arena(
        spec=SPEC, model=MODEL, batch_length=4, device=torch.device("cpu"),
        capacity_bytes=rows * row_bytes(SPEC, MODEL),
    )  # fmt: skip


def chunk(slot, first_step, length, firsts=(), incarnation=1, latent=True):
    steps = first_step + np.arange(length)
    return Chunk(
        spec_digest=SPEC.digest, env=SPEC.name, slot=slot, incarnation=incarnation, sequence=1,
        copy=0, first_step=first_step, policy_version_min=1, policy_version_max=1,
        fields={
            "observation/position": np.stack([steps, np.full(length, slot)], 1).astype(np.float32),
            "action": np.zeros((length, 1), np.float32),
            "reward": steps.astype(np.float32),
            "is_first": np.isin(steps, firsts),
            "is_last": np.zeros(length, bool),
            "is_terminal": np.zeros(length, bool),
        },
        latent={
            "deter": np.zeros(MODEL.deter, np.float16), "stoch": np.zeros(MODEL.stoch, np.uint8),
        } if latent else {},
    )  # fmt: skip


def filled(seed=0, rows=5000):
    """Three Tracks whose episodes begin at random, in Chunks of 4, one of them with a gap."""
    random = np.random.default_rng(seed)
    arena, first_steps = arena_of(rows), [0, 0, 0]
    for number in range(120):
        slot = int(random.integers(3))
        if slot == 2 and number == 60:
            first_steps[2] += 8
        steps = first_steps[slot] + np.arange(4)
        firsts = steps[random.random(4) < 0.1]
        arena.insert(chunk(slot, first_steps[slot], 4, firsts))
        first_steps[slot] += 4
    return arena


def slow_walk(arena, start, length):
    """The Steps after `start`, by what their observations say; None if one is missing."""
    position = arena.storage.read("observation/position", np.arange(arena.capacity))
    at = {tuple(position[o % arena.capacity].tolist()): o for o in range(arena.oldest, arena.end)}
    step, slot = position[start % arena.capacity].tolist()
    return [at.get((step + i + 1, slot)) for i in range(length)]


def is_usable(arena, start):
    steps = slow_walk(arena, start, CONTEXT + HORIZON)
    if None in steps:
        return False
    is_first = arena.storage.read("is_first", np.arange(arena.capacity))
    return not any(is_first[s % arena.capacity] for s in steps[1 : CONTEXT + 1])


@pytest.mark.parametrize("rows", [5000, 130])
def test_stretches_are_recorded_whole_and_share_no_step(rows):
    arena = filled(rows=rows)
    found = newest_stretches(arena, count=6, context=CONTEXT, horizon=HORIZON)
    assert len(found) == 6
    everything = [slow_walk(arena, start, CONTEXT + HORIZON) for start in found]
    assert all(is_usable(arena, start) for start in found)
    steps = [step for stretch in everything for step in stretch]
    assert len(set(steps)) == len(steps)
    batch = arena.sample(found, CONTEXT + HORIZON)
    assert batch.ordinals.tolist() == everything


def test_the_newest_come_first():
    arena = filled()
    known = [o for o in range(arena.oldest, arena.end) if arena.columns.known[o % arena.capacity]]
    usable = [start for start in known if is_usable(arena, start)]
    untrained = newest_stretches(arena, count=1, context=CONTEXT, horizon=HORIZON)
    unseen = {
        start: np.mean([
            not arena.columns.known[s % arena.capacity]
            for s in slow_walk(arena, start, CONTEXT + HORIZON)[CONTEXT:]
        ])
        for start in usable
    }  # fmt: skip
    best = max(usable, key=lambda start: (unseen[start], start))
    assert untrained.tolist() == [best]


def test_those_never_trained_on_are_preferred():
    arena = arena_of()
    arena.insert(chunk(0, 0, 8, firsts=[0]))
    arena.insert(chunk(1, 0, 8, firsts=[0]))
    trained = arena.sample(np.array([8]), 6)
    arena.columns.known[trained.ordinals[0]] = True
    found = newest_stretches(arena, count=1, context=CONTEXT, horizon=HORIZON)
    assert found.tolist() == [0]
    both = newest_stretches(arena, count=2, context=CONTEXT, horizon=HORIZON)
    assert both[0] == 0
    assert both[1] >= 8


def test_too_little_is_nothing():
    arena = arena_of()
    assert not len(newest_stretches(arena, count=4, context=2, horizon=3))
    arena.insert(chunk(0, 0, 5, firsts=[0]))
    assert not len(newest_stretches(arena, count=4, context=2, horizon=3))
    arena.insert(chunk(0, 5, 1))
    assert newest_stretches(arena, count=4, context=2, horizon=3).tolist() == [0]
    arena.insert(chunk(1, 0, 9, firsts=[0, 3]))
    assert newest_stretches(arena, count=4, context=2, horizon=3).tolist() == [0]


def test_a_variance_is_that_of_what_is_still_there():
    arena = filled(rows=130)
    rows = np.arange(arena.oldest, arena.end) % arena.capacity
    values = arena.storage.read("observation/position", rows).astype(np.float64)
    assert variances(arena)["position"].tolist() == pytest.approx(values.var(0).tolist())


def arena_with(array, values):
    """One observation `array`, recorded once for each of `values` [N, ...]."""
    spec = replace(SPEC, observation={"it": array})
    arena = Arena(
        spec=spec, model=MODEL, batch_length=4, device=torch.device("cpu"),
        capacity_bytes=2 * len(values) * row_bytes(spec, MODEL),
    )  # fmt: skip
    told = chunk(0, 0, len(values), firsts=[0])
    fields = {name: value for name, value in told.fields.items() if "position" not in name}
    arena.insert(
        replace(told, spec_digest=spec.digest, fields={**fields, "observation/it": values})
    )
    return arena


def test_the_variance_of_a_single_number():
    values = np.random.default_rng(0).normal(size=30).astype(np.float32)
    found = variances(arena_with(ArraySpec(shape=()), values))["it"]
    assert found.shape == ()
    assert float(found) == pytest.approx(values.astype(np.float64).var())


def test_a_variance_reads_only_so_many_bytes(monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    arena = arena_with(ArraySpec(shape=(4, 4, 3), dtype="uint8"), values)
    assert VARIANCE_BYTES == 32 * 1024**2
    monkeypatch.setattr("learner.recordings.VARIANCE_BYTES", 3 * 48 * 8)
    expected = values[[0, 19, 39]].astype(np.float64).var(0)
    assert variances(arena)["it"].numpy() == pytest.approx(expected)
