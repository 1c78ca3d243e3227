"""Images, numbers and choices together, end to end: environment, arena, update, policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from actors.config import EnvConfig
from actors.envs.registry import env_spec
from deploy.config import check_fit
from deploy.local import LocalRun
from deploy.memory import Memory, check_memory
from deploy.run_folder import RunFolder
from system.codec import decode_chunk, encode_chunk
from system.errors import ConfigError
from tests.chunks_for_tests import assert_equal_chunks, make_chunk
from tests.deploy.configs_for_tests import small
from tests.envs_for_tests import PREFIX

SIGHTS = EnvConfig(name=PREFIX + "Sights-v0")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_mixture_is_trained_on_end_to_end(tmp_path, isolate):
    config = small(env=replace(SIGHTS, isolate=isolate), frames=160)
    learner = replace(config.learner, learning_rate=2e-3, warmup_updates=5)
    config = replace(config, learner=learner, replay=replace(config.replay, ratio=24))
    spec = env_spec(config.env)
    assert {key: (array.shape, array.dtype) for key, array in spec.observation.items()} == {
        "image": ((16, 16, 3), "uint8"), "gray": ((24, 16, 1), "uint8"),
        "numbers": ((2,), "float32"), "choice": ((3,), "float32"),
    }  # fmt: skip
    folder = RunFolder.create(tmp_path, config, spec)
    run = LocalRun(folder.record(), folder.path)
    losses = {}  # by update: lines come by the clock, so a busy machine leaves the first ones out
    while not run.finished:
        run.turn()
        if loss := run.learner._loop.metrics.get("loss/reconstruction"):
            losses.setdefault(run.learner.updates, float(loss))
    arena = run.learner.arena
    run.close()
    assert run.learner.updates > 10
    for name, dtype in {"image": np.uint8, "numbers": np.float32}.items():
        assert arena.storage.read(f"observation/{name}", np.arange(2)).dtype == dtype
    assert list(folder.evaluations())
    losses = list(losses.values())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_keys_that_match_nothing_are_refused_before_anything_is_made():
    config = small(env=SIGHTS)
    config = replace(config, model=replace(config.model, encoder_keys="imag"))
    with pytest.raises(ConfigError, match=r"model\.encoder_keys='imag' matches no observation"):
        check_fit(config, env_spec(SIGHTS))
    config = replace(config, model=replace(small().model, decoder_keys="imag"))
    with pytest.raises(ConfigError, match=r"model\.decoder_keys='imag' matches no observation"):
        check_memory(config, env_spec(SIGHTS), Memory(host_bytes=2**40))


def test_a_chunk_that_cannot_travel_is_refused():
    config = small(env=SIGHTS)
    replay = replace(config.replay, chunk_length=100_000, log_bytes=2**40, capacity_bytes=2**40)
    config = replace(config, replay=replay, actor=replace(config.actor, retain_bytes=2**40))
    with pytest.raises(ConfigError, match=r"replay\.chunk_length=100000 .* use \d+ or less"):
        check_fit(config, env_spec(SIGHTS))


def test_chunks_of_a_mixture_travel_as_they_are():
    spec = env_spec(SIGHTS)
    chunk = make_chunk(spec=spec, length=5)
    assert_equal_chunks(decode_chunk(encode_chunk(chunk), spec=spec), chunk)
