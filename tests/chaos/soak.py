"""A long run in which an actor dies every minute: does anything leak?

::

    python -m tests.chaos.soak --minutes 45 --json

Memory and open files of every process that is not killed, sampled every 15 s; slopes by least
squares over the second half, when caches are warm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.fleet_for_tests import Fleet, Witness, command

SAMPLE_S, KILL_S = 15.0, 60.0
KILLED_SLOT = 1


def soak(where: Path, minutes: float) -> dict[str, object]:
    """Runs for so long; returns slopes, totals and the ledger."""
    fleet = Fleet(where)
    samples: dict[str, list[tuple[float, int, int]]] = {}
    kills, restarts_s = 0, []
    try:
        fleet.train()
        command(where, "scale", "2", "--run", fleet.name, "--wait")
        fleet.until(lambda: fleet.latest("updates") > 5, "trained")
        began = time.monotonic()
        kill_due = sample_due = began
        with Witness(fleet) as witness:
            while time.monotonic() - began < 60 * minutes:
                if time.monotonic() >= sample_due:
                    sample_due += SAMPLE_S
                    _sample(fleet, time.monotonic() - began, samples)
                if time.monotonic() >= kill_due + KILL_S:
                    kill_due += KILL_S
                    restarts_s.append(fleet.kill_role("actor", KILLED_SLOT))
                    kills += 1
                time.sleep(0.5)
        frames, updates = fleet.latest("frames"), fleet.latest("updates")
        fleet.stop()
        fleet.check_ledger()
        ledger = fleet.ledger()
    finally:
        fleet.end()
    return {
        "minutes": minutes, "kills": kills, "frames": frames, "updates": updates,
        "restart_p50_s": float(np.median(restarts_s)), "restart_max_s": max(restarts_s),
        "acknowledged": len(witness.seen), "stored": len(ledger), "lost": len(witness.lost()),
        "twice": len(ledger) - len(set(ledger)),
        "slopes": {name: _slopes(rows) for name, rows in sorted(samples.items())},
    }  # fmt: skip


def _sample(fleet: Fleet, now_s: float, samples: dict[str, list[tuple[float, int, int]]]) -> None:
    pids = {role: fleet.pid(role) for role in ("learner", "evaluator", "supervisor", "actor")}
    pids["redis"], pids["head"] = fleet.server_pid(), fleet.folder.head_pid()
    for path in Path("/proc").glob("[0-9]*/comm"):
        name = path.read_text().strip()
        if name in ("gcs_server", "raylet") and _descends(int(path.parent.name), pids["head"]):
            pids[name] = int(path.parent.name)
    for name, pid in pids.items():
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        samples.setdefault(name, []).append((now_s, pages * 4096, files))


def _descends(pid: int, ancestor: int | None) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def _slopes(rows: list[tuple[float, int, int]]) -> dict[str, float]:
    half = np.array(rows[len(rows) // 2 :], np.float64)
    hours = half[:, 0] / 3600
    return {
        "rss_mib": round(half[-1, 1] / 2**20, 1),
        "rss_mib_per_h": round(float(np.polyfit(hours, half[:, 1], 1)[0]) / 2**20, 2),
        "files": int(half[-1, 2]),
        "files_per_h": round(float(np.polyfit(hours, half[:, 2], 1)[0]), 2),
    }


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="an actor dies every minute")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-soak-") as folder:
        figures = soak(Path(folder), options.minutes)
    sys.stdout.write(json.dumps(figures, indent=None if options.json else 2) + "\n")
    return int(bool(figures["lost"] or figures["twice"]))


if __name__ == "__main__":
    sys.exit(main())
