"""What one more actor was said to bring, and what it brought: a real fleet, before and after.

::

    python -m tests.benchmarks.bottleneck --ratios 16 64 256 --json     one fleet for each ratio

The environment takes its time, as a robot does, so that actors do not compete for cores with the
learner. Small ratios leave the learner idle, great ones make it the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from deploy.bottleneck import Load, diagnose, load_of
from tests.fleet_for_tests import Fleet, command

SETTLE_S = 10.0
STEP_S = 0.02
"""Between two observations, as at 50 Hz [s]."""


class Paced(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Answers fifty times a second, whatever is asked; episodes of 200 steps."""

    observation_space = spaces.Box(-1.0, 1.0, (4,))
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._step, self._due_s = 0, time.monotonic()
        return np.zeros(4, np.float32), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - STEP_S) + STEP_S
        time.sleep(max(0.0, self._due_s - now_s))
        self._step += 1
        return np.full(4, self._step / 200, np.float32), 0.0, False, self._step >= 200, {}


gymnasium.register("Paced-v0", entry_point=Paced)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One fleet with one actor, then with two."""

    ratio: float
    """Replayed Steps per inserted Step."""
    bottleneck: str
    text: str
    actors_wait: float
    learner_wait: float
    """Shares of time, with one actor."""
    predicted: float | None
    """Gain of the second actor."""
    measured: float
    one_per_s: float
    """Frames inserted [1/s]."""
    two_per_s: float


def measure(ratio: float, where: Path, seconds: float) -> Result:
    """Trains with one actor, asks what a second one would bring, and adds it."""
    where.mkdir(parents=True)
    fleet = Fleet(
        where, "--env", "tests.benchmarks.bottleneck:Paced-v0", "--copies", "1",
        "--replay-ratio", str(ratio), "--set", "evaluation.every_frames=10000000",
    )  # fmt: skip
    try:
        fleet.train()
        fleet.until(lambda: fleet.latest("updates") > 20, "trained")
        time.sleep(SETTLE_S)
        one_per_s, load = _window(fleet, seconds)
        command(where, "scale", "2", "--run", fleet.name, "--wait")
        time.sleep(SETTLE_S)
        two_per_s, _ = _window(fleet, seconds)
    finally:
        fleet.end()
    said = diagnose(load)
    return Result(
        ratio=ratio, bottleneck=said.bottleneck, text=said.text,
        actors_wait=load.acting.get("wait", 0.0), learner_wait=load.learning.get("wait", 0.0),
        predicted=said.gain_ratio, measured=two_per_s / one_per_s - 1, one_per_s=one_per_s,
        two_per_s=two_per_s,
    )  # fmt: skip


def _window(fleet: Fleet, seconds: float) -> tuple[float, Load]:
    """Frames inserted per second of training, and the mean load meanwhile."""
    before, loads = fleet.line(), []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        time.sleep(1.0)
        with fleet.control() as control:
            loads.append(load_of(control.metrics()))
    after = fleet.line()
    rate = (after["frames"] - before["frames"]) / (after["time_s"] - before["time_s"])
    load = Load(
        actors=loads[-1].actors, acting=_mean([one.acting for one in loads]),
        learning=_mean([one.learning for one in loads]),
    )  # fmt: skip
    return rate, load


def _mean(shares: list[dict[str, float]]) -> dict[str, float]:
    names = {name for one in shares for name in one}
    return {name: sum(one.get(name, 0.0) for one in shares) / len(shares) for name in names}


def main() -> int:
    """Prints a line for each ratio."""
    parser = argparse.ArgumentParser(description="the gain of one more actor, said and measured")
    parser.add_argument("--ratios", type=float, nargs="+", default=[16.0, 64.0, 256.0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-bottleneck-") as folder:
        for ratio in options.ratios:
            result = measure(ratio, Path(folder) / f"ratio-{ratio:g}", options.seconds)
            line = json.dumps(asdict(result)) if options.json else str(result)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
