"""How good a policy is: whole episodes with deterministic actions, never written to a log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actors.agent import Agent
from actors.envs.protocol import BatchedEnv
from actors.episodes import EpisodeTracker, FinishedEpisode
from system.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """Complete episodes of one policy, ordered by copy, then as played."""

    policy_version: int
    returns: tuple[float, ...]
    """Undiscounted return of each episode."""
    lengths: tuple[int, ...]
    """Length of each episode [agent steps]."""
    frames: int
    """Simulator steps of these episodes."""
    aborted: int
    """Episodes cut by a fault of the environment; replayed, not counted in."""

    @property
    def episodes(self) -> int:
        """Complete episodes."""
        return len(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns (n - 1; 0 for a single episode)."""
        return float(np.std(self.returns, ddof=1)) if self.episodes > 1 else 0.0


def evaluate(
    agent: Agent,
    env: BatchedEnv,
    *,
    episodes: int,
    seed: int | None = None,
    max_episode_steps: int = 1_000_000,
) -> EvaluationResult:
    """Plays exactly `episodes` episodes.

    Each copy plays a share fixed beforehand: taking whichever end first would prefer short ones.

    Args:
      agent: acts deterministically.
      env: reset here; its copies need not be fresh.
      episodes: how many, over all copies.
      seed: two evaluations with the same seed on the same environment start alike, so that
        policies can be compared in pairs; None goes on with the copies' randomness.
      max_episode_steps: an episode that long is taken for endless [agent steps].

    Raises:
      ConfigError: `episodes` is not positive, or an episode does not end.
      EnvironmentFault: see the environment.
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes} must be at least 1")
    quota = [episodes // env.num_copies] * env.num_copies
    for i in range(episodes % env.num_copies):
        quota[i] += 1
    tracker = EpisodeTracker(num_copies=env.num_copies, action_repeat=env.spec.action_repeat)
    played: list[list[FinishedEpisode]] = [[] for _ in quota]
    aborted = steps_since_end = 0
    carry, time_step = agent.initial_carry(env.num_copies), env.reset(seed=seed)
    tracker.observe(time_step)
    while any(len(mine) < share for mine, share in zip(played, quota, strict=True)):
        decision = agent.act(time_step, carry, deterministic=True)
        carry, time_step = decision.carry, env.step(decision.action)
        finished = tracker.observe(time_step)
        steps_since_end = 0 if finished else steps_since_end + 1
        if steps_since_end >= max_episode_steps:
            raise ConfigError(
                f"environment {env.spec.name!r} did not end within {max_episode_steps} agent "
                "steps; set env.time_limit"
            )
        for episode in finished:
            if episode.end == "aborted":
                aborted += 1
            elif len(played[episode.copy]) < quota[episode.copy]:
                played[episode.copy].append(episode)
    return _result(agent.version, [each for mine in played for each in mine], aborted)


def _result(version: int, played: list[FinishedEpisode], aborted: int) -> EvaluationResult:
    return EvaluationResult(
        policy_version=version,
        returns=tuple(episode.episode_return for episode in played),
        lengths=tuple(episode.agent_steps for episode in played),
        frames=sum(episode.frames for episode in played),
        aborted=aborted,
    )
