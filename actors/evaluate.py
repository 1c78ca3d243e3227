"""How good a policy is: whole episodes with deterministic actions, never written to a log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actors.agent import Agent
from actors.envs.protocol import BatchedEnv
from actors.episodes import EpisodeTracker, FinishedEpisode
from system.errors import ConfigError, EnvironmentFault

MAX_ABORTED = 20
"""Episodes of one copy that faults cut, one after another, until it is taken to finish none."""


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
      EnvironmentFault: faults cut MAX_ABORTED episodes of a copy in a row; or see the environment.
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes} must be at least 1")
    played = _Played(env, episodes)
    tracker = EpisodeTracker(num_copies=env.num_copies, action_repeat=env.spec.action_repeat)
    steps_since_end = 0
    carry, time_step = agent.initial_carry(env.num_copies), env.reset(seed=seed)
    tracker.observe(time_step)
    while played.missing:
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
            played.add(episode)
    return played.result(agent.version)


class _Played:
    """The share of each copy, and what it has played of it."""

    def __init__(self, env: BatchedEnv, episodes: int) -> None:
        self._env = env
        share, rest = divmod(episodes, env.num_copies)
        self._quota = [share + (i < rest) for i in range(env.num_copies)]
        self._played: list[list[FinishedEpisode]] = [[] for _ in self._quota]
        self._aborted, self._aborted_in_a_row = 0, [0] * env.num_copies

    @property
    def missing(self) -> bool:
        return any(len(mine) < share for mine, share in zip(self._played, self._quota, strict=True))

    def add(self, episode: FinishedEpisode) -> None:
        copy = episode.copy
        if episode.end == "aborted":
            self._aborted += 1
            self._aborted_in_a_row[copy] += 1
            if self._aborted_in_a_row[copy] == MAX_ABORTED:
                raise EnvironmentFault(
                    "no_whole_episode",
                    f"faults of {self._env.spec.name!r} cut {MAX_ABORTED} episodes of copy {copy} "
                    "in a row, so no policy can be measured: mend the environment or its "
                    f"observation space; the last: {self._env.last_fault.strip()}",
                )
            return
        self._aborted_in_a_row[copy] = 0
        if len(self._played[copy]) < self._quota[copy]:
            self._played[copy].append(episode)

    def result(self, version: int) -> EvaluationResult:
        played = [episode for mine in self._played for episode in mine]
        return EvaluationResult(
            policy_version=version,
            returns=tuple(episode.episode_return for episode in played),
            lengths=tuple(episode.agent_steps for episode in played),
            frames=sum(episode.frames for episode in played),
            aborted=self._aborted,
        )
