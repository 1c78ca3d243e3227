"""A real fleet: Ray, the embedded server, and `kill -9` of everything in turn."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.run_folder import RunFolder
from learner.segments import read_ledger
from system.control.redis import RedisControl
from system.errors import Unavailable
from system.redis_client import as_bytes, connect

ROOT = Path(__file__).parents[2]
TINY = [
    "--env", "CartPole-v1", "--size", "nano", "--actors", "1", "--copies", "2",
    "--replay-ratio", "16", "--frames", "0", "--set",
    "learner.dream_starts=16", "learner.batch_size=4", "learner.batch_length=8",
    "learner.horizon=5", "learner.checkpoint_s=2", "learner.metrics_s=0.5",
    "learner.publish_s=0.5", "replay.min_steps=64", "replay.chunk_length=8",
    "evaluation.episodes=2", "evaluation.copies=2", "evaluation.final_episodes=2",
    "evaluation.every_frames=500", "fleet.backoff_first_s=0.1",
]  # fmt: skip


def command(where, *arguments, check=True):
    answer = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd=where, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=150, check=False,
    )  # fmt: skip
    if check:
        assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer


class Fleet:
    """One `dreamfleet train` in the background, seen as another terminal sees it."""

    def __init__(self, where, *arguments):
        self.where, self.log = where, where / "driver.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=where, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
            stdout=self.log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @property
    def folder(self):
        return RunFolder(self.where / "runs" / "tiny")

    def status(self):
        return json.loads(command(self.where, "status", "--run", "tiny", "--json").stdout)

    def until(self, condition, what, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(Unavailable, OSError):
                if found := condition():
                    return found
            time.sleep(0.2)
        raise AssertionError(f"never {what}: {self.log.read_text()}")

    def control(self):
        return RedisControl(self.folder.control().redis, self.folder.record().run_id)

    def lease(self, role):
        control = self.control()
        try:
            return next((lease for lease in control.leases() if lease.role == role), None)
        finally:
            control.close()

    def event_kinds(self):
        control = self.control()
        try:
            return {event.kind for event in control.events()}
        finally:
            control.close()

    def latest(self, name):
        lines = [line for line in self.folder.metrics() if "eval/return_mean" not in line]
        return lines[-1].get(name, 0) if lines else 0

    def train_on(self, what):
        """More frames *and* more updates than now."""
        frames, updates = self.latest("frames"), self.latest("updates")
        self.until(
            lambda: self.latest("frames") > frames and self.latest("updates") > updates, what
        )

    def kill_role(self, role):
        """`kill -9` of the process behind a lease; waits for its successor."""
        before = self.lease(role)
        os.kill(int(before.who.split(":")[1]), signal.SIGKILL)
        self.until(lambda: (now := self.lease(role)) and now.who != before.who, f"{role} restarted")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(30)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), "train", "--run", "tiny", *TINY)
    yield fleet
    fleet.end()


def redis_pid(url):
    connection = connect(url)
    try:
        info = as_bytes(connection.call("INFO", "server")).decode()
    finally:
        connection.close()
    return int(info.split("process_id:")[1].split()[0])


# The tests below are one story, told in order: starting a fleet takes ten seconds.


def test_it_trains_and_says_so(fleet):
    fleet.until(lambda: fleet.latest("updates") > 5, "trained", 90)
    status = fleet.status()
    assert status["alive"]
    assert status["actors"] == {"desired": 1, "running": 1, "pending": 0, "reasons": {}}
    assert status["policy_version"] >= 1
    assert status["replay"]["steps"] > 0


def test_a_second_driver_is_refused(fleet):
    refused = command(fleet.where, "resume", "--run", "tiny", check=False)
    assert refused.returncode == 2
    assert "is running" in refused.stderr
    refused = command(fleet.where, "train", "--run", "tiny", *TINY, check=False)
    assert refused.returncode == 2
    assert "dreamfleet resume --run tiny" in refused.stderr


def test_scale_is_absolute_and_waits(fleet):
    said = command(fleet.where, "scale", "2", "--run", "tiny", "--wait").stdout
    assert "desired 2, running 2, pending 0" in said
    again = command(fleet.where, "scale", "2", "--run", "tiny").stdout
    assert again.split("generation")[1] == said.split("generation")[1]
    said = command(fleet.where, "scale", "1", "--run", "tiny", "--wait").stdout
    assert "desired 1, running 1" in said


def test_the_replay_ratio_holds_while_the_fleet_changes(fleet):
    command(fleet.where, "scale", "3", "--run", "tiny", "--wait")
    fleet.train_on("trained with three actors")
    command(fleet.where, "scale", "1", "--run", "tiny", "--wait")
    enough = fleet.latest("updates") + 400
    fleet.until(lambda: fleet.latest("updates") > enough, "trained on")
    lines = [line for line in fleet.folder.metrics() if "replay/ratio" in line]
    points = [(line["updates"], line["frames"]) for line in lines if line["updates"] > 0]
    per_update, windows = 4 * 8, 0
    for index, (updates, frames) in enumerate(points):
        for later, more in points[index + 1 :]:
            if later - updates >= 200:
                achieved = (later - updates) * per_update / (more - frames)
                assert achieved == pytest.approx(16, rel=0.1)
                windows += 1
                break
    assert windows > 3
    updates, frames = points[-1]
    assert updates * per_update / (frames - 64) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("role", ["actor", "learner"])
def test_kill_9_of_a_process(fleet, role):
    fleet.kill_role(role)
    fleet.train_on(f"trained on after kill -9 of the {role}")


def test_kill_9_of_the_server(fleet):
    url = fleet.folder.control().redis
    before = redis_pid(url)
    os.kill(before, signal.SIGKILL)
    fleet.until(lambda: redis_pid(url) != before, "a new server")
    fleet.train_on("trained on after kill -9 of the server")
    # The supervisor tells what happened with its next look, which may come after training goes on.
    told = {"actor_restarted", "learner_restarted", "redis_restarted"}
    fleet.until(lambda: told <= fleet.event_kinds(), f"told of {told}")


def test_a_wiped_server_costs_nothing(fleet):
    version = fleet.latest("learner/policy_version")
    connection = connect(fleet.folder.control().redis)
    connection.call("FLUSHALL")
    connection.close()
    fleet.train_on("trained on after FLUSHALL")
    fleet.until(lambda: fleet.status()["actors"]["desired"] == 1, "wished for an actor again")
    fleet.until(lambda: fleet.latest("learner/policy_version") > version, "published again")
    check_ledger(fleet.folder.path)


def test_stop_drains_and_saves(fleet):
    said = command(fleet.where, "stop", "--run", "tiny").stdout
    assert "dreamfleet resume --run tiny" in said
    assert fleet.process.wait(20) == 0
    check_ledger(fleet.folder.path)
    assert "next:" in fleet.log.read_text()
    assert "Traceback" not in fleet.log.read_text()


def test_resume_goes_on_and_ends_at_its_frame_limit(fleet):
    limit = fleet.latest("frames") + 200
    resumed = Fleet(fleet.where, "resume", "--run", "tiny", "--frames", str(limit))
    try:
        assert resumed.process.wait(90) == 0, resumed.log.read_text()
    finally:
        resumed.end()
    check_ledger(fleet.folder.path)
    status = fleet.status()
    assert not status["alive"]
    assert status["frames"] >= limit
    assert (fleet.folder.path / "curve.png").stat().st_size > 0


def test_evaluate_needs_no_fleet(fleet):
    said = command(fleet.where, "evaluate", "--run", "tiny", "--episodes", "2", "--json").stdout
    result = json.loads(said)
    assert set(result) == {"return_mean", "return_std", "episodes", "policy_version"}
    assert result["episodes"] == 2


def check_ledger(folder):
    """Every durable Chunk is stored once, in order, without a gap within an incarnation."""
    streams = {}
    for slot, entry_id in read_ledger(folder / "replay"):
        streams.setdefault(slot, []).append(entry_id)
    assert streams
    for slot, ids in streams.items():
        for before, after in pairwise(ids):
            follows = after == (before.incarnation, before.sequence + 1)
            claims = after.incarnation > before.incarnation and after.sequence in (0, 1)
            assert follows or claims, (slot, before, after)
