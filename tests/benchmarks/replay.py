"""What the replay costs: bytes over Redis, the tail against raw XREAD, sampling against the update.

Run: ``python -m tests.benchmarks.replay [--json]``. Everything is measured side by side in one run,
on a real embedded server; medians of five rounds.

- ``bytes_in_per_inserted_byte``, ``bytes_out_per_inserted_byte``: the server's own counters of
  network input and output over the whole transfer (protocol, claims, notices and polls included),
  per byte of sealed Chunk.
- ``tail_per_raw``: throughput of read + check + segment + arena over throughput of XREAD alone of
  the same entries.
- ``sample_share``: draw + gather + write back, as a share of the update's time (laptop preset).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from actors.config import EnvConfig
from deploy.presets import laptop
from deploy.redis_server import EmbeddedRedis
from learner.arena import Arena
from learner.ingest import Ingest
from learner.samplers import FreshThenUniform
from learner.segments import SegmentStore
from learner.update import Learning
from system.clock import SystemClock
from system.codec import encode_chunk
from system.config import ModelConfig, ReplayConfig
from system.log.protocol import Claim
from system.log.redis import RedisLog
from system.log.spool import SpoolSetup
from system.log.writer import SlotWriter
from system.redis_client import connect
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.tick import Wait
from system.types import ZERO_ID, Chunk

ROUNDS = 5
SPEC = EnvSpec(
    name="benchmark",
    observation={"position": ArraySpec(shape=(17,))},
    action=ActionSpec(kind="continuous", size=6),
)


def chunk_of(sequence: int, length: int, model: ModelConfig) -> Chunk:
    """Steps of one Track."""
    random = np.random.default_rng(sequence)
    first = np.zeros(length, bool)
    first[0] = sequence == 1
    return Chunk(
        spec_digest=SPEC.digest, env=SPEC.name, slot=0, incarnation=1, sequence=sequence, copy=0,
        first_step=(sequence - 1) * length, policy_version_min=1, policy_version_max=1,
        fields={
            "observation/position": random.normal(size=(length, 17)).astype(np.float32),
            "action": random.uniform(-1, 1, (length, 6)).astype(np.float32),
            "reward": random.normal(size=length).astype(np.float32),
            "is_first": first, "is_last": np.zeros(length, bool),
            "is_terminal": np.zeros(length, bool),
        },
        latent={
            "deter": np.zeros(model.deter, np.float16), "stoch": np.zeros(model.stoch, np.uint8),
        },
    )  # fmt: skip


def net_bytes(server: EmbeddedRedis) -> tuple[int, int]:
    """(input, output) bytes of the server since it started."""
    connection = connect(server.url)
    text = connection.call("INFO", "stats")
    connection.close()
    lines = (text.decode() if isinstance(text, bytes) else str(text)).splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(found["total_net_input_bytes"]), int(found["total_net_output_bytes"])


class Transfer:
    """One writer and one ingest over a real server."""

    def __init__(
        self, server: EmbeddedRedis, run: str, folder: Path, length: int, lead: int
    ) -> None:
        self.model = laptop(EnvConfig(name="x"), run=run).model
        clock = SystemClock()
        log = RedisLog(url=server.url, run=run)
        self.writer = SlotWriter(
            log.slot_log(0), slot=0,
            claim=Claim(who="bench", spec_digest=SPEC.digest, num_copies=1),
            spool=SpoolSetup(spool_chunks=64, retain_bytes=1 << 28), clock=clock,
        )  # fmt: skip
        replay = ReplayConfig(ratio=1, chunk_length=length, lead_chunks=lead)
        self.arena = Arena(
            spec=SPEC, model=self.model, batch_length=16, capacity_bytes=1 << 28,
            device=torch.device("cpu"),
        )  # fmt: skip
        self.reader = log.reader()
        self.segments = SegmentStore(folder / run, segment_bytes=1 << 26)
        self.ingest = Ingest(
            self.reader, self.segments, self.arena, replay, clock, lambda kind, text: None
        )
        self.segments.epoch = self.reader.claim_epoch()
        self.ingest.repeat_notice()
        self.ingest.commit()

    def claim(self) -> None:
        """Takes the slot and has it granted credit."""
        while isinstance(self.writer.try_claim(), Wait):
            time.sleep(0.001)
        while self.ingest.insert_next():
            pass
        self.ingest.commit()


def bytes_per_inserted(server: EmbeddedRedis, folder: Path, length: int) -> dict[str, float]:
    """Sends 400 Chunks end to end; what crossed the server, per sealed byte."""
    transfer = Transfer(server, f"bytes{length}", folder, length, lead=16)
    transfer.claim()
    before = net_bytes(server)
    sealed, number, count = 0, 0, 400
    while transfer.arena.end < count * length:
        while number < count and not transfer.writer.full:
            number += 1
            chunk = chunk_of(number, length, transfer.model)
            sealed += len(encode_chunk(chunk))
            transfer.writer.offer(chunk)
        transfer.writer.tick()
        if not transfer.ingest.insert_next():
            transfer.ingest.commit()
    after = net_bytes(server)
    return {
        "chunk_bytes": sealed / count,
        "bytes_in_per_inserted_byte": (after[0] - before[0]) / sealed,
        "bytes_out_per_inserted_byte": (after[1] - before[1]) / sealed,
    }


def tail_per_raw(server: EmbeddedRedis, folder: Path, length: int) -> dict[str, float]:
    """The same 500 entries read raw and ingested, by turns."""
    raw, tail, count = [], [], 500
    for number in range(ROUNDS):
        transfer = Transfer(server, f"tail{length}-{number}", folder, length, lead=count + 8)
        transfer.claim()
        size = 0
        for sequence in range(1, count + 1):
            chunk = chunk_of(sequence, length, transfer.model)
            size += len(encode_chunk(chunk))
            transfer.writer.offer(chunk)
            while not transfer.writer.drained:
                transfer.writer.tick()
        started = time.perf_counter()
        cursor, found = ZERO_ID, 0
        while entries := transfer.reader.read({0: cursor}, limit=16):
            cursor, found = entries[-1].entry_id, found + len(entries)
        raw.append(size / (time.perf_counter() - started))
        assert found == count + 1
        started = time.perf_counter()
        while transfer.ingest.insert_next():
            pass
        transfer.ingest.commit()
        tail.append(size / (time.perf_counter() - started))
        assert transfer.arena.end == count * length
    return {
        "raw_mb_per_s": statistics.median(raw) / 1e6,
        "tail_mb_per_s": statistics.median(tail) / 1e6,
        "tail_per_raw": statistics.median(t / r for t, r in zip(tail, raw, strict=True)),
    }


def sample_share() -> dict[str, float]:
    """Draw + gather + write back against one update of the laptop preset."""
    config = laptop(EnvConfig(name="x"), run="x")
    torch.set_num_threads(1)
    arena = Arena(
        spec=SPEC, model=config.model, batch_length=config.learner.batch_length,
        capacity_bytes=1 << 27, device=torch.device("cpu"),
    )  # fmt: skip
    for sequence in range(1, 2001):
        arena.insert(chunk_of(sequence, config.replay.chunk_length, config.model))
    arena.columns.known[: arena.end] = True
    learning = Learning(config.learner, config.model, SPEC, torch.device("cpu"))
    sampler = FreshThenUniform(0)
    sampling, updating = [], []
    for _ in range(25):
        t0 = time.perf_counter()
        batch = arena.sample(sampler.draw(arena, config.learner.batch_size))
        t1 = time.perf_counter()
        result = learning.update(batch)
        t2 = time.perf_counter()
        arena.write_back(batch, result.latents)
        sampling.append(t1 - t0 + time.perf_counter() - t2)
        updating.append(t2 - t1)
    return {
        "sample_ms": statistics.median(sampling) * 1e3,
        "update_ms": statistics.median(updating) * 1e3,
        "sample_share": statistics.median(sampling) / statistics.median(updating),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamfleet-bench-") as name:
        folder = Path(name)
        server = EmbeddedRedis(folder / "redis", max_memory_bytes=1 << 30)
        server.start()
        try:
            figures = {
                **bytes_per_inserted(server, folder, 32),
                **{f"long_{k}": v for k, v in bytes_per_inserted(server, folder, 256).items()},
                **tail_per_raw(server, folder, 64),
                **sample_share(),
            }
        finally:
            server.stop()
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    if arguments.json:
        print(json.dumps(rounded))
    else:
        for name, value in rounded.items():
            print(f"{name:32} {value:>12}")


if __name__ == "__main__":
    main()
