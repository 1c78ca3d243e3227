"""Action scaling, repeat, ends and limits."""

import numpy as np
import pytest
from gymnasium import spaces

from actors.config import EnvConfig
from actors.envs.actions import executed
from actors.envs.registry import make_single
from actors.envs.spaces import ActionWriter, ObservationReader
from system.errors import EnvironmentFault
from system.specs import ActionSpec
from tests.envs_for_tests import PREFIX


def counting(**config):
    args = config.pop("args", {})
    return make_single(EnvConfig(name=PREFIX + "Counting-v0", args=args, **config))


def native_actions(env):
    return env._simulator._env.unwrapped.actions


def test_actions_are_clipped_then_scaled():
    env = counting()
    env.reset(seed=0)
    env.step(np.float32([-1, 0.5]))
    env.step(np.float32([-3, 7]))
    assert np.array_equal(native_actions(env), np.float32([[-2, 1], [-2, 2]]))


def test_asymmetric_bounds_reach_both_ends():
    writer = ActionWriter("x", spaces.Box(np.float32([[0.0, -1.0]]), np.float32([[10.0, 1.1]])))
    assert writer.native(np.float32([-1, 1])).tolist() == np.float32([[0, 1.1]]).tolist()
    assert writer.native(np.float32([0, 0]))[0, 0] == 5


def test_discrete_actions_take_the_argmax_from_their_start():
    writer = ActionWriter("x", spaces.Discrete(3, start=5))
    assert writer.native(np.float32([0, 0.2, 0.1])) == 6
    spec = ActionSpec(kind="discrete", size=3)
    assert executed(spec, np.float32([[0.1, 0.7, 0.2]])).tolist() == [[0, 1, 0]]


def test_repeat_sums_rewards_and_stops_at_the_end():
    env = counting(action_repeat=3)
    env.reset(seed=0)
    step = env.step(np.zeros(2, np.float32))
    assert (step.reward, step.terminated) == (1 + 2 + 3, False)
    step = env.step(np.zeros(2, np.float32))
    assert (step.reward, step.terminated, step.observation["vector"][1]) == (4 + 5, True, 5)


@pytest.mark.parametrize(("limit", "length"), [(0, 5), (3, 3), (4, 4), (9, 5)])
def test_time_limit_counts_simulator_steps(limit, length):
    env = counting(time_limit=limit, action_repeat=1)
    env.reset(seed=0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(length)]
    assert not any(step.terminated or step.truncated for step in steps[:-1])
    assert steps[-1].terminated == (length == 5)
    assert steps[-1].truncated == (length != 5)


def test_time_limit_stops_inside_a_repeat():
    env = counting(time_limit=4, action_repeat=3)
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    step = env.step(np.zeros(2, np.float32))
    assert (step.reward, step.truncated, step.terminated) == (4.0, True, False)


@pytest.mark.parametrize(("limit", "length"), [(0, 3), (4, 4)])
def test_our_limit_replaces_the_registered_one(limit, length):
    env = make_single(EnvConfig(name=PREFIX + "Limited-v0", time_limit=limit))
    env.reset(seed=0)
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(length)]
    assert [step.truncated for step in steps] == [False] * (length - 1) + [True]


@pytest.mark.parametrize(("limit", "length"), [(0, 500), (700, 350)])
def test_dm_control_time_limit_truncates(limit, length):
    env = make_single(
        EnvConfig(name="dm_control/pendulum-swingup", action_repeat=2, time_limit=limit)
    )
    env.reset(seed=0)
    steps = [env.step(np.zeros(1, np.float32)) for _ in range(length)]
    assert [step.truncated for step in steps] == [False] * (length - 1) + [True]
    assert not steps[-1].terminated


def test_dm_control_discount_zero_terminates():
    env = make_single(EnvConfig(name="dm_control/cartpole-swingup"))
    env.reset(seed=0)
    env._simulator._env.task.get_termination = lambda physics: 0.0
    step = env.step(np.zeros(1, np.float32))
    assert step.terminated
    assert not step.truncated


@pytest.mark.parametrize("name", ["dm_control/cartpole-swingup", "CartPole-v1", PREFIX + "Walk-v0"])
def test_the_seed_decides_the_episode(name):
    first = [make_single(EnvConfig(name=name)).reset(seed=seed) for seed in (3, 3, 4)]
    same, other = ({k: np.array_equal(first[0][k], o[k]) for k in o} for o in first[1:])
    assert all(same.values())
    assert not all(other.values())


def test_observations_do_not_alias_the_environment():
    env = counting()
    seen = env.reset(seed=0)["vector"]
    kept = seen.copy()
    env.step(np.zeros(2, np.float32))
    assert np.array_equal(seen, kept)


def test_discrete_observations_are_one_hot():
    reader = ObservationReader("x", spaces.MultiDiscrete([3, 2]))
    assert reader.read(np.array([1, 1]))["vector"].tolist() == [0, 1, 0, 0, 1]
    reader = ObservationReader(
        "x", spaces.Dict(a=spaces.Discrete(3, start=-1), b=spaces.Box(0, 1, ()))
    )
    seen = reader.read({"a": -1, "b": np.float64(0.5)})
    assert seen["a"].tolist() == [1, 0, 0]
    assert seen["b"].tolist() == [0.5]
    with pytest.raises(EnvironmentFault, match="outside_space"):
        reader.read({"a": 2, "b": 0.5})
