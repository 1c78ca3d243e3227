"""The arena under random insertion: what comes out is what went in, in order, of one Track."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.arena import DETER, Arena, row_bytes, row_columns
from learner.samplers import FreshSampler, FreshThenUniform, UniformSampler
from learner.storage import in_memory
from system.config import ModelConfig
from system.errors import ConfigError
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Chunk

SPEC = EnvSpec(
    name="toy",
    observation={"uid": ArraySpec(shape=()), "pair": ArraySpec(shape=(2,))},
    action=ActionSpec(kind="continuous", size=2),
)
MODEL = ModelConfig(
    size="tiny", deter=8, hidden=4, classes=5, units=4, stoch=3, blocks=2, bins=21
)  # fmt: skip
LENGTH = 4


def make_arena(rows=10_000, length=LENGTH, allocate=in_memory):
    return Arena(
        spec=SPEC, model=MODEL, batch_length=length, device=torch.device("cpu"),
        capacity_bytes=rows * row_bytes(SPEC, MODEL), allocate=allocate,
    )  # fmt: skip


def latents_of(uids):
    """What a learner might find for these Steps: a function of the Step's name."""
    uids = torch.as_tensor(uids)
    index = torch.stack([(uids + s) % MODEL.classes for s in range(MODEL.stoch)], -1)
    deter = (uids[..., None] % 1000 + torch.arange(MODEL.deter)).float()
    return Latent(deter, torch.nn.functional.one_hot(index, MODEL.classes).float())


class Robots:
    """Several Tracks that emit Chunks of nameable Steps: uid = ordinal of insertion."""

    def __init__(self):
        self.uid = 0
        self.first_step, self.incarnation, self.run = {}, {}, {}
        self.steps = []
        """Of each uid: (run, place in the run, is_first, is_last, latent known)."""
        self.runs = 0

    def chunk(self, track, length, *, firsts=(), lasts=(), latent=True):
        slot, copy = divmod(track, 2)
        self.incarnation.setdefault(track, 1)
        self.first_step.setdefault(track, 0)
        if track not in self.run:
            self.run[track] = [self.runs, 0]
            self.runs += 1
        uids = np.arange(self.uid, self.uid + length)
        is_first, is_last = np.isin(np.arange(length), firsts), np.isin(np.arange(length), lasts)
        for i in range(length):
            run = self.run[track]
            self.steps.append((run[0], run[1], is_first[i], is_last[i], latent and i == 0))
            run[1] += 1
        stored = latents_of(uids[:1])
        chunk = Chunk(
            spec_digest=SPEC.digest, env="toy", slot=slot, copy=copy, sequence=1,
            incarnation=self.incarnation[track], first_step=self.first_step[track],
            policy_version_min=0, policy_version_max=0,
            fields={
                "observation/uid": uids.astype(np.float32),
                "observation/pair": np.stack([uids, -uids], 1).astype(np.float32),
                "action": np.stack([uids + 0.25, uids + 0.5], 1).astype(np.float32),
                "reward": (uids + 0.125).astype(np.float32),
                "is_first": is_first,
                "is_last": is_last,
                "is_terminal": is_last & (uids % 2 == 0),
            },
            latent={
                "deter": stored.deter[0].numpy().astype(np.float16),
                "stoch": stored.stoch[0].argmax(-1).numpy().astype(np.uint8),
            } if latent else {},
        )  # fmt: skip
        self.uid += length
        self.first_step[track] += length
        return chunk

    def restart(self, track):
        """A new incarnation; its Track begins anew."""
        self.incarnation[track] = self.incarnation.get(track, 1) + 1
        self.first_step[track] = 0
        self.run.pop(track, None)

    def lose(self, track, steps):
        """A gap: Steps that never arrive."""
        self.first_step[track] = self.first_step.get(track, 0) + steps
        self.run.pop(track, None)

    def valid_contexts(self, arena, known=()):
        """By brute force: here, posterior known, and T further Steps of the same run inserted."""
        ends = {run: place for run, place, *_ in self.steps}
        return [
            uid
            for uid in range(arena.oldest, self.uid)
            if self.steps[uid][1] + arena.batch_length <= ends[self.steps[uid][0]]
            and (self.steps[uid][4] or uid in known)
        ]


def check_batch(robots, batch, contexts):
    """Every claim of `Arena.sample`, Step by Step."""
    B, T = batch.ordinals.shape
    uids = batch.observation["uid"].long().numpy()
    np.testing.assert_array_equal(uids, batch.ordinals)
    for b in range(B):
        run, place, *_ = robots.steps[contexts[b]]
        before = contexts[b]
        for t in range(T):
            uid = uids[b, t]
            step = robots.steps[uid]
            assert step[:2] == (run, place + 1 + t)  # consecutive, one Track, one incarnation
            assert batch.observation["pair"][b, t].tolist() == [uid, -uid]
            assert batch.action[b, t].tolist() == [uid + 0.25, uid + 0.5]
            assert batch.previous_action[b, t].tolist() == [before + 0.25, before + 0.5]
            assert batch.reward[b, t].item() == uid + 0.125
            assert batch.is_first[b, t].item() == step[2]
            cut = t + 1 < T and robots.steps[uids[b, t + 1]][2]
            assert batch.is_last[b, t].item() == (step[3] or cut)
            assert batch.is_terminal[b, t].item() == (step[3] and uid % 2 == 0)
            before = uid
    wanted = latents_of(contexts)
    torch.testing.assert_close(batch.context.deter, wanted.deter)
    torch.testing.assert_close(batch.context.stoch, wanted.stoch)


events = st.one_of(
    st.tuples(
        st.just("chunk"),
        st.integers(0, 3),
        st.integers(1, 9),
        st.frozensets(st.integers(0, 8), max_size=2),
        st.frozensets(st.integers(0, 8), max_size=2),
        st.booleans(),
    ),
    st.tuples(st.just("restart"), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.integers(0, 3), st.integers(1, 5)),
    st.tuples(st.just("train"), st.integers(1, 5)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(events, max_size=60), st.sampled_from([17, 30, 64, 1000]), st.integers(0, 9))
def test_whatever_happens_every_sequence_is_a_piece_of_one_track(history, rows, seed):
    arena, robots, known = make_arena(rows), Robots(), set()
    sampler = FreshThenUniform(seed)
    for name, *arguments in history:
        if name == "chunk":
            track, length, firsts, lasts, latent = arguments
            chunk = robots.chunk(
                track, length, firsts=list(firsts), lasts=list(lasts), latent=latent
            )
            arena.insert(chunk)
        elif name == "train":
            contexts = sampler.draw(arena, arguments[0])
            valid = robots.valid_contexts(arena, known)
            assert len(contexts) == (arguments[0] if valid else 0)
            assert set(contexts) <= set(valid)
            if len(contexts):
                batch = arena.sample(contexts)
                check_batch(robots, batch, contexts)
                arena.write_back(batch, latents_of(batch.ordinals))
                known |= set(batch.ordinals.ravel().tolist())
        else:
            getattr(robots, name)(*arguments)
        assert len(arena) <= rows
        assert arena.end == robots.uid
        everything = np.arange(arena.oldest, arena.end)
        allowed = everything[arena.can_be_context(everything)].tolist()
        assert allowed == robots.valid_contexts(arena, known)
        if allowed:
            batch = arena.sample(np.array(allowed))
            check_batch(robots, batch, allowed)


def _train_fresh(arena, trained, robots, count=8):
    drawn = FreshSampler().draw(arena, count)
    if len(drawn):
        batch = arena.sample(drawn)
        arena.write_back(batch, latents_of(batch.ordinals))
        for row in batch.ordinals:
            run = robots.steps[row[0]][0]
            trained.setdefault(run, []).extend(robots.steps[uid][1] for uid in row)
    return len(drawn)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 11)), max_size=50),
    st.sampled_from([1, 3, 8]),
)
def test_fresh_trains_each_step_once_in_order_without_overlap(chunks, count):
    arena, robots, trained = make_arena(), Robots(), {}
    for track, length in chunks:
        arena.insert(robots.chunk(track, length))
        _train_fresh(arena, trained, robots, count)
    while _train_fresh(arena, trained, robots, count):
        pass
    for run, end in {run: place + 1 for run, place, *_ in robots.steps}.items():
        # The very first Step of a run is only ever a context: nothing came before it.
        whole = (end - 1) // LENGTH * LENGTH
        assert trained.get(run, []) == list(range(1, 1 + whole))


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=60), st.sampled_from([20, 40]))
def test_fresh_never_trains_twice_even_when_evicted_or_restarted(history, rows):
    arena, robots, trained = make_arena(rows), Robots(), {}
    for name, *arguments in history:
        if name == "chunk":
            arena.insert(robots.chunk(*arguments[:2]))
        elif name == "train":
            _train_fresh(arena, trained, robots, arguments[0])
        else:
            getattr(robots, name)(*arguments)
    for places in trained.values():
        assert all(a < b for a, b in pairwise(places))


def test_fresh_comes_before_uniform_and_fills_up():
    arena, robots = make_arena(), Robots()
    for track in range(3):
        arena.insert(robots.chunk(track, 2 * LENGTH + 1))
    drawn = FreshThenUniform(0).draw(arena, 8)
    assert drawn[:3].tolist() == [0, 9, 18]
    assert len(drawn) == 8
    assert set(drawn[3:].tolist()) <= {0, 9, 18}  # only first rows are known yet


def test_nothing_to_draw_from():
    arena, robots = make_arena(), Robots()
    assert len(FreshThenUniform(0).draw(arena, 4)) == 0
    arena.insert(robots.chunk(0, LENGTH))
    assert len(FreshThenUniform(0).draw(arena, 4)) == 0
    arena.insert(robots.chunk(0, 1))
    assert FreshThenUniform(0).draw(arena, 4).tolist() == [0] * 4


@pytest.mark.parametrize("sparse", [True, False])
def test_uniform_is_uniform_over_valid_contexts(sparse):
    arena, robots = make_arena(64), Robots()
    known = set()
    for track in (0, 1, 2, 0, 1, 2, 0):
        arena.insert(robots.chunk(track, 12))
    if not sparse:
        everything = np.arange(arena.oldest, arena.end - LENGTH * 6)
        arena.columns.known[everything % arena.capacity] = True
        known = set(everything.tolist())
    valid = robots.valid_contexts(arena, known)
    assert len(valid) == (5 if sparse else 34)
    sampler, drawn = UniformSampler(3), []
    for _ in range(400):
        drawn += sampler.draw(arena, 10).tolist()
    counts = np.array([drawn.count(context) for context in valid])
    assert counts.sum() == 4000
    expected = 4000 / len(valid)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    degrees = len(valid) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5 + 6


def test_uniform_is_uniform_when_few_qualify_among_many():
    arena, robots = make_arena(100_000), Robots()
    arena.insert(robots.chunk(0, 20_000))
    arena.insert(robots.chunk(1, 30))
    drawn = [UniformSampler(seed).draw(arena, 1)[0] for seed in range(300)]
    assert set(drawn) == {0, 20_000}
    assert 105 < drawn.count(0) < 195


def test_write_back_is_guarded_against_rows_taken_over():
    arena, robots = make_arena(16), Robots()
    arena.insert(robots.chunk(0, 8))
    batch = arena.sample(np.array([0]))
    arena.insert(robots.chunk(1, 8))
    arena.insert(robots.chunk(2, 6))  # evicts the first Chunk, reuses rows 0..5
    assert arena.oldest == 8
    everywhere = np.arange(arena.capacity)
    before = arena.storage.read(DETER, everywhere), arena.columns.known.copy()
    arena.write_back(batch, latents_of(batch.ordinals + 500))
    np.testing.assert_array_equal(arena.storage.read(DETER, everywhere), before[0])
    np.testing.assert_array_equal(arena.columns.known, before[1])


def test_written_back_posteriors_seed_later_batches():
    arena, robots = make_arena(), Robots()
    arena.insert(robots.chunk(0, 3 * LENGTH))
    assert not arena.can_be_context(np.array([2]))[0]
    batch = arena.sample(np.array([0]))
    arena.write_back(batch, latents_of(batch.ordinals))
    assert arena.can_be_context(np.array([2]))[0]
    check_batch(robots, arena.sample(np.array([2])), [2])


def test_a_copy_keeps_apart_from_its_neighbor_in_the_same_slot():
    arena, robots = make_arena(), Robots()
    for _ in range(3):
        for track in (0, 1):
            arena.insert(robots.chunk(track, 3))
    batch = arena.sample(np.array([0, 3]))
    assert batch.ordinals.tolist() == [[1, 2, 6, 7], [4, 5, 9, 10]]


def test_chunk_may_be_gone_but_its_successors_stay_sampleable():
    arena, robots = make_arena(20), Robots()
    for _ in range(5):
        arena.insert(robots.chunk(0, 6))
    assert arena.oldest == 12
    check_batch(robots, arena.sample(np.array([12, 18])), [12, 18])


def test_a_new_incarnation_is_never_joined_even_if_its_steps_seem_to_follow():
    arena, robots = make_arena(), Robots()
    arena.insert(robots.chunk(0, 3))
    robots.restart(0)
    robots.lose(0, 3)  # its first Chunk never came: this one starts where the old life ended
    arena.insert(robots.chunk(0, 3))
    assert FreshThenUniform(0).draw(arena, 2).tolist() == []
    arena.insert(robots.chunk(0, 3))
    assert FreshThenUniform(0).draw(arena, 2).tolist() == [3, 3]


def test_a_track_whose_end_was_evicted_begins_anew_and_spoils_nobody():
    arena, robots = make_arena(20), Robots()
    arena.insert(robots.chunk(0, 2))  # rows 0 and 1
    for _ in range(3):
        arena.insert(robots.chunk(2, 8))  # evicts it; rows 0 and 1 are now in this Track
    assert arena.oldest > 2
    arena.insert(robots.chunk(0, 2))
    allowed = robots.valid_contexts(arena)
    assert allowed == [10, 18]
    everything = np.arange(arena.oldest, arena.end)
    arena.columns.known[everything % arena.capacity] = True
    valid = robots.valid_contexts(arena, set(everything.tolist()))
    steps = arena.sample(np.array(valid)).ordinals
    for context, row in zip(valid, steps.tolist(), strict=True):
        assert row == list(range(context + 1, context + 5))


def test_capacity_too_small_is_refused():
    need = row_bytes(SPEC, MODEL)
    message = (
        rf"^replay\.capacity_bytes={15 * need + 1} holds 15 Steps; "
        rf"at least 16 \(4 \* learner\.batch_length\) are needed$"
    )
    with pytest.raises(ConfigError, match=message):
        Arena(
            spec=SPEC, model=MODEL, batch_length=LENGTH, capacity_bytes=15 * need + 1,
            device=torch.device("cpu"),
        )  # fmt: skip
    assert make_arena(16).capacity == 16


def test_row_bytes_is_what_numpy_takes():
    arena = make_arena(100)
    arrays = [getattr(arena.columns, f.name) for f in dataclasses.fields(arena.columns)]
    total = sum(a.nbytes for a in arrays)
    rows = np.arange(arena.capacity)
    total += sum(arena.storage.read(name, rows).nbytes for name in row_columns(SPEC, MODEL))
    assert total == 100 * row_bytes(SPEC, MODEL)


def test_a_chunk_longer_than_the_arena():
    arena, robots = make_arena(16), Robots()
    with pytest.raises(ConfigError, match="a chunk of 17 Steps does not fit an arena of 16"):
        arena.insert(robots.chunk(0, 17))
