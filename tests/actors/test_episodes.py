"""Episode returns and lengths, and evaluation without a bias towards short ones."""

import numpy as np
import pytest

from actors.config import EnvConfig
from actors.envs.registry import make_env
from actors.episodes import EpisodeTracker
from actors.evaluate import evaluate
from system.errors import ConfigError, EnvironmentFault
from tests.actors.agents_for_tests import CountingAgent
from tests.envs_for_tests import PLANS, PREFIX, Plan


def counting(plan="", misbehave=None, *, num_copies=3, action_repeat=1, **args):
    PLANS[plan] = Plan(misbehave or {})
    config = EnvConfig(
        name=PREFIX + "Counting-v0", args={"plan": plan, **args}, action_repeat=action_repeat
    )
    return make_env(config, num_copies=num_copies, seed=0)


def follow(env, ticks):
    tracker = EpisodeTracker(num_copies=env.num_copies, action_repeat=env.spec.action_repeat)
    action = np.zeros((env.num_copies, 2), np.float32)
    finished = tracker.observe(env.reset())
    for _ in range(ticks):
        finished += tracker.observe(env.step(action))
    env.close()
    return tracker, finished


@pytest.mark.parametrize("terminates", [True, False])
def test_returns_lengths_and_ends(terminates):
    tracker, finished = follow(counting(length=4, terminates=terminates, action_repeat=2), 7)
    assert len(finished) == 6
    for episode in finished:
        assert (episode.episode_return, episode.agent_steps, episode.frames) == (10, 2, 4)
        assert episode.end == ("terminated" if terminates else "truncated")
    metrics = tracker.metrics()
    # Ticks 3 and 6 are resets: 5 steps in each of 3 copies.
    assert (metrics["actor/agent_steps"], metrics["actor/frames"]) == (15, 30)
    assert (metrics["actor/episodes"], metrics["actor/return_mean"]) == (6, 10)


def test_a_fault_aborts_the_episode():
    tracker, finished = follow(counting("aborts", {(1, 2): "raise"}, length=5), 4)
    assert [(each.copy, each.end, each.episode_return) for each in finished] == [(1, "aborted", 1)]
    metrics = tracker.metrics()
    assert (metrics["actor/episodes"], metrics["actor/episodes_aborted"]) == (0, 1)
    assert "actor/return_mean" not in metrics


def test_the_mean_is_of_the_last_ten():
    tracker = EpisodeTracker(num_copies=1, action_repeat=1)
    env = counting(num_copies=1, length=1)
    time_step = env.reset()
    for i in range(40):
        time_step.reward[:] = 0 if time_step.is_first else i
        tracker.observe(time_step)
        time_step = env.step(np.zeros((1, 2), np.float32))
    assert tracker.return_mean == np.mean(range(21, 40, 2))


@pytest.mark.parametrize(("episodes", "copies"), [(7, 3), (2, 3), (6, 3), (1, 1)])
def test_each_copy_plays_its_share(episodes, copies):
    env = counting(num_copies=copies, length=4)
    agent = CountingAgent(env.spec)
    result = evaluate(agent, env, episodes=episodes)
    assert result.returns == (10,) * episodes
    assert result.lengths == (4,) * episodes
    assert (result.episodes, result.frames, result.aborted) == (episodes, 4 * episodes, 0)
    assert (result.return_mean, result.return_std) == (10, 0)
    assert all(agent.deterministic)
    env.close()


def test_short_episodes_are_not_preferred():
    env = make_env(EnvConfig(name="CartPole-v1"), num_copies=4, seed=1)
    result = evaluate(CountingAgent(env.spec), env, episodes=12)
    env.close()
    fresh = make_env(EnvConfig(name="CartPole-v1"), num_copies=4, seed=1)
    longer = evaluate(CountingAgent(fresh.spec), fresh, episodes=16)
    fresh.close()
    # The fourth episode of each copy comes on top; nothing else changes.
    kept = [length for i, length in enumerate(longer.lengths) if i % 4 < 3]
    assert list(result.lengths) == kept
    assert result.returns == tuple(map(float, result.lengths))


def test_the_same_seed_starts_alike():
    env = make_env(EnvConfig(name="CartPole-v1"), num_copies=3, seed=1)
    agent = CountingAgent(env.spec)
    results = [evaluate(agent, env, episodes=5, seed=seed) for seed in (8, 9, 8, None)]
    env.close()
    assert results[0] == results[2]
    assert results[0] != results[1]
    assert results[3] != results[2]


def test_aborted_episodes_are_played_again():
    env = counting("again", {(0, 2): "nan"}, length=4)
    result = evaluate(CountingAgent(env.spec), env, episodes=3)
    assert (result.returns, result.aborted) == ((10, 10, 10), 1)
    env.close()


def test_faults_in_every_episode_end_an_evaluation():
    """Copy 1 never finishes one: life 1 and all that replace it. The other always does."""
    faults = {(life, 2): "nan" for life in range(1, 40)}
    env = counting("always", faults, num_copies=2, length=4)
    with pytest.raises(
        EnvironmentFault, match=r"20 episodes of copy 1 in a row.* the last: outside_space: .*"
    ):
        evaluate(CountingAgent(env.spec), env, episodes=2)
    env.close()


def test_what_can_hang_is_refused():
    env = counting(length=10**9)
    with pytest.raises(ConfigError, match=r"set env\.time_limit"):
        evaluate(CountingAgent(env.spec), env, episodes=1, max_episode_steps=50)
    with pytest.raises(ConfigError, match="episodes=0"):
        evaluate(CountingAgent(env.spec), env, episodes=0)
    env.close()
