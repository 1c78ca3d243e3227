"""Scrapes while everybody is killed: none may fail, no total may decrease.

::

    python -m tests.chaos.scrapes --trials 5 --json     kill -9 of each, in turn, of a real fleet

While the exporter itself is dead nobody answers; its successor must begin where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from system.metrics import CATALOGUE
from tests.fleet_for_tests import ENVIRONMENT, Fleet
from tests.servers_for_tests import free_port
from tests.waiting import DEADLINE_S, wait_until

TARGETS = ["redis", "learner", "actor", "supervisor", "exporter"]
TOTALS = {
    name
    for metric in CATALOGUE
    if metric.scope != "exporter" and metric.kind in ("counter", "histogram")
    for name in metric.series
}
Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One fleet, everybody killed in turn."""

    kills: int
    scrapes: int
    failed: int
    """While the exporter lived."""
    decreased: int
    """Totals that were smaller, or gone, in a later scrape."""
    series: int
    """Totals watched."""
    scrape_p95_s: float
    scrape_max_s: float
    starts: dict[str, int]
    """Role -> lives counted at the end."""


class Exporter:
    """`dreamfleet exporter` on one port, whichever life it has."""

    def __init__(self, url: str) -> None:
        self._words = ["--redis", url, "--port", str(free_port())]
        self.url = f"http://127.0.0.1:{self._words[-1]}/metrics"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "exporter", *self._words], env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: self.answers() and bool(totals(self.scrape())), "shows totals")

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            self.scrape()
        except OSError:
            return False
        return True

    def scrape(self) -> Scrape:
        """(name, labels) -> value."""
        with urllib.request.urlopen(self.url, timeout=DEADLINE_S) as answer:
            text = answer.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


def totals(scrape: Scrape) -> Scrape:
    return {key: value for key, value in scrape.items() if key[0] in TOTALS}


class Scraper:
    """Scrapes ten times a second, and compares every total with what it was."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter, self._over = exporter, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.gate = threading.Lock()
        """Held while the exporter is dead."""
        self.most: Scrape = {}
        self.took_s: list[float] = []
        self.failed: list[str] = []
        self.decreased: list[str] = []

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            with self.gate:
                since_s = time.monotonic()
                try:
                    found = totals(self.exporter.scrape())
                except OSError as error:
                    self.failed.append(repr(error))
                    continue
                self.took_s.append(time.monotonic() - since_s)
                self._compare(found)

    def _compare(self, found: Scrape) -> None:
        for key, value in self.most.items():
            if found.get(key, -1.0) < value:
                self.decreased.append(f"{key}: {value} -> {found.get(key)}")
        self.most |= found


def run(trials: int, where: Path, seed: int = 0, *, targets: list[str] = TARGETS) -> Result:
    """Kills everybody of one fleet in turn, `trials` times, while it trains and is scraped."""
    fleet, chance = Fleet(where), random.Random(seed)
    where.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.callback(fleet.end)
        fleet.train()
        fleet.until(lambda: fleet.latest("updates") > 5, "trained")
        exporter = Exporter(fleet.url)
        stack.callback(exporter.kill)
        with Scraper(exporter) as scraper:
            for target in targets * trials:
                time.sleep(chance.uniform(0.5, 2.0))
                _kill(target, fleet, scraper)
                fleet.train_on(f"trained on after the death of the {target}")
            seen = len(scraper.took_s)
            wait_until(lambda: len(scraper.took_s) > seen + 20, "scraped on")
    return _result(len(targets) * trials, scraper)


def _kill(target: str, fleet: Fleet, scraper: Scraper) -> None:
    """Returns when its successor lives."""
    if target == "exporter":
        with scraper.gate:
            scraper.exporter.kill()
            scraper.exporter.start()
    elif target == "redis":
        before = fleet.server_pid()
        os.kill(before, signal.SIGKILL)
        fleet.until(lambda: fleet.server_pid() != before, "a new server")
    else:
        fleet.kill_role(target)


def _result(kills: int, scraper: Scraper) -> Result:
    sys.stderr.write("".join(f"{line}\n" for line in [*scraper.failed, *scraper.decreased][:20]))
    ordered, starts = sorted(scraper.took_s), Counter[str]()
    for (name, labels), value in scraper.most.items():
        if name == "dreamfleet_starts_total":
            starts[dict(labels)["role"]] += int(value)
    return Result(
        kills=kills, scrapes=len(ordered), failed=len(scraper.failed),
        decreased=len(scraper.decreased), series=len(scraper.most),
        scrape_p95_s=ordered[int(0.95 * len(ordered))], scrape_max_s=ordered[-1],
        starts=dict(starts),
    )  # fmt: skip


def main() -> int:
    """Prints one line."""
    parser = argparse.ArgumentParser(description="scrape while everybody is killed")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-scrapes-") as folder:
        result = run(options.trials, Path(folder) / "run", options.seed)
    sys.stdout.write((json.dumps(asdict(result)) if options.json else str(result)) + "\n")
    return int(bool(result.failed or result.decreased))


if __name__ == "__main__":
    sys.exit(main())
