"""A learner that was stopped while its successor began: it changes nothing, wherever it stood."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from deploy.redis_server import EmbeddedRedis
from learner.segments import read_ledger
from system.codec import encode_chunk
from system.keys import Keys
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.log.redis import RedisLog, last_generated_id
from system.redis_client import as_bytes, as_list, connect
from system.types import EntryId
from tests.learner.fleets_for_tests import SPEC, chunk_of
from tests.waiting import DEADLINE_S, wait_until

CHUNKS = 1500
Name = TypeVar("Name", bytes, Path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where a run meets, and when its learners are stopped."""

    url: str
    run: str
    dice: random.Random


class LearnerProcess:
    """One child; it begins when told to, so that it can import early."""

    def __init__(self, folder: Path, url: str, run: str) -> None:
        module = "tests.chaos.learner_process"
        self.folder = folder
        self.child = subprocess.Popen(
            [sys.executable, "-m", module, str(folder), url, run],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.epoch = 0

    def begin(self) -> None:
        assert self.line() == "ready"
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        self.epoch = int(self.line().removeprefix("epoch "))

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def stop(self) -> None:
        """Returns when it stands still: a call of the kernel that was begun is ended first."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED)

    def has_saved(self, times: int) -> bool:
        """Whether it has saved so often, or is about to be pruned for it."""
        names = [path.name for path in (self.folder / "checkpoints").glob("[0-9]*")]
        return sum(name.startswith(f"{self.epoch:05d}-") for name in names) >= times


@contextlib.contextmanager
def learners(folder: Path, url: str, run: str, count: int) -> Iterator[list[LearnerProcess]]:
    processes = [LearnerProcess(folder, url, run) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.child.kill()
            process.child.communicate()


def fill_log(url: str, run: str) -> None:
    """More than the learners will read, as received from two actors."""
    claim = encode_claim(Claim(who="x", spec_digest=SPEC.digest, num_copies=1))
    for slot in range(2):
        log = RedisLog(url=url, run=run).slot_log(slot)
        log.append(EntryId(1, 0), claim, create=True)
        for sequence in range(1, CHUNKS + 1):
            first = 4 * (sequence - 1)
            chunk = chunk_of(slot=slot, incarnation=1, sequence=sequence, first_step=first)
            log.append(EntryId(1, sequence), encode_chunk(chunk), create=True)
        log.close()


def store(url: str, run: str) -> dict[bytes, bytes]:
    """Every key of the run that does not expire, as Redis would save it."""
    connection = connect(url)
    found = {}
    for key in map(as_bytes, as_list(connection.call("KEYS", f"dreamfleet:{run}:*"))):
        if connection.call("PTTL", key) == -1 and not key.endswith(b":events"):
            found[key] = as_bytes(connection.call("DUMP", key))
    connection.close()
    return found


def is_quiet(url: str, run: str) -> bool:
    before = store(url, run)
    time.sleep(0.2)
    return store(url, run) == before


def speaker(url: str, run: str) -> int:
    """The epoch that spoke last to the actors."""
    connection = connect(url)
    last = last_generated_id(connection, Keys(run).learner)
    connection.close()
    return 0 if last is None else last.incarnation


def lease_epoch(url: str, run: str) -> bytes | None:
    connection = connect(url)
    value = connection.call("GET", Keys(run).lease("learner", 0))
    connection.close()
    return None if value is None else as_bytes(value)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wipe(url: str, run: str) -> None:
    """Redis forgets this run; with it, that there is a successor."""
    connection = connect(url)
    connection.call(
        "UNLINK", *map(as_bytes, as_list(connection.call("KEYS", f"dreamfleet:{run}:*")))
    )
    connection.close()


def take_over(old: LearnerProcess, new: LearnerProcess, server: Server, *, wiped: bool) -> None:
    """Stops `old` somewhere, begins `new`, lets `old` go on: nothing may come of it."""
    url, run = server.url, server.run
    wait_until(lambda: old.has_saved(2))
    time.sleep(server.dice.uniform(0.0, 0.2))
    old.stop()
    new.begin()
    assert new.epoch > old.epoch
    wait_until(lambda: new.has_saved(2))
    new.stop()
    # Redis may still have its last commands to do.
    wait_until(lambda: is_quiet(url, run))
    if wiped:
        wipe(url, run)
    before, keys, ledger = files(old.folder), store(url, run), read_ledger(old.folder / "replay")
    lease = lease_epoch(url, run)
    old.signal(signal.SIGCONT)
    said = old.line()
    assert said.startswith("fenced"), said
    assert old.child.wait(DEADLINE_S) == 0
    # An empty store refuses nobody: stopped between its last look and its word, it may say that.
    words = {Keys(run).learner.encode(), Keys(run).policy().encode()} if wiped else set()
    assert unlike(keys, store(url, run)) <= words
    assert lease_epoch(url, run) in (lease, None)
    assert read_ledger(old.folder / "replay") == ledger
    check_files(before, files(old.folder), own=f"{old.epoch:05d}-")
    new.signal(signal.SIGCONT)
    wait_until(lambda: speaker(url, run) == new.epoch)


def unlike(one: dict[Name, bytes], other: dict[Name, bytes]) -> set[Name]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def check_files(before: dict[Path, bytes], after: dict[Path, bytes], *, own: str) -> None:
    """Between its last look and its write it may still write that: nobody reads it, or a line."""
    for path in unlike(before, after):
        if path.name in ("metrics.jsonl", "metrics.csv"):
            assert after[path].startswith(before[path])
            assert after[path].count(b"\n") == before[path].count(b"\n") + 1
        elif path.name == "episodes.jsonl":
            assert after[path].startswith(before.get(path, b""))
        elif path.parents[1].name == "checkpoints":
            assert path.parent.name.startswith(own), path
            assert path not in after, "it goes on removing what its successor removes"
        else:
            assert path.name.startswith(own), path
            assert path.suffix == ".segment", path
            assert path in after


def run_trials(server: EmbeddedRedis, run: str, folder: Path, trials: int) -> None:
    place = Server(url=server.url, run=run, dice=random.Random(trials))
    fill_log(server.url, run)
    with learners(folder, server.url, run, trials + 1) as processes:
        processes[0].begin()
        last = processes[-1]
        for old, new in pairwise(processes):
            take_over(old, new, place, wiped=new is last)
        last.signal(signal.SIGTERM)
        assert last.line() == "closed"
    ledger = read_ledger(folder / "replay")
    for slot in range(2):
        sequences = [entry_id.sequence for s, entry_id in ledger if s == slot]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert len(sequences) > 10


def test_a_stopped_learner_changes_nothing_after_two_takeovers(
    redis_server: EmbeddedRedis, run_name: str, tmp_path: Path
) -> None:
    run_trials(redis_server, run_name, tmp_path, trials=2)


@pytest.mark.slow
def test_a_stopped_learner_changes_nothing_after_twelve_takeovers(
    redis_server: EmbeddedRedis, run_name: str, tmp_path: Path
) -> None:
    run_trials(redis_server, run_name, tmp_path, trials=12)
