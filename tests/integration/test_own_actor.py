"""`dreamfleet actor`: real processes, a real server, a real learner that only takes in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest

from actors.envs.registry import env_spec
from deploy.cli import main
from deploy.compose_config import config_of
from deploy.options import build_parser
from deploy.parts import build_learner
from deploy.place import RedisUrls, redis_place
from deploy.redis_server import EmbeddedRedis
from deploy.registry import Registry, RunEntry
from deploy.run_folder import RunFolder
from learner.segments import read_ledger
from system.errors import Unavailable
from system.redis_client import connect
from system.tick import Wait
from system.types import EntryId
from tests.waiting import DEADLINE_S, wait_until

ROOT = __file__.rpartition("/tests/")[0]
RUN = [
    "train", "--env", "CartPole-v1", "--size", "nano", "--run", "tiny", "--frames", "0",
    "--no-dashboard", "--set",
    "replay.min_steps=1000000", "replay.chunk_length=8", "actor.heartbeat_s=0.3",
]  # fmt: skip


class Site:
    """A run with a server and a learner, and actors that join it by its URL."""

    def __init__(self, where):
        self.where = where
        config = config_of(build_parser().parse_all(RUN), where)
        self.folder = RunFolder.create(where, config, env_spec(config.env))
        self.server = EmbeddedRedis(self.folder.redis_path, max_memory_bytes=1 << 28)
        self.place = redis_place(RedisUrls(control=self.server.url), self.folder.record().run_id)
        self.reading, self.over = threading.Event(), False
        self.learner = self.thread = None
        self.actors, self.numbers = [], count()

    def start(self):
        self.server.start()
        self.register()
        self.learner = build_learner(self.folder.record(), self.folder.path, self.place)
        self.reading.set()
        self.thread = threading.Thread(target=self._learn, daemon=True)
        self.thread.start()

    def register(self):
        Registry(self.server.url).put(RunEntry.of(self.folder))

    def actor(self, *arguments):
        log = self.where / f"actor{next(self.numbers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "actor", "--redis", self.server.url,
                 *arguments],
                cwd=self.where, env={**os.environ, "PYTHONPATH": ROOT}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        process.said = log.read_text
        self.actors.append(process)
        return process

    def until(self, condition, what):
        return wait_until(condition, what, words=lambda: [each.said() for each in self.actors])

    def lease(self, slot=1000):
        leases = self.place.control.leases()
        return next((lease for lease in leases if lease.slot == slot), None)

    def acting(self, incarnation, slot=1000, doing="acting"):
        def acts():
            lease = self.lease(slot)
            return lease and (lease.incarnation, lease.doing) == (incarnation, doing) and lease

        return self.until(acts, f"incarnation {incarnation} {doing}")

    def spooled(self, slot=1000, spool="spool"):
        folder = self.where / spool / self.folder.record().run_id / str(slot)
        return {EntryId.parse(path.name) for path in folder.glob("[0-9]*-[1-9]*")}

    def fenced(self, slot=1000, spool="spool"):
        folder = self.where / spool / self.folder.record().run_id / str(slot)
        return {EntryId.parse(path.name) for path in folder.glob("fenced/*/[0-9]*-[1-9]*")}

    def ledger(self):
        """Durable ids, after the learner has closed its files."""
        self.over = True
        self.thread.join()
        self.learner.close()
        self.thread = None
        ids = read_ledger(self.folder.path / "replay")
        assert len(ids) == len(set(ids)), "stored twice"
        assert {slot for slot, _ in ids} == {1000}
        return [entry_id for _, entry_id in ids]

    def close(self):
        for process in self.actors:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.over = True
        if self.thread is not None:
            self.thread.join()
        self.server.stop()

    def _learn(self):
        while not self.over:
            if not self.reading.is_set():
                time.sleep(0.02)
                continue
            try:
                turn = self.learner.tick()
            except Unavailable:
                continue
            if isinstance(turn, Wait):
                time.sleep(turn.seconds)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def from_one(ids):
    return {entry_id.sequence for entry_id in ids} == set(range(1, len(ids) + 1))


def check_a_half_dead_server_stops_nothing(site):
    before, server = len(site.spooled()), site.server.pid
    os.kill(server, signal.SIGSTOP)  # half dead: takes every packet, answers nothing
    try:
        site.until(lambda: len(site.spooled()) > before + 20, "acted on without an answer")
        held = set(site.spooled())
    finally:
        os.kill(server, signal.SIGCONT)
    # It acts on meanwhile, faster than this machine may send.
    site.until(lambda: not held & set(site.spooled()), "sent what it had")
    site.acting(1)  # the server's clock went on: its lease had ended


def check_refusals(site, holder, capsys):
    for arguments, complaint in (
        (["--slot", "3"], "--slot 3 belongs to the supervised fleet"),
        (["--slot", "1000", "--spool", "other"], f"slot 1000 is held by {holder.who}"),
        (["--run", "tinny"], "no run 'tinny'"),
        (["--env", "Pendulum-v1"], "name is Pendulum-v1 here and CartPole-v1 there"),
    ):
        assert main(["actor", "--redis", site.server.url, *arguments]) == 2
        assert complaint in capsys.readouterr().err


def test_a_robot_joins_with_nothing_but_a_url(site, capsys, monkeypatch):
    monkeypatch.chdir(site.where)
    robot = site.actor()
    site.until(lambda: "waiting: Redis at" in robot.said(), "said that Redis is away")
    site.start()
    holder = site.acting(1)
    assert holder.who.split(":")[1] == str(robot.pid)
    loaded = Path(f"/proc/{robot.pid}/maps")
    if loaded.exists():
        assert "/ray/" not in loaded.read_text()

    site.until(lambda: site.place.control.metrics(), "told its numbers")
    site.place.control.change_desired(stopping=True)
    site.acting(1, doing="waiting")
    site.place.control.change_desired(stopping=False)
    site.acting(1)
    assert "the run has ended: waiting" in robot.said()
    assert "the run goes on" in robot.said()
    check_a_half_dead_server_stops_nothing(site)
    check_refusals(site, holder, capsys)
    robot.send_signal(signal.SIGTERM)
    assert robot.wait(DEADLINE_S) == 0, robot.said()
    assert "slot 1000: nothing is left to send" in robot.said()
    assert site.lease() is None
    ids = site.ledger()
    assert len(ids) > 5
    assert from_one(ids)


def test_robots_that_start_together_take_slots_of_their_own(site):
    site.start()
    robots = [site.actor("--spool", f"spool{number}") for number in range(2)]
    for slot in (1000, 1001):
        site.acting(1, slot)
    for robot in robots:
        robot.send_signal(signal.SIGTERM)
        assert robot.wait(DEADLINE_S) == 0, robot.said()
    assert [lease.role for lease in site.place.control.leases()] == ["learner"]


@pytest.mark.slow
def test_a_killed_actor_and_a_wiped_server_lose_nothing_that_was_spooled(site):
    site.start()
    robot = site.actor()
    site.acting(1)
    site.reading.clear()
    site.until(lambda: len(site.spooled()) > 20, "spooled without credit")
    robot.kill()
    robot.wait()
    left = site.spooled()
    connection = connect(site.server.url)
    connection.call("FLUSHALL")
    connection.close()
    site.register()
    site.reading.set()
    again = site.actor()
    site.acting(2)
    assert site.spooled().isdisjoint(left)
    again.send_signal(signal.SIGTERM)
    assert again.wait(DEADLINE_S) == 0, again.said()
    ids = site.ledger()
    assert left <= set(ids)
    for incarnation in (1, 2):
        assert from_one([each for each in ids if each.incarnation == incarnation])


def test_stopped_longer_than_its_lease_it_is_fenced_and_keeps_what_it_held(site):
    site.start()
    late = site.actor()
    first = site.acting(1)
    site.reading.clear()
    site.until(lambda: len(site.spooled()) > 20, "spooled without credit")
    late.send_signal(signal.SIGSTOP)
    site.until(lambda: site.lease() is None, "lost its lease")
    site.reading.set()
    newer = site.actor("--slot", "1000", "--spool", "elsewhere")
    holder = site.acting(2)
    assert holder.who != first.who
    late.send_signal(signal.SIGCONT)
    assert late.wait(DEADLINE_S) == 1, late.said()
    assert "Fenced" in late.said()
    assert site.acting(2).who == holder.who, "the lease of its successor is not touched"
    told = [event for event in site.place.control.events() if event.kind == "actor_fenced"]
    assert "/fenced" in told[0].text
    newer.send_signal(signal.SIGTERM)
    assert newer.wait(DEADLINE_S) == 0, newer.said()

    ids, kept = site.ledger(), site.fenced()
    durable = {each for each in ids if each.incarnation == 1}
    assert len(kept) > 10
    assert site.spooled() == set()
    assert from_one(durable | kept), "nothing it held is lost"
    assert len(durable & kept) <= 1, "received, and not yet known to be durable"
    assert from_one([each for each in ids if each.incarnation == 2])
