"""The kill matrix: who is killed, how often, how long until all is well, and what was lost.

::

    python -m tests.chaos.matrix --trials 20 --json      six targets, one fleet each, under load

A Witness reads every stream on its own: whatever Redis acknowledged must be in the ledger of
segments when the run has stopped, once, or still in Redis.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from system.errors import Unavailable
from tests.fleet_for_tests import Fleet, Witness

TARGETS = ["driver", "actor", "copy", "learner", "redis", "supervisor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """All trials against one target, or against several in turn."""

    target: str
    trials: int
    """Of each."""
    acknowledged: int
    """Chunks the Witness saw in Redis."""
    stored: int
    """Chunks in the ledger."""
    lost: int
    """Acknowledged, neither in the ledger nor in Redis."""
    twice: int
    """More than once in the ledger."""
    recovery_p50_s: float
    recovery_p95_s: float
    recovery_max_s: float


def run(targets: list[str], trials: int, where: Path, seed: int) -> Result:
    """Kills the targets of one fleet in turn, again and again while it trains."""
    settings = ["env.isolate=true"] if "copy" in targets else []
    fleet = Fleet(where, *settings)
    where.mkdir(parents=True)
    chance = random.Random(seed)
    try:
        fleet.train(detach="driver" not in targets)
        fleet.until(lambda: fleet.latest("updates") > 5, "trained")
        with Witness(fleet) as witness:
            times_s = []
            for target in targets * trials:
                time.sleep(chance.uniform(0.2, 2.0))
                times_s.append(KILLS[target](fleet))
                fleet.train_on(f"trained on after the death of the {target}")
        fleet.stop()
        fleet.check_ledger()
        ledger = fleet.ledger()
    finally:
        fleet.end()
    return Result(
        target=" ".join(targets), trials=trials, acknowledged=len(witness.seen), stored=len(ledger),
        lost=len(witness.lost()), twice=len(ledger) - len(set(ledger)),
        recovery_p50_s=_quantile(times_s, 0.5), recovery_p95_s=_quantile(times_s, 0.95),
        recovery_max_s=max(times_s),
    )  # fmt: skip


def _kill_actor(fleet: Fleet) -> float:
    """Until its successor holds the slot and acts, or has no credit to."""
    before, since = fleet.held("actor").incarnation, time.monotonic()
    fleet.kill_role("actor")
    fleet.until(
        lambda: (lease := fleet.lease("actor")) and lease.incarnation > before, "claimed again"
    )
    return time.monotonic() - since


def _kill_copy(fleet: Fleet) -> float:
    """Until the copy is rebuilt, by the same actor."""
    actor, faults = fleet.held("actor").who, fleet.metrics("actor").get("actor/faults", 0)
    pid = fleet.pid("actor")
    children = fleet.until(lambda: _children(pid, b"actors.envs.child"), "saw its copies")
    since = time.monotonic()
    os.kill(random.choice(children), signal.SIGKILL)
    fleet.until(lambda: fleet.metrics("actor").get("actor/faults", 0) > faults, "rebuilt the copy")
    assert fleet.held("actor").who == actor
    return time.monotonic() - since


def _kill_learner(fleet: Fleet) -> float:
    """Until a successor has made an update."""
    since = time.monotonic()
    fleet.kill_role("learner")
    # Restored from its checkpoint it may begin below the updates seen before.
    learns = ("updated", "inserted")
    fleet.until(
        lambda: (lease := fleet.lease("learner")) and lease.doing in learns, "learned again"
    )
    return time.monotonic() - since


def _kill_redis(fleet: Fleet) -> float:
    """Until training goes on."""
    before, since = fleet.server_pid(), time.monotonic()
    os.kill(before, signal.SIGKILL)
    fleet.until(lambda: fleet.server_pid() != before, "a new server")
    fleet.train_on("trained on after the death of Redis")
    return time.monotonic() - since


def _kill_supervisor(fleet: Fleet) -> float:
    """Until another one supervises; nobody else may notice."""
    members = {role: fleet.held(role).who for role in ("actor", "learner")}
    took_s = fleet.kill_role("supervisor")
    assert {role: fleet.held(role).who for role in members} == members
    return took_s


def _kill_driver(fleet: Fleet) -> float:
    """The longest time without an update after the terminal's death."""
    if fleet.driver is None:
        fleet.stop()
        fleet.driver = fleet.terminal("resume")
        fleet.train_on("trained on with a terminal")
    members = {role: fleet.held(role).who for role in ("actor", "learner", "supervisor")}
    fleet.driver.kill(signal.SIGKILL)
    fleet.driver = None
    took_s = fleet.train_on("trained on without a terminal")
    assert {role: fleet.held(role).who for role in members} == members
    return took_s


KILLS = {
    "actor": _kill_actor,
    "copy": _kill_copy,
    "learner": _kill_learner,
    "redis": _kill_redis,
    "supervisor": _kill_supervisor,
    "driver": _kill_driver,
}


def _children(pid: int, word: bytes) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and word in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):
            continue
    return found


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Prints one line per target."""
    parser = argparse.ArgumentParser(description="kill everything, many times")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="dreamfleet-matrix-") as folder:
        for target in options.targets:
            try:
                result = run([target], options.trials, Path(folder) / target, options.seed)
            except (AssertionError, Unavailable) as error:
                sys.stdout.write(f"{target}: FAILED: {error}\n")
                failed = True
                continue
            failed = failed or bool(result.lost or result.twice)
            data = asdict(result)
            line = json.dumps(data) if options.json else _for_people(result)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    return int(failed)


def _for_people(result: Result) -> str:
    return (
        f"{result.target:<11} {result.trials} kills: {result.acknowledged} acknowledged, "
        f"{result.stored} stored, lost {result.lost}, twice {result.twice}; recovery p50 "
        f"{result.recovery_p50_s:.1f} s, p95 {result.recovery_p95_s:.1f} s, max "
        f"{result.recovery_max_s:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
