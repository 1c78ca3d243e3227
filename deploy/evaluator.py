"""Measures broadcast policies: whole deterministic episodes, now and then, and at the end.

::

    channel.newer_than -> due (frames)? -> evaluate -> a line of metrics.jsonl, numbers to control
                                           -> better than the safe one? -> policy:safe
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.agent import Agent
from actors.envs.batched import FaultTolerantEnv
from actors.envs.registry import make_env
from actors.evaluate import EvaluationResult, evaluate
from deploy.files import append_line, read_lines
from deploy.place import Place
from deploy.promote import Promoter
from deploy.run_folder import RunRecord
from system.clock import Every
from system.control.protocol import Event, Lease, ProcessMetrics
from system.errors import RejectedChunk, Unavailable
from system.metrics import STARTED
from system.models.agent import model_digest
from system.specs import EnvSpec
from system.tick import Progress, Wait
from system.types import Snapshot, TimeStep

ROLE = "evaluator"
POLL_S = 0.5
HEARTBEAT_S = 1.0
LEASE_TTL_S = 20.0
METRICS_TTL_S = 600.0
SEED_OFFSET = 1_000_003
"""Evaluation copies are seeded apart from acting ones."""


class Interrupted(Exception):
    """The evaluation was asked to end before its episodes did."""


class EvaluationRule:
    """Which broadcasts to measure: the first one, then one for each `every_frames`. Pure."""

    def __init__(self, every_frames: int, last_frames: int | None) -> None:
        """`last_frames` of the last evaluation of this run; None if there was none [frames]."""
        self._every = every_frames
        self._due = 0 if last_frames is None else self._after(last_frames)

    def due(self, frames: int) -> bool:
        """Whether a policy made at `frames` is to be measured; if so, the next one is later."""
        if frames < self._due:
            return False
        self._due = self._after(frames)
        return True

    def _after(self, frames: int) -> int:
        return (frames // self._every + 1) * self._every


class _Attended:
    """A BatchedEnv that shows signs of life, and stops when asked to, between two steps."""

    def __init__(self, env: FaultTolerantEnv, attend: Callable[[], None]) -> None:
        self.spec, self.num_copies = env.spec, env.num_copies
        self._env, self._attend = env, attend

    def reset(self, *, seed: int | None = None) -> TimeStep:
        self._attend()
        return self._env.reset(seed=seed)

    def step(self, action: NDArray[np.float32]) -> TimeStep:
        self._attend()
        return self._env.step(action)

    def close(self) -> None:
        self._env.close()


class Evaluator:
    """An evaluating process without its process.

    The loop that uses it::

        while not stopping:
            turn = evaluator.tick()
            if isinstance(turn, Wait):
                clock.sleep(turn.seconds)
        evaluator.finish()          # of a finished run: measures the last policy
        evaluator.close()
    """

    def __init__(
        self,
        record: RunRecord,
        folder: Path,
        place: Place,
        *,
        new_agent: Callable[[EnvSpec], Agent],
        who: str,
    ) -> None:
        config = record.config
        self._config, self._who = config, who
        self._channel, self._control, self._clock = place.channel, place.control, place.clock
        # The same for every evaluation: policies are compared in pairs.
        self._seed = config.seed + SEED_OFFSET
        self._path = folder / "metrics.jsonl"
        frames = [line["frames"] for line in read_lines(self._path) if "eval/return_mean" in line]
        rule = EvaluationRule(config.evaluation.every_frames, max(frames, default=None))
        self._rule = rule
        self._beat_due, self._poll_due = Every(HEARTBEAT_S), Every(POLL_S)
        self._agent = new_agent(record.spec)
        self._env = make_env(
            config.env,
            num_copies=config.evaluation.copies,
            seed=self._seed,
            while_waiting=lambda: self._beat("evaluating"),
        )
        self._promoter = Promoter(
            place.safe, place.clock, model_digest=model_digest(config.model, record.spec),
            margin=config.evaluation.promote_margin, on_event=self._event,
        )  # fmt: skip
        self._seen = (0, 0)
        self._interrupted = False
        self._started_s = place.clock.wall()

    def tick(self) -> Progress | Wait:
        """Measures a policy if one is due. Raises EnvironmentFault, see the environment."""
        self._beat("waiting")
        self._promoter.tend()
        if not self._poll_due(self._clock.now()):
            return Wait("policy", POLL_S / 5)
        snapshot = self._newest()
        if snapshot is None:
            return Wait("policy", POLL_S / 5)
        self._seen = (snapshot.epoch, snapshot.version)
        if snapshot.update == 0 or not self._rule.due(self._frames(snapshot)):
            return Wait("frames", POLL_S / 5)
        try:
            self._measure(snapshot, self._config.evaluation.episodes, seed=self._seed)
        except Interrupted:
            return Wait("nothing")
        return Progress("evaluated")

    def finish(self) -> None:
        """Measures the newest policy with more episodes, for the figure a run is judged by."""
        self._interrupted = False
        self._seen = (0, 0)
        snapshot = self._newest()
        if snapshot is not None:
            # Episodes that no earlier evaluation has played.
            self._measure(snapshot, self._config.evaluation.final_episodes, seed=self._seed + 1)

    def interrupt(self) -> None:
        """Ends a running evaluation at its next step; callable from another thread."""
        self._interrupted = True

    def close(self) -> None:
        """Frees the simulators and gives the lease back."""
        self._env.close()
        try:
            self._control.release(ROLE, 0)
        except Unavailable:
            return

    def _newest(self) -> Snapshot | None:
        try:
            return self._channel.newer_than(*self._seen)
        except (Unavailable, RejectedChunk):
            return None

    def _frames(self, snapshot: Snapshot) -> int:
        return snapshot.agent_steps * self._config.env.action_repeat

    def _measure(self, snapshot: Snapshot, episodes: int, *, seed: int) -> None:
        env = _Attended(self._env, self._attend)

        def play(policy: Snapshot) -> EvaluationResult:
            self._agent.load(policy)
            return evaluate(self._agent, env, episodes=episodes, seed=seed)

        result = play(snapshot)
        self._tell(snapshot, result)
        if self._config.evaluation.promote:
            self._promoter.consider(snapshot, result.returns, lambda safe: play(safe).returns)

    def _attend(self) -> None:
        if self._interrupted:
            raise Interrupted
        self._beat("evaluating")

    def _tell(self, snapshot: Snapshot, result: EvaluationResult) -> None:
        values = {
            "eval/return_mean": result.return_mean,
            "eval/return_std": result.return_std,
            "eval/episodes": float(result.episodes),
            "eval/length_mean": float(np.mean(result.lengths)),
            "eval/policy_version": float(result.policy_version),
        }
        facts = {
            "time_s": round(snapshot.elapsed_s, 3),
            "frames": self._frames(snapshot),
            "updates": snapshot.update,
        }
        append_line(self._path, {**facts, **values})
        values[f"{ROLE}/{STARTED}"] = self._started_s
        metrics = ProcessMetrics(role=ROLE, slot=0, time_s=self._clock.wall(), values=values)
        with contextlib.suppress(Unavailable):
            self._control.put_metrics(metrics, ttl_s=METRICS_TTL_S)

    def _event(self, kind: str, text: str) -> None:
        event = Event(time_s=self._clock.wall(), role=ROLE, slot=0, kind=kind, text=text)
        with contextlib.suppress(Unavailable):
            self._control.record(event)

    def _beat(self, doing: str) -> None:
        if not self._beat_due(self._clock.now()):
            return
        lease = Lease(
            role=ROLE, slot=0, incarnation=0, who=self._who, doing=doing, time_s=self._clock.wall()
        )
        try:
            self._control.renew(lease, ttl_s=LEASE_TTL_S)
        except Unavailable:
            return
