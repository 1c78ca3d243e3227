"""Names, arguments, and what is refused."""

import re
import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces

from actors.config import EnvConfig
from actors.envs import dm_control
from actors.envs.registry import env_spec, make_env, make_single
from actors.envs.spaces import ObservationReader
from system.errors import ConfigError, EnvironmentFault
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
        (spaces.Text(5), None, "shows Text, which is not supported"),
        (spaces.Dict(a=spaces.Box(-1, 1), b=spaces.Sequence(spaces.Discrete(2))), None,
         r"Sequence under 'b'.*leave it out: --set env.keys='a'"),
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


def shows(observation, **settings):
    return EnvConfig(name=PREFIX + "Shows-v0", args={"observation": observation}, **settings)


TALKING = spaces.Dict(
    {"view": spaces.Box(0, 255, (7, 7, 3), np.uint8), "way": spaces.Discrete(4),
     "said": spaces.Text(9), "in": spaces.Dict({"a.b": spaces.Box(-1, 1), "n": spaces.Text(9)})}
)  # fmt: skip


def test_what_is_not_supported_can_be_left_out():
    with pytest.raises(ConfigError, match="shows Text under 'in/n'") as refused:
        make_single(shows(TALKING))
    named = re.search(r"--set env\.keys='(.*)'$", str(refused.value))[1]
    # What the message proposes works, and means these names and no others.
    spec = make_single(shows(TALKING, keys=named)).spec
    assert {key: (array.shape, array.dtype) for key, array in spec.observation.items()} == {
        "in/a.b": ((1,), "float32"), "view": ((7, 7, 3), "float32"), "way": ((4,), "float32"),
    }  # fmt: skip
    assert re.fullmatch(named, "in/axb") is None


@pytest.mark.parametrize("name", ["dm_control/cartpole-swingup", PREFIX + "Walk-v0"])
def test_keys_choose_what_is_read(name):
    everything = make_single(EnvConfig(name=name))
    pattern = next(iter(everything.spec.observation))
    env = make_single(EnvConfig(name=name, keys=pattern))
    assert list(env.spec.observation) == [pattern]
    assert env.spec.digest != everything.spec.digest
    seen, whole = env.reset(seed=3), everything.reset(seed=3)
    assert list(seen) == [pattern]
    assert np.array_equal(seen[pattern], whole[pattern])


@pytest.mark.parametrize("name", ["dm_control/cartpole-swingup", PREFIX + "Walk-v0", "CartPole-v1"])
def test_keys_that_match_nothing_are_named_with_what_there_is(name):
    there = ", ".join(sorted(make_single(EnvConfig(name=name)).spec.observation))
    with pytest.raises(ConfigError, match=f"env.keys='posi' matches no.*there are: {there}"):
        make_single(EnvConfig(name=name, keys="posi"))
    with pytest.raises(ConfigError, match=r"env.keys='\(posi' is no regular expression"):
        EnvConfig(name=name, keys="(posi")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((7, 7, 3), "float32"), ((8, 8, 3), "uint8"), ((9, 9), "uint8"), ((40,), "float32"),
     ((2, 30, 3), "float32")],
)  # fmt: skip
def test_few_bytes_are_codes_and_not_a_picture(shape, dtype):
    (spec,) = make_single(shows(spaces.Box(0, 255, shape, np.uint8))).spec.observation.values()
    assert spec.dtype == dtype


def test_a_part_that_is_missing_is_named():
    reader = ObservationReader("mine", spaces.Dict(arm=spaces.Dict(joint=spaces.Box(-1, 1))))
    for seen in ({}, {"arm": {}}, {"arm": None}):
        with pytest.raises(EnvironmentFault, match="shows nothing under 'arm/joint'"):
            reader.read(seen)
    with pytest.raises(EnvironmentFault, match="'arm/joint' is no array: could not convert"):
        reader.read({"arm": {"joint": "bent"}})


def test_choices_may_count_from_anywhere():
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    reader = ObservationReader("mine", space)
    assert reader.read(np.array([6, 1]))["vector"].tolist() == [0, 1, 0, 0, 1]
    with pytest.raises(EnvironmentFault, match="outside_space"):
        reader.read(np.array([1, 1]))


def test_families_that_are_not_installed_name_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    for name in ("MiniGrid-Empty-5x5-v0", "BabyAI-GoToObj-v0"):
        with pytest.raises(ConfigError, match=r"pip install 'dreamfleet\[minigrid\]'"):
            make_single(EnvConfig(name=name))
    with pytest.raises(ConfigError, match="named with its module: package:Id-v0"):
        make_single(EnvConfig(name="NoSuchThing-v0"))


def test_minigrid_needs_nothing_but_its_name_and_keys():
    pytest.importorskip("minigrid")
    env = make_single(EnvConfig(name="MiniGrid-Empty-5x5-v0", keys="direction|image"))
    seen = env.reset(seed=0)
    assert seen["image"].shape == (7, 7, 3)
    assert seen["image"].max() <= 10
    assert seen["direction"].sum() == 1


def test_a_file_that_is_not_there_is_a_mistake():
    pytest.importorskip("mujoco")
    with pytest.raises(ConfigError, match=r"'HalfCheetah-v5' cannot be built.*nope\.xml does not"):
        make_single(EnvConfig(name="HalfCheetah-v5", args={"xml_file": "nope.xml"}))


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
