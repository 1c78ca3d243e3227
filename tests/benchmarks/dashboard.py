"""How old the page's figures are: 32 actors that speak, 20 tabs that listen, one server.

Run: ``python -m tests.benchmarks.dashboard [--json] [--actors 32] [--tabs 20] [--seconds 60]``. The
actors' words are those of real ones: `actors.report.Reporter` over Redis, each with a connection of
its own, beating once a second at moments of its own. The page is `dreamfleet dashboard --redis URL`
in a process of its own; each tab is a connection that reads `/stream`. Every actor tells when it
spoke, so a tab knows how old each row is.

- ``arrives_p95_s``: age of a row when it arrives, over all rows of all tabs.
- ``shown_p95_s``: age of a row just before the next one takes its place: the most it ever has.
- ``first_s``: median time from a tab's request until its first figures.
- ``page_cpu_ratio``: processor time of the page per second, with all tabs open.
- ``bytes_per_s``: what one tab receives.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from actors.report import Reporter
from deploy.redis_server import EmbeddedRedis
from system.clock import SystemClock
from system.control.redis import RedisControl
from tests.deploy.remote_for_tests import Remote
from tests.security.attack import Target

HEARTBEAT_S = 1.0
NUMBERS = {f"actor/number_{index}": float(index) for index in range(40)}
"""Beside the time, about as many as a real actor tells."""


def speak(url, run_id, num_actors, over):
    """Every actor beats, until told to stop."""
    clock, began = SystemClock(), threading.Event()

    def actor(slot):
        control = RedisControl(url, run_id)
        reporter = Reporter(control, clock, slot=slot, who=f"rig{slot}:1", heartbeat_s=HEARTBEAT_S)
        reporter.incarnation = 1
        reporter.watch([lambda: NUMBERS | {"actor/return_mean": clock.wall()}])
        began.wait(slot * HEARTBEAT_S / num_actors)
        while not over.wait(HEARTBEAT_S / 20):
            reporter.tick("acting")

    threads = [threading.Thread(target=actor, args=(slot,)) for slot in range(num_actors)]
    for thread in threads:
        thread.start()
    return threads


class Tab:
    """One open tab; notes ages."""

    def __init__(self, target, run_id, num_actors):
        self.arrived_s, self.shown_s, self.received_bytes, self.first_s = [], [], 0, None
        self._path, self._actors = f"/stream?run={run_id}", num_actors
        self._rows = {}
        self._target, self._since_s = target, time.monotonic()
        self._connection = http.client.HTTPConnection(target.host, target.port, timeout=60)
        self._connection.request("GET", self._path, headers={"Cookie": target.cookie})
        self.answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def forget(self):
        """What was measured while tabs still opened."""
        self.arrived_s.clear()
        self.shown_s.clear()
        self.received_bytes = 0

    def _read(self):
        kind = ""
        for raw in self.answer:
            self.received_bytes += len(raw)
            if raw.startswith(b"event: "):
                kind = raw[7:-1].decode()
            elif raw.startswith(b"data: ") and kind == "now":
                self._take(json.loads(raw[6:]))

    def _take(self, now):
        wall_s = time.time()
        if self.first_s is None:
            self.first_s = time.monotonic() - self._since_s
        rows = {row["slot"]: row["return_mean"] for row in now["fleet"]["rows"]
                if row["role"] == "actor" and row["return_mean"] is not None}  # fmt: skip
        self.shown_s += [wall_s - spoken_s for spoken_s in self._rows.values()]
        self.arrived_s += [wall_s - spoken_s for spoken_s in rows.values()]
        self._rows = rows


def cpu_s(pid):
    """Processor time of a process so far [s]."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def measure(where, *, num_actors, num_tabs, seconds):
    server = EmbeddedRedis(where / "redis", max_memory_bytes=256 * 1024**2)
    server.start()
    over = threading.Event()
    remote = Remote(where / "home", server.url)
    remote.control.change_desired(actors=num_actors)
    threads = speak(server.url, remote.run_id, num_actors, over)
    page = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "dashboard", "--redis", server.url, "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        target = Target(page.stderr.readline().rpartition(" at ")[2].strip())
        keep_supervised(remote, over)
        tabs = [Tab(target, remote.run_id, num_actors) for _ in range(num_tabs)]
        time.sleep(5.0)
        for tab in tabs:
            tab.forget()
        before_s, since_s = cpu_s(page.pid), time.monotonic()
        time.sleep(seconds)
        spent_s, passed_s = cpu_s(page.pid) - before_s, time.monotonic() - since_s
        arrived = np.concatenate([tab.arrived_s for tab in tabs])
        shown = np.concatenate([tab.shown_s for tab in tabs])
        return {
            "actors": num_actors,
            "tabs": num_tabs,
            "rows_seen": len(arrived),
            "arrives_p50_s": float(np.quantile(arrived, 0.5)),
            "arrives_p95_s": float(np.quantile(arrived, 0.95)),
            "shown_p95_s": float(np.quantile(shown, 0.95)),
            "shown_max_s": float(shown.max()),
            "first_s": float(np.median([tab.first_s for tab in tabs])),
            "page_cpu_ratio": spent_s / passed_s,
            "bytes_per_s": float(np.mean([tab.received_bytes for tab in tabs])) / passed_s,
        }
    finally:
        over.set()
        page.terminate()
        page.wait(30)
        for thread in threads:
            thread.join()
        server.stop()


def keep_supervised(remote, over):
    """A lease that says somebody drives the run."""

    def beat():
        while True:
            remote.lease("supervisor")
            if over.wait(5.0):
                return

    threading.Thread(target=beat, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--actors", type=int, default=32)
    parser.add_argument("--tabs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            Path(folder), num_actors=options.actors, num_tabs=options.tabs, seconds=options.seconds
        )
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:16} {value:.4g}")


if __name__ == "__main__":
    main()
