"""A real fleet as other terminals see it, and a witness who saw every Chunk arrive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

from deploy.operated import FolderRun
from deploy.redis_server import EmbeddedRedis
from deploy.run_folder import RunFolder
from learner.segments import read_ledger
from system.control.redis import RedisControl
from system.errors import DreamfleetError, Unavailable
from system.keys import Keys
from system.redis_client import as_bytes, as_list, connect
from system.types import EntryId
from tests.waiting import DEADLINE_S

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TINY = [
    "--env", "CartPole-v1", "--size", "nano", "--actors", "1", "--copies", "2",
    "--replay-ratio", "16", "--frames", "0", "--no-dashboard", "--set",
    "learner.dream_starts=16", "learner.batch_size=4", "learner.batch_length=8",
    "learner.horizon=5", "learner.checkpoint_s=2", "learner.metrics_s=0.5",
    "learner.publish_s=0.5", "replay.min_steps=64", "replay.chunk_length=8",
    "evaluation.episodes=2", "evaluation.copies=2", "evaluation.final_episodes=2",
    "evaluation.every_frames=500", "fleet.backoff_first_s=0.1",
]  # fmt: skip


def command(where, *arguments, check=True, timeout_s=2 * DEADLINE_S):
    """One `dreamfleet` command to its end."""
    answer = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments], cwd=where, env=ENVIRONMENT,
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    if check:
        assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer


class Terminal:
    """`dreamfleet train` or `resume` in a terminal of its own."""

    def __init__(self, where, *arguments):
        self.log = where / "terminal.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments], cwd=where, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=self.log.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    @property
    def watches(self):
        """Whether it has come so far that a hang-up is no longer its death."""
        assert self.process.poll() is None, self.log.read_text()
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGHUP - 1) & 1)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(2 * DEADLINE_S)


class Fleet:
    """One run on Ray, started by a terminal that need not live."""

    def __init__(self, where, *settings, name="tiny"):
        self.where, self.name, self.settings = where, name, settings
        self.folder = RunFolder(where / "runs" / name)
        self.driver = None
        """The terminal that started it and still watches, if there is one."""

    def train(self, *, detach=True):
        if not detach:
            self.driver = self.terminal("train", *TINY, *self.settings)
            return self
        command(self.where, "train", "--run", self.name, "--detach", *TINY, *self.settings)
        return self

    def terminal(self, *arguments):
        """`dreamfleet ...` of this run in a terminal of its own; returns when that watches."""
        verb, *rest = arguments
        terminal = Terminal(self.where, verb, "--run", self.name, *rest)
        try:
            self.until(lambda: terminal.watches, "watched")
        except AssertionError:
            terminal.kill()
            raise
        return terminal

    def until(self, condition, what, timeout_s=DEADLINE_S):
        """Waits for a condition; returns what it returned."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable, OSError):
                if found := condition():
                    return found
            time.sleep(0.1)
        raise AssertionError(f"never {what}: {self.words()}")

    def words(self):
        logs = sorted([*self.where.glob("terminal.log"), *self.folder.log_path.glob("*.log")])
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def status(self):
        """As `dreamfleet status --json` prints it; without starting a process to look."""
        with contextlib.closing(FolderRun(self.folder)) as run:
            return run.status().to_json()

    @property
    def url(self):
        file = self.folder.control()
        if file is None:
            raise Unavailable("the run is just starting")
        return file.redis

    def control(self):
        return contextlib.closing(RedisControl(self.url, self.folder.record().run_id))

    def lease(self, role, slot=0):
        with self.control() as control:
            leases = [one for one in control.leases() if (one.role, one.slot) == (role, slot)]
        return leases[0] if leases else None

    def events(self):
        with self.control() as control:
            return control.events(last=1000)

    def event_kinds(self):
        return {event.kind for event in self.events()}

    def metrics(self, role, slot=0):
        with self.control() as control:
            found = [one for one in control.metrics() if (one.role, one.slot) == (role, slot)]
        return found[0].values if found else {}

    def line(self):
        """The learner's last."""
        lines = [line for line in self.folder.metrics() if "eval/return_mean" not in line]
        return lines[-1] if lines else {}

    def latest(self, name):
        return self.line().get(name, 0)

    def train_on(self, what="trained on", timeout_s=DEADLINE_S):
        """More frames *and* more updates than now; returns how long that took [s]."""
        before, since = {"frames": 0, "updates": 0, **self.line()}, time.monotonic()
        self.until(
            lambda: all(self.latest(name) > before[name] for name in ("frames", "updates")), what,
            timeout_s,
        )  # fmt: skip
        return time.monotonic() - since

    def held(self, role, slot=0):
        """The lease, once there is one: a busy machine may have missed to renew it."""
        return self.until(lambda: self.lease(role, slot), f"saw a {role}")

    def pid(self, role, slot=0):
        return int(self.held(role, slot).who.split(":")[1])

    def kill_role(self, role, slot=0, number=signal.SIGKILL):
        """Kills the process behind a lease; returns how long until its successor lives [s]."""
        before, since = self.held(role, slot), time.monotonic()
        os.kill(int(before.who.split(":")[1]), number)
        self.until(
            lambda: (now := self.lease(role, slot)) and now.who != before.who, f"{role} restarted"
        )
        return time.monotonic() - since

    def server_pid(self):
        with contextlib.closing(connect(self.url)) as connection:
            info = as_bytes(connection.call("INFO", "server")).decode()
        return int(info.split("process_id:")[1].split()[0])

    def ratio_windows(self, per_update, least_updates=200):
        """Replay ratio of every window of so many updates [Steps replayed / Step inserted]."""
        lines = [line for line in self.folder.metrics() if "replay/ratio" in line]
        points = [(line["updates"], line["frames"]) for line in lines if line["updates"] > 0]
        windows = []
        for index, (updates, frames) in enumerate(points):
            for later, more in points[index + 1 :]:
                if later - updates >= least_updates:
                    windows.append((later - updates) * per_update / (more - frames))
                    break
        return windows

    def stop(self):
        return command(self.where, "stop", "--run", self.name).stdout

    def end(self):
        """At the end of a test: whatever is left."""
        if not self.folder.path.exists() or not self.folder.in_use():
            return
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.stop()
        if (pid := self.folder.head_pid()) is not None:
            os.kill(pid, signal.SIGTERM)

    def ledger(self):
        return read_ledger(self.folder.path / "replay")

    def waiting(self):
        """(slot, id) of what waits in the files of a stopped server for the next learner."""
        keys, found = Keys(self.folder.record().run_id), set()
        server = EmbeddedRedis(self.folder.redis_path, max_memory_bytes=1 << 30)
        server.start()
        try:
            with contextlib.closing(connect(server.url)) as connection:
                for slot in map(int, as_list(connection.call("SMEMBERS", keys.slots))):
                    for row in as_list(connection.call("XRANGE", keys.log(slot), "-", "+")):
                        found.add((slot, EntryId.parse(as_bytes(as_list(row)[0]))))
        finally:
            server.stop()
        return found

    def check_ledger(self):
        """Every durable Chunk is stored once, in order, without a gap within an incarnation."""
        streams = {}
        for slot, entry_id in self.ledger():
            streams.setdefault(slot, []).append(entry_id)
        assert streams
        for slot, ids in streams.items():
            for before, after in pairwise(ids):
                follows = after == (before.incarnation, before.sequence + 1)
                claims = after.incarnation > before.incarnation and after.sequence in (0, 1)
                assert follows or claims, (slot, before, after)


class Witness:
    """Reads every slot's stream on its own and remembers the ids: what Redis ever acknowledged.

    The loop that uses it::

        with Witness(fleet) as witness:
            ...                                 # faults
        fleet.stop()
        assert witness.lost() == set()          # neither stored nor waiting for the next learner
    """

    def __init__(self, fleet):
        self.seen: set[tuple[int, EntryId]] = set()
        self._fleet, self._over = fleet, threading.Event()
        self._keys = Keys(fleet.folder.record().run_id)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def lost(self):
        """Acknowledged, and neither stored nor in Redis, once the run has stopped."""
        return self.seen - set(self._fleet.ledger()) - self._fleet.waiting()

    def _watch(self):
        cursors: dict[int, str] = {}
        connection = connect(self._fleet.url, timeout_s=2.0)
        while not self._over.wait(0.05):
            with contextlib.suppress(DreamfleetError):
                for member in as_list(connection.call("SMEMBERS", self._keys.slots)):
                    cursors.setdefault(int(as_bytes(member)), "0-0")
                for slot in cursors:
                    self._read(connection, slot, cursors)
        connection.close()

    def _read(self, connection, slot, cursors):
        key = self._keys.log(slot)
        rows = as_list(connection.call("XRANGE", key, f"({cursors[slot]}", "+", "COUNT", 100))
        for row in rows:
            text = as_bytes(as_list(row)[0]).decode()
            cursors[slot] = text
            entry_id = EntryId(*map(int, text.split("-")))
            if entry_id.sequence:
                self.seen.add((slot, entry_id))
