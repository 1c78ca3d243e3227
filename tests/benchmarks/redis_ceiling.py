"""What one Redis takes: Chunks through SlotWriter against raw XADD of the same bytes.

Run: ``python -m tests.benchmarks.redis_ceiling [--redis URL] [--rounds 3] [--seconds 1] [--json]``.

::

    P producers   raw      XADD key <id> d <bytes>     encoded once, nothing else
                  writer   offer (encode) + tick       notices, credit, retained until durable
    1 reader      last ids -> notice (durable, endless credit) -> XTRIM      the same for both

The two take turns in every round, with the same processes and connections, so their ratio holds on
a busy machine; rates are medians. `share` is the product's rate over raw. `client_us` is a
producer's own CPU time for a Chunk; `server_us` is the server's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from deploy.redis_server import EmbeddedRedis
from system.clock import SystemClock
from system.codec import encode_chunk
from system.log.protocol import Claim, Notice, SlotNotice
from system.log.redis import RedisLog
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.redis_client import connect
from system.tick import Wait
from system.types import Chunk, EntryId

PRODUCERS = (1, 2, 4, 8, 16)
LENGTH = 64
SETTLE_S = 0.1
READER_S = 0.02
RETAIN_BYTES = 64 * 1024**2
ENDLESS = 1 << 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What every producer does next."""

    kind: str
    """`proprio` or `image`."""
    raw: bool
    start_s: float
    """On the clock that all processes share [s]."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What one producer did."""

    chunks: int
    cpu_s: float


def chunk_of(kind: str, slot: int) -> Chunk:
    """64 Steps of cartpole, with its posterior; or of a camera of 64 x 64 colour pixels."""
    random = np.random.default_rng(slot)
    if kind == "image":
        fields = {"observation/image": random.integers(0, 256, (LENGTH, 64, 64, 3), np.uint8)}
    else:
        fields = {
            "observation/position": random.normal(size=(LENGTH, 3)).astype(np.float32),
            "observation/velocity": random.normal(size=(LENGTH, 2)).astype(np.float32),
        }
    fields |= {
        "action": random.uniform(-1, 1, (LENGTH, 1)).astype(np.float32),
        "reward": random.normal(size=LENGTH).astype(np.float32),
        **{f"is_{word}": np.zeros(LENGTH, bool) for word in ("first", "last", "terminal")},
    }
    return Chunk(
        spec_digest="0123456789abcdef", env="benchmark", slot=slot, incarnation=1, sequence=1,
        copy=0, first_step=0, policy_version_min=1, policy_version_max=1, fields=fields,
        latent={"deter": np.zeros(1024, np.float16), "stoch": np.zeros(32, np.uint8)},
    )  # fmt: skip


class Producer:
    """One process: both ways to write, each on a stream of its own."""

    def __init__(self, url: str, run: str, slot: int) -> None:
        self._slot = slot
        self._raw, self._raw_key, self._raw_sequence = connect(url), raw_key(run, slot), 0
        self._chunks = {kind: chunk_of(kind, slot) for kind in ("proprio", "image")}
        self._writer = SlotWriter(
            RedisLog(url=url, run=run).slot_log(slot), slot=slot,
            claim=Claim(who=f"bench:{slot}", spec_digest="0123456789abcdef", num_copies=1),
            spool=SpoolSetup(spool_chunks=2, retain_bytes=RETAIN_BYTES), clock=SystemClock(),
        )  # fmt: skip
        while isinstance(self._writer.try_claim(), Wait):
            time.sleep(0.01)
        self._sequence = 0

    def work(self, work: Work) -> Made:
        """Writes for so long."""
        step = self._raw_step(work.kind) if work.raw else self._writer_step(work.kind)
        time.sleep(max(0.0, work.start_s - time.monotonic()))
        cpu_s, count, end_s = time.process_time(), 0, work.start_s + work.seconds
        while time.monotonic() < end_s:
            count += step()
        cpu_s = time.process_time() - cpu_s
        while not (self._writer.drained and self._writer.settled):
            self._writer.tick()
            time.sleep(0.002)
        return Made(chunks=count, cpu_s=cpu_s)

    def _raw_step(self, kind: str) -> Callable[[], int]:
        payload = encode_chunk(self._chunks[kind])

        def step() -> int:
            self._raw_sequence += 1
            self._raw.call("XADD", self._raw_key, f"1-{self._raw_sequence}", "d", payload)
            return 1

        return step

    def _writer_step(self, kind: str) -> Callable[[], int]:
        base, writer = self._chunks[kind], self._writer

        def step() -> int:
            if not writer.full:
                self._sequence += 1
                writer.offer(replace(base, incarnation=writer.incarnation, sequence=self._sequence))
            before = writer.pending
            reply = writer.tick()
            if isinstance(reply, Wait):
                time.sleep(0.001)
            return before - writer.pending

        return step


def raw_key(run: str, slot: int) -> str:
    """Stream of the raw side."""
    return f"dreamfleet:{run}:raw:{slot}"


def produce(url: str, run: str, slot: int, pipe: Connection) -> None:
    """A producer's process: Work in, Made out."""
    producer = Producer(url, run, slot)
    pipe.send("claimed")
    while (work := pipe.recv()) is not None:
        pipe.send(producer.work(work))


def read(url: str, run: str, slots: int, pipe: Connection) -> None:
    """The reader's process: says that everything is durable, and trims it."""
    reader, redis = RedisLog(url=url, run=run).reader(), connect(url)
    ends = [RedisLog(url=url, run=run).slot_log(slot) for slot in range(slots)]
    epoch, tick = reader.claim_epoch(), 0
    while not pipe.poll(READER_S):
        tick += 1
        last = {slot: end.last_id() or EntryId(0, 0) for slot, end in enumerate(ends)}
        said = {
            slot: SlotNotice(durable=entry, granted=EntryId(entry.incarnation, ENDLESS))
            for slot, entry in last.items()
        }
        reader.publish(Notice(epoch=epoch, tick=tick, slots=said))
        for slot, entry in last.items():
            reader.trim(slot, entry)
            redis.call("XTRIM", raw_key(run, slot), "MAXLEN", "=", 1)


class Fleet:
    """The processes of one measurement; forked, so they share the machine's clock."""

    def __init__(self, url: str, producers: int) -> None:
        self._url = url
        run, context = f"ceiling-{os.getpid()}", multiprocessing.get_context("fork")
        self._pipes, self._processes = [], []
        for slot in range(-1, producers):  # the reader first: nobody claims before a learner spoke
            ours, theirs = context.Pipe()
            job, number = (read, producers) if slot < 0 else (produce, slot)
            process = context.Process(target=job, args=(url, run, number, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes[1:]:
            pipe.recv()
        self._server = connect(url)

    def measure(self, producers: int, kind: str, *, raw: bool, seconds: float) -> dict[str, float]:
        """Rates of one turn."""
        work = Work(kind=kind, raw=raw, start_s=time.monotonic() + SETTLE_S, seconds=seconds)
        before = self._server_cpu_s()
        chosen = self._pipes[1 : 1 + producers]
        for pipe in chosen:
            pipe.send(work)
        made = [pipe.recv() for pipe in chosen]
        chunks = max(1, sum(each.chunks for each in made))
        return {
            "rate": chunks / seconds,
            "client_us": 1e6 * sum(each.cpu_s for each in made) / chunks,
            "server_us": 1e6 * (self._server_cpu_s() - before) / chunks,
        }

    def close(self) -> None:
        """Ends every process."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(5)

    def _server_cpu_s(self) -> float:
        text = self._server.call("INFO", "cpu")
        assert isinstance(text, bytes)
        facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])


def ceiling(url: str, rounds: int, seconds: float) -> list[dict[str, float | str]]:
    """One row for each kind of Chunk and number of producers."""
    fleet, rows = Fleet(url, max(PRODUCERS)), []
    try:
        for kind in ("proprio", "image"):
            size = len(encode_chunk(chunk_of(kind, 0)))
            for producers in PRODUCERS:
                turns = [
                    [
                        fleet.measure(producers, kind, raw=raw, seconds=seconds)
                        for raw in (True, False)
                    ]
                    for _ in range(rounds)
                ]
                rows.append(
                    {"kind": kind, "producers": producers, "chunk_bytes": size, **_row(turns, size)}
                )
    finally:
        fleet.close()
    return rows


def _row(turns: list[list[dict[str, float]]], size: int) -> dict[str, float]:
    def median(side: int, name: str) -> float:
        return statistics.median(turn[side][name] for turn in turns)

    return {
        "chunks_per_s": median(1, "rate"),
        "mb_per_s": median(1, "rate") * size / 1e6,
        "raw_chunks_per_s": median(0, "rate"),
        "raw_mb_per_s": median(0, "rate") * size / 1e6,
        "share": statistics.median(ours["rate"] / raw["rate"] for raw, ours in turns),
        "client_us": median(1, "client_us"),
        "raw_client_us": median(0, "client_us"),
        "server_us": median(1, "server_us"),
        "raw_server_us": median(0, "server_us"),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", help="URL of a running server; else the embedded one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-bench-") as name:
        server = EmbeddedRedis(Path(name) / "redis", max_memory_bytes=1 << 31)
        if not arguments.redis:
            server.start()
        try:
            rows = ceiling(arguments.redis or server.url, arguments.rounds, arguments.seconds)
        finally:
            if not arguments.redis:
                server.stop()
    if arguments.json:
        print(json.dumps({"cpus": os.cpu_count(), "rows": rows}))
        return
    names = [name for name in rows[0] if name != "kind"]
    print(f"{'kind':8}", *(f"{name:>16}" for name in names))
    for row in rows:
        print(f"{row['kind']:8}", *(f"{row[name]:16.4g}" for name in names))


if __name__ == "__main__":
    main()
