"""Names, arguments, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces

from actors.config import EnvConfig
from actors.envs import dm_control
from actors.envs.registry import env_spec, make_env, make_single
from system.errors import ConfigError
from tests.envs_for_tests import PREFIX


@pytest.mark.parametrize(
    ("name", "keys", "kind", "size"),
    [
        ("dm_control/cartpole-swingup", {"position": (3,), "velocity": (2,)}, "continuous", 1),
        ("dm_control/walker-walk", {"orientations": (14,), "height": (1,), "velocity": (9,)},
         "continuous", 6),
        ("CartPole-v1", {"vector": (4,)}, "discrete", 2),
        ("InvertedPendulum-v5", {"vector": (4,)}, "continuous", 1),
        ("Blackjack-v1", {"0": (32,), "1": (11,), "2": (2,)}, "discrete", 2),
        ("FrozenLake-v1", {"vector": (16,)}, "discrete", 4),
        (PREFIX + "Walk-v0", {"where": (2,), "nested/cell": (4,), "nested/on": (3,)},
         "continuous", 2),
    ],
)  # fmt: skip
def test_spec_of_real_environments(name, keys, kind, size):
    spec = env_spec(EnvConfig(name=name, action_repeat=2))
    assert {key: array.shape for key, array in spec.observation.items()} == keys
    assert (spec.action.kind, spec.action.size) == (kind, size)
    assert spec.name == name
    assert spec.action_repeat == 2


@pytest.mark.parametrize("name", ["dm_control/cartpole-swingup", "InvertedPendulum-v5"])
def test_stepping_gives_finite_float32(name):
    env = make_env(EnvConfig(name=name), num_copies=2, seed=0)
    time_step = env.reset()
    assert time_step.is_first.all()
    for _ in range(5):
        time_step = env.step(np.ones((2, env.spec.action.size), np.float32))
        for key, array in time_step.observation.items():
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
            assert array.shape == (2, *env.spec.observation[key].shape)
    env.close()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("dm_control/cartpole-swingupp", {}, "did you mean 'dm_control/cartpole-swingup'"),
        ("CartPol-v1", {}, "did you mean 'CartPole-v1'"),
        ("no_such_module:X-v0", {}, "cannot import 'no_such_module'"),
        (PREFIX + "Wolk-v0", {}, "did you mean 'tests.envs_for_tests:Walk-v0'"),
        ("dm_control/cartpole-swingup", {"tim_limit": 3}, "no argument 'tim_limit'; did you mean"),
        ("CartPole-v1", {"sutton_barto": True}, "no argument 'sutton_barto'; did you mean 'sutton"),
        ("HalfCheetah-v5", {"forward": 1}, "no argument 'forward'; did you mean 'forward_reward"),
        ("dm_control/lqr-lqr_2_1", {}, "without finite bounds"),
    ],
)
def test_mistakes_are_named(name, args, message):
    with pytest.raises(ConfigError, match=message):
        make_single(EnvConfig(name=name, args=args))


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), None, "channels first: transpose"),
        (spaces.Box(0, 255, (4, 84, 84, 3), np.uint8), None, "stacked images: show the newest"),
        (spaces.Dict(eye=spaces.Box(0, 1, (64, 64, 3))), None, "under 'eye', images of float32"),
        (spaces.Text(5), None, "Text.*not supported yet"),
        (spaces.Dict(a=spaces.Box(-1, 1), b=spaces.Sequence(spaces.Discrete(2))), None, "'b'"),
        (spaces.Dict({"a/b": spaces.Box(-1, 1), "a": spaces.Dict(b=spaces.Box(-1, 1))}), None,
         "two observations named 'a/b'"),
        (None, spaces.Box(-np.inf, 1, (2,)), "without finite bounds"),
        (None, spaces.MultiDiscrete([2, 3]), "only a Box of floats or a Discrete"),
        (None, spaces.Dict(arm=spaces.Box(-1, 1), grip=spaces.Discrete(2)), "wrap it"),
        (None, spaces.Box(0, 3, (2,), np.int64), "only a Box of floats or a Discrete"),
    ],
)  # fmt: skip
def test_unsupported_spaces_are_named(observation, action, message):
    config = EnvConfig(
        name=PREFIX + "Shows-v0", args={"observation": observation, "action": action}
    )
    with pytest.raises(ConfigError, match=message):
        make_single(config)


def test_missing_dm_control_names_the_extra(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(dm_control.importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"dreamfleet\[dmc\]"):
        make_single(EnvConfig(name="dm_control/cartpole-swingup"))


def test_actors_import_neither_ray_nor_redis_nor_torch():
    code = (
        "import sys, actors.actor, actors.evaluate, actors.envs.serve\n"
        "assert not {'ray', 'redis', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
