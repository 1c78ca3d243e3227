"""Scales a fleet up and down under load: time to N, replay ratio in every window, the ledger.

::

    python -m tests.chaos.scale --up 16 --down 2 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fleet_for_tests import Fleet, Witness, command

RATIO, STEPS_PER_UPDATE = 16, 4 * 8
SETTINGS = ("fleet.actor_cpus=0.05", "fleet.grace_s=60", "fleet.start_after_s=300")


def scale(where: Path, up: int, down: int, load_s: float) -> dict[str, float]:
    """Runs 1 -> up -> down; returns the figures."""
    fleet = Fleet(where, *SETTINGS)
    try:
        fleet.train()
        fleet.until(lambda: fleet.latest("updates") > 5, "trained")
        with Witness(fleet) as witness:
            up_s = _to(fleet, up)
            time.sleep(load_s)
            down_s = _to(fleet, down)
            # One more window, so that the way down is in it.
            enough = fleet.latest("updates") + 400
            fleet.until(lambda: fleet.latest("updates") > enough, "trained on", 300)
        fleet.stop()
        fleet.check_ledger()
        windows = fleet.ratio_windows(STEPS_PER_UPDATE)
        ledger = fleet.ledger()
    finally:
        fleet.end()
    return {
        "up": up, "down": down, "up_s": up_s, "down_s": down_s,
        "acknowledged": len(witness.seen), "stored": len(ledger), "lost": len(witness.lost()),
        "twice": len(ledger) - len(set(ledger)), "slots": len({slot for slot, _ in ledger}),
        "windows": len(windows), "ratio_least": min(windows), "ratio_most": max(windows),
        "ratio_target": RATIO,
    }  # fmt: skip


def _to(fleet: Fleet, actors: int) -> float:
    since = time.monotonic()
    command(fleet.where, "scale", str(actors), "--run", fleet.name, "--wait", "--timeout", "300",
            timeout_s=320)  # fmt: skip
    return time.monotonic() - since


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="scale up and down under load")
    parser.add_argument("--up", type=int, default=16)
    parser.add_argument("--down", type=int, default=2)
    parser.add_argument("--load-s", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-scale-") as folder:
        figures = scale(Path(folder), options.up, options.down, options.load_s)
    lines = (f"{name:<14}{value:g}" for name, value in figures.items())
    sys.stdout.write((json.dumps(figures) if options.json else "\n".join(lines)) + "\n")
    return int(bool(figures["lost"] or figures["twice"]))


if __name__ == "__main__":
    sys.exit(main())
