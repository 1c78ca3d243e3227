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

from actors.agent import Agent
from actors.envs.registry import make_env
from actors.evaluate import EvaluationResult, evaluate
from deploy.attended import Attended
from deploy.files import read_lines
from deploy.place import Place
from deploy.promote import Promoter
from deploy.run_folder import RunRecord
from system.clock import Every
from system.control.protocol import Point
from system.errors import RejectedChunk, Unavailable
from system.models.agent import model_digest
from system.presence import Presence
from system.progress import progress_text
from system.run_log import RunLog
from system.specs import EnvSpec
from system.tick import Progress, Wait
from system.types import Snapshot

ROLE = "evaluator"
POLL_S = 0.5
HEARTBEAT_S = 1.0
LEASE_TTL_S = 20.0
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
        self._config = config
        self._channel, self._control, self._clock = place.channel, place.control, place.clock
        self._presence = Presence(
            place.control, place.clock, role=ROLE, slot=0, who=who, lease_ttl_s=LEASE_TTL_S
        )
        # The same for every evaluation: policies are compared in pairs.
        self._seed = config.seed + SEED_OFFSET
        self._log = RunLog(folder)
        measured = list(read_lines(self._log.path, holding="eval/return_mean"))
        frames = [line["frames"] for line in measured]
        told = measured[-1].items() if measured else ()
        self._values: dict[str, float] = {k: v for k, v in told if k.startswith("eval/")}
        rule = EvaluationRule(config.evaluation.every_frames, max(frames, default=None))
        self._rule = rule
        self._beat_due, self._poll_due = Every(HEARTBEAT_S), Every(POLL_S)
        self._agent = new_agent(record.spec)
        # Told while the environment is built, if that takes long.
        self._steps, self._expected_steps, self._began_s = 0, 0.0, place.clock.now()
        self._env = make_env(
            config.env,
            num_copies=config.evaluation.copies,
            seed=self._seed,
            while_waiting=lambda: self._beat(self._doing()),
        )
        self._promoter = Promoter(
            place.safe, place.clock, model_digest=model_digest(config.model, record.spec),
            margin=config.evaluation.promote_margin, on_event=self._presence.tell,
        )  # fmt: skip
        self._seen = (0, 0)
        self._interrupted = False

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
        self._presence.release()

    def _newest(self) -> Snapshot | None:
        try:
            return self._channel.newer_than(*self._seen)
        except (Unavailable, RejectedChunk):
            return None

    def _frames(self, snapshot: Snapshot) -> int:
        return snapshot.agent_steps * self._config.env.action_repeat

    def _measure(self, snapshot: Snapshot, episodes: int, *, seed: int) -> None:
        env = Attended(self._env, self._attend)

        def play(policy: Snapshot) -> EvaluationResult:
            self._agent.load(policy)
            rounds = -(-episodes // self._env.num_copies)
            self._expected_steps = rounds * self._values.get("eval/length_mean", 0.0)
            self._steps, self._began_s = 0, self._clock.now()
            return evaluate(self._agent, env, episodes=episodes, seed=seed)

        result = play(snapshot)
        self._tell(snapshot, result)
        if self._config.evaluation.promote:
            self._promoter.consider(snapshot, result.returns, lambda safe: play(safe).returns)

    def _attend(self) -> None:
        if self._interrupted:
            raise Interrupted
        self._steps += 1
        self._beat(self._doing())

    def _doing(self) -> str:
        """Episodes are taken to be as long as those of the last evaluation."""
        share = self._steps / self._expected_steps if self._expected_steps else None
        return progress_text("evaluating", share, self._clock.now() - self._began_s)

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
        self._log.append({**facts, **values})
        point = {
            "elapsed_s": snapshot.elapsed_s, "frames": float(facts["frames"]),
            "updates": float(facts["updates"]), **values,
        }  # fmt: skip
        with contextlib.suppress(Unavailable):
            self._control.remember(Point(time_s=self._clock.wall(), values=point))
        self._values = values
        self._presence.beat("evaluating", values)

    def _beat(self, doing: str) -> None:
        if self._beat_due(self._clock.now()):
            self._presence.beat(doing, self._values)
