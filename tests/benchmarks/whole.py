"""Updates per second of the whole system against its one-process twin and the sum of its parts.

Run: ``python -m tests.benchmarks.whole [--json] [--pairs 5] [--window-s 30] [--actors 2]``, on a
machine with nothing else to do. Whole (Ray, Redis, so many actors) and twin (`--runner local`) do
the same work: cartpole swingup, `laptop`, equal replay ratio, no evaluation, no page. They run one
after the other; which of a pair comes first changes from pair to pair, and every window begins when
training has settled. Between them the parts are measured, each alone in this process.

- ``ratio``: median over pairs of whole over twin, updates/s; ``low``, ``high``: 95 % interval of
  the geometric mean over pairs.
- ``parts_per_s``: updates/s if there were nothing but updates and the agent steps they ask for,
  one after the other, in one process; ``update_per_s``: nothing but updates (benchmark `update`).
- ``shares``: of the learner's and the actors' time by activity, as they tell it themselves.
- ``cores``: CPU seconds a second of every kind of process of a system: where the rest goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from actors.config import EnvConfig
from deploy.presets import default_action_repeat, from_preset
from learner.update import Learning
from system.errors import Unavailable
from tests.benchmarks import actor, update
from tests.benchmarks.watching import interval
from tests.fleet_for_tests import ENVIRONMENT, Fleet, Terminal, command

ENV = "dm_control/cartpole-swingup"
SETTLED_UPDATES = 100
START_S = 300.0
MARK = "DREAMFLEET_WHOLE_BENCHMARK"
"""In the environment of every process that belongs to a system under measurement."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
KINDS = ("deploy.head", "deploy.supervise", "deploy.cli", "ActorProcess", "LearnerProcess",
         "EvaluatorProcess", "Supervisor", "valkey-server", "redis-server", "raylet", "gcs_server",
         "Dashboard", "dashboard/", "RuntimeEnv", "runtime_env", "log_monitor", "monitor.py",
         "ray::")  # fmt: skip
"""Which process it is, by the first of these words in its command line."""


class Whole(Fleet):
    """Ray, Redis and actors."""

    def __init__(self, where, options):
        super().__init__(where, name="whole")
        command(where, "train", "--run", self.name, "--detach", *settings(options))

    def shares(self):
        with self.control() as control:
            told = [one for one in control.metrics() if one.role in ("learner", "actor")]
        found = defaultdict(list)
        for one in told:
            for key, value in one.values.items():
                if "/share_" in key:
                    found[key].append(value)
        return {key: round(statistics.fmean(each), 3) for key, each in sorted(found.items())}


class Twin(Fleet):
    """One process."""

    def __init__(self, where, options):
        super().__init__(where, name="twin")
        line = ["train", "--run", self.name, "--runner", "local", *settings(options)]
        self.driver = Terminal(where, *line)

    def shares(self):
        return {k: round(v, 3) for k, v in sorted(self.line().items()) if "/share_" in k}

    def end(self):
        self.driver.process.send_signal(signal.SIGINT)
        try:
            self.driver.process.wait(60)
        except subprocess.TimeoutExpired:
            self.driver.kill()


def settings(options):
    return [
        "--env", ENV, "--preset", "laptop", "--actors", str(options.actors), "--frames", "0",
        "--no-dashboard", "--seed", "0", "--replay-ratio", str(options.ratio),
        "--set", "learner.metrics_s=0.5", "evaluation.every_frames=1000000000",
        "learner.dream_report_s=0",
    ]  # fmt: skip


def window(system, seconds):
    """Rates, shares and cores of a system that trains, over a window from now."""
    system.until(lambda: system.latest("updates") > SETTLED_UPDATES, "trained", START_S)
    before, used, since = system.line(), cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    after, now_used, spent_s = system.line(), cpu_seconds(), time.monotonic() - since
    elapsed_s = after["time_s"] - before["time_s"]
    cores = {kind: (now_used[kind] - used.get(kind, 0.0)) / spent_s for kind in now_used}
    return {
        "updates_per_s": (after["updates"] - before["updates"]) / elapsed_s,
        "frames_per_s": (after["frames"] - before["frames"]) / elapsed_s,
        "shares": system.shares(),
        "cores": {kind: round(share, 3) for kind, share in sorted(cores.items()) if share > 5e-4},
    }


def measured(build, options):
    """Starts a system, measures it, ends it."""
    with tempfile.TemporaryDirectory(prefix="dreamfleet-whole-") as folder:
        system = build(Path(folder), options)
        try:
            return window(system, options.window_s)
        finally:
            with contextlib.suppress(Unavailable):
                system.end()


def cpu_seconds():
    """CPU time so far of every kind of process that carries the mark [s]."""
    found, mark = defaultdict(float), f"{MARK}={os.getpid()}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            if int(path.name) == os.getpid() or mark not in (path / "environ").read_bytes():
                continue
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # After the name, which may hold anything: user and system time are fields 14 and 15.
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            kind = next((kind for kind in KINDS if kind in line), "other")
            found[kind] += (int(fields[11]) + int(fields[12])) * TICK_S
    return found


def parts(options, seconds=3.0):
    """Seconds of one update, and of one step of all copies of one actor, each alone."""
    env = EnvConfig(name=ENV, action_repeat=default_action_repeat(ENV, "laptop"))
    config = from_preset("laptop", env, run="whole")
    device = torch.device("cpu")
    learning = Learning(config.learner, config.model, update.WALKER, device)
    batch, copies = update.random_batch(config, device), config.actor.copies
    act = actor.loop(env, copies, config.replay.chunk_length)
    for _ in range(update.WARM_UPS):
        learning.update(batch)
    return {
        "update_s": 1.0 / actor.measure(lambda: learning.update(batch) and None, 1, seconds),
        "step_s": 1.0 / actor.measure(act, copies, seconds),
        "steps_per_update": config.learner.replayed_steps / options.ratio,
    }


def summary(options, wholes, twins, alone):
    """Medians over pairs."""
    ratios = [
        a["updates_per_s"] / b["updates_per_s"] for a, b in zip(wholes, twins, strict=True)
    ]  # fmt: skip
    low, high = interval(ratios)
    update_s, step_s, steps = (
        statistics.median(one[name] for one in alone)
        for name in ("update_s", "step_s", "steps_per_update")
    )
    return {
        "pairs": options.pairs, "window_s": options.window_s, "actors": options.actors,
        "replay_ratio": options.ratio, "cpus": os.cpu_count(),
        "ratio": statistics.median(ratios), "low": low, "high": high,
        "update_per_s": 1.0 / update_s, "parts_per_s": 1.0 / (update_s + steps * step_s),
        "whole": median_of(wholes), "twin": median_of(twins),
    }  # fmt: skip


def median_of(windows):
    """The same record, each number the median."""
    found = {name: statistics.median(one[name] for one in windows)
             for name in ("updates_per_s", "frames_per_s")}  # fmt: skip
    for table in ("shares", "cores"):
        names = sorted({name for one in windows for name in one[table]})
        found[table] = {
            name: statistics.median(one[table].get(name, 0.0) for one in windows) for name in names
        }
    return found


def report(found):
    for system in ("whole", "twin"):
        one = found[system]
        print(f"{system}: {one['updates_per_s']:.2f} updates/s, {one['frames_per_s']:.0f} frames/s")
        for table in ("cores", "shares"):
            print(f"  {table}: " + ", ".join(f"{k} {v:.3f}" for k, v in one[table].items()))
    print(
        f"parts, one after the other: {found['parts_per_s']:.2f} updates/s; updates alone: "
        f"{found['update_per_s']:.2f}\nwhole over twin: median {found['ratio']:.3f}, 95 % interval "
        f"of the mean {found['low']:.3f} to {found['high']:.3f} ({found['pairs']} pairs)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--window-s", type=float, default=30.0)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--ratio", type=float, default=128.0, help="replayed Steps per Step")
    options = parser.parse_args()
    ENVIRONMENT[MARK] = str(os.getpid())
    torch.set_num_threads(1)
    systems, alone = {Whole: [], Twin: []}, []
    for pair in range(options.pairs):
        for build in (Whole, Twin) if pair % 2 == 0 else (Twin, Whole):
            systems[build].append(measured(build, options))
        alone.append(parts(options))
    found = summary(options, systems[Whole], systems[Twin], alone)
    print(json.dumps(found)) if options.json else report(found)


if __name__ == "__main__":
    main()
