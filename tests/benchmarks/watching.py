"""What being watched costs: training throughput with exporter, page and a tab, and without them.

Run: ``python -m tests.benchmarks.watching [--json] [--pairs 10] [--window-s 20] [--tabs 1]``. One
run trains all the time (`laptop`, cartpole swingup, 2 actors, Redis and Ray); both watchers come
and go beside it, so that a pair shares its machine, its replay and its policy. Every window begins
when they answer, or are gone; a scrape every second, far more than Prometheus asks, and an open
tab that reads its stream. Which of a pair comes first changes from pair to pair.

- ``ratio``: median over pairs of updates/s watched over updates/s not watched.
- ``low``, ``high``: 95 % interval of the geometric mean over pairs (bootstrap, 10,000 samples).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from deploy.run_folder import RunFolder
from tests.fleet_for_tests import ENVIRONMENT, Fleet, command

SETTLED_UPDATES = 200
SETTINGS = [
    "--env", "dm_control/cartpole-swingup", "--preset", "laptop", "--actors", "2",
    "--frames", "0", "--no-dashboard", "--set", "learner.metrics_s=0.5",
    "evaluation.every_frames=1000000000",
]  # fmt: skip


class Watcher:
    """One command that serves a page, and somebody who looks at it."""

    def __init__(self, where, *line):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *line], cwd=where, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said = ""
        while (found := re.search(r"http://\S+", said)) is None:
            line = self._process.stdout.readline()
            assert line, said
            said += line
        self.url = found[0]
        self._over = threading.Event()
        self._threads = []

    def look(self, action):
        """Does `action` again and again, in a thread of its own."""
        thread = threading.Thread(target=self._again, args=(action,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def end(self):
        self._over.set()
        self._process.terminate()
        self._process.wait(30)
        for thread in self._threads:
            thread.join(30)
        self._process.stdout.close()

    def _again(self, action):
        while not self._over.wait(1.0):
            with contextlib.suppress(OSError):
                action()


@contextlib.contextmanager
def watched(where, name, tabs):
    """Exporter and page, each with somebody who looks."""
    redis = RunFolder(where / "runs" / name).control().redis
    exporter = Watcher(where, "exporter", "--redis", redis, "--port", "0")
    page = Watcher(where, "dashboard", "--run", name, "--port", "0")
    try:
        exporter.look(lambda: urllib.request.urlopen(exporter.url, timeout=10).read())
        for _ in range(tabs):
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            opener.open(page.url, timeout=30).read()
            page.look(lambda opener=opener: read_stream(opener, page.url))
        yield
    finally:
        page.end()
        exporter.end()


def read_stream(opener, url):
    """One tab, until the page goes."""
    base = url.partition("?")[0].rstrip("/")
    with opener.open(f"{base}/stream", timeout=30) as stream:
        for _ in stream:
            pass


def updates_per_s(fleet, window_s):
    """Updates per second of the run's own clock over a window from now."""
    last = list(fleet.folder.metrics())[-1]
    time.sleep(window_s)
    now = list(fleet.folder.metrics())[-1]
    return (now["updates"] - last["updates"]) / (now["time_s"] - last["time_s"])


def pair(fleet, options, watched_first):
    """One window each; returns (watched, alone) in updates per second."""
    found = {}
    for is_watched in (watched_first, not watched_first):
        with contextlib.ExitStack() as stack:
            if is_watched:
                stack.enter_context(watched(fleet.where, fleet.name, options.tabs))
            time.sleep(2.0)
            found[is_watched] = updates_per_s(fleet, options.window_s)
    return found[True], found[False]


def interval(ratios):
    """95 % interval of the geometric mean."""
    logs, dice = [math.log(ratio) for ratio in ratios], random.Random(0)
    means = sorted(statistics.fmean(dice.choices(logs, k=len(logs))) for _ in range(10_000))
    return math.exp(means[250]), math.exp(means[9750])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--window-s", type=float, default=20.0)
    parser.add_argument("--tabs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        fleet = Fleet(where, name="watched")
        command(where, "train", "--run", fleet.name, "--detach", *SETTINGS)
        try:
            fleet.until(lambda: fleet.latest("updates") > SETTLED_UPDATES, "trained", 180)
            pairs = [pair(fleet, options, i % 2 == 0) for i in range(options.pairs)]
        finally:
            fleet.end()
    ratios = [a / b for a, b in pairs]
    low, high = interval(ratios)
    result = {
        "pairs": options.pairs, "window_s": options.window_s, "tabs": options.tabs,
        "cores": os.cpu_count(), "ratio": statistics.median(ratios), "low": low, "high": high,
        "watched_per_s": [a for a, _ in pairs], "alone_per_s": [b for _, b in pairs],
    }  # fmt: skip
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"updates/s watched over alone: median {result['ratio']:.3f}, 95 % interval of the mean "
        f"{low:.3f} to {high:.3f} ({options.pairs} pairs of {options.window_s:g} s)"
    )


if __name__ == "__main__":
    main()
