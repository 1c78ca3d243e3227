"""However a vector environment resets itself, the Chunks are the same."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chunker import Chunker
from actors.config import EnvConfig
from actors.envs.batched import copy_seed
from actors.envs.registry import make_env
from actors.envs.vector import from_vector
from system.errors import ConfigError
from tests import envs_for_tests  # noqa: F401 - registers the environments
from tests.actors.agents_for_tests import action_of

LENGTH = 5


def chunks_of_vector(name, mode, seeds, ticks):
    env = SyncVectorEnv([lambda: gymnasium.make(name) for _ in seeds], autoreset_mode=mode)
    rows = from_vector(env, name=name)
    chunker = Chunker(rows.spec, slot=0, incarnation=1, num_copies=len(seeds), chunk_length=LENGTH)
    chunks, tick = [], rows.reset(seeds)
    for _ in range(ticks):
        for time_step, copies in tick:
            action = action_of(rows.spec, time_step)
            chunks += chunker.add(time_step, action, 0, dict, copies=copies)
        tick = rows.step(action)
    rows.close()
    return chunks + chunker.flush()


def chunks_of_ours(name, seed, num_copies, ticks):
    env = make_env(EnvConfig(name=name), num_copies=num_copies, seed=seed)
    chunker = Chunker(env.spec, slot=0, incarnation=1, num_copies=num_copies, chunk_length=LENGTH)
    chunks, time_step = [], env.reset()
    for _ in range(ticks):
        action = action_of(env.spec, time_step)
        chunks += chunker.add(time_step, action, 0, dict)
        time_step = env.step(action)
    env.close()
    return chunks + chunker.flush()


def whole_tracks(chunks, num_copies):
    """Per copy, the full Chunks as bytes, keyed by their first step."""
    return [
        {
            chunk.first_step: {name: array.tobytes() for name, array in chunk.fields.items()}
            for chunk in chunks
            if chunk.copy == copy and not chunk.flags
        }
        for copy in range(num_copies)
    ]


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(["Walk-v0", "DiscreteWalk-v0", "CartPole-v1"]),
    seed=st.integers(0, 1000),
    num_copies=st.integers(1, 3),
    ticks=st.integers(1, 60),
)
def test_all_modes_and_ours_give_the_same_chunks(name, seed, num_copies, ticks):
    ours = whole_tracks(chunks_of_ours(name, seed, num_copies, ticks), num_copies)
    seeds = [copy_seed((seed, 0), copy) for copy in range(num_copies)]
    for mode in AutoresetMode:
        theirs = whole_tracks(chunks_of_vector(name, mode, seeds, ticks), num_copies)
        for mine, other in zip(ours, theirs, strict=True):
            # Without a tick for the reset the other modes get at most further in as many ticks.
            assert set(mine) <= set(other)
            assert mine == {first_step: other[first_step] for first_step in mine}


def test_next_step_mode_is_ours_sequence_number_by_sequence_number():
    seeds = [copy_seed((0, 0), copy) for copy in range(3)]
    ours = chunks_of_ours("Walk-v0", 0, 3, 40)
    theirs = chunks_of_vector("Walk-v0", AutoresetMode.NEXT_STEP, seeds, 40)
    assert [chunk.entry_id for chunk in ours] == [chunk.entry_id for chunk in theirs]
    assert [chunk.copy for chunk in ours] == [chunk.copy for chunk in theirs]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_truncated_is_last_but_not_terminal(mode):
    chunks = chunks_of_vector("Limited-v0", mode, [1], 12)
    is_last = np.concatenate([chunk.fields["is_last"] for chunk in chunks])
    is_terminal = np.concatenate([chunk.fields["is_terminal"] for chunk in chunks])
    assert is_last[:12].tolist() == [False, False, False, True] * 3
    assert not is_terminal.any()


def test_a_vector_that_does_not_say_how_it_resets_is_refused():
    env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")])
    env.metadata = {}
    with pytest.raises(ConfigError, match="does not say how it resets"):
        from_vector(env, name="mine")
    env.close()
