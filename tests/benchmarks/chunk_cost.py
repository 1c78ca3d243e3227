"""CPU time of one Chunk at both ends: encode, decode, check, insert; and of one notice.

Run: ``python -m tests.benchmarks.chunk_cost [--json]``. The least of many rounds of CPU time, so
that a busy machine disturbs little. The Chunks are those of `redis_ceiling.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from learner.arena import Arena
from system.chunk_check import check_chunk
from system.codec import decode_chunk, encode_chunk
from system.config import ModelConfig
from system.log.messages import decode_notice, encode_notice
from system.log.protocol import Notice, SlotNotice
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import EntryId
from tests.benchmarks.redis_ceiling import chunk_of

ROUNDS = 30
MODEL = ModelConfig(size="bench", deter=1024, hidden=8, classes=16, units=8, stoch=32)
OBSERVATIONS = {
    "proprio": {"position": ArraySpec(shape=(3,)), "velocity": ArraySpec(shape=(2,))},
    "image": {"image": ArraySpec(shape=(64, 64, 3), dtype="uint8")},
}


def least_us(work: Callable[[], object], calls: int) -> float:
    """CPU time of one call, in the best round [us]."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(calls):
            work()
        rounds.append((time.process_time() - started) / calls)
    return 1e6 * min(rounds)


def chunk_cost(kind: str) -> dict[str, float]:
    """Each stage by itself, and the learner's three after each other."""
    spec = EnvSpec(
        name="bench", observation=OBSERVATIONS[kind], action=ActionSpec(kind="continuous", size=1)
    )
    chunk = replace(chunk_of(kind, 0), spec_digest=spec.digest)
    data = encode_chunk(chunk)
    arena = Arena(
        spec=spec, model=MODEL, batch_length=16, capacity_bytes=1 << 27, device=torch.device("cpu")
    )

    def ingest() -> None:
        found = decode_chunk(data, spec=spec)
        check_chunk(found, spec)
        arena.check_latent(found)
        arena.insert(found)

    calls = 200 if kind == "proprio" else 20
    ingest_us = least_us(ingest, calls)
    return {
        f"{kind}_bytes": len(data),
        f"{kind}_encode_us": least_us(lambda: encode_chunk(chunk), calls),
        f"{kind}_decode_us": least_us(lambda: decode_chunk(data, spec=spec), calls),
        f"{kind}_check_us": least_us(lambda: check_chunk(chunk, spec), calls),
        f"{kind}_insert_us": least_us(lambda: arena.insert(chunk), calls),
        f"{kind}_ingest_us": ingest_us,
        f"{kind}_ingest_mb_per_s": len(data) / ingest_us,
    }


def notice_cost(slots: int) -> dict[str, float]:
    """One notice to so many slots."""
    said = {
        slot: SlotNotice(
            durable=EntryId(3, 12345), granted=EntryId(3, 12346), holder=f"node-{slot:03}:12345"
        )
        for slot in range(slots)
    }
    data = encode_notice(Notice(epoch=1, tick=1, slots=said))
    decode_us = least_us(lambda: decode_notice(EntryId(1, 1), data), 20)
    return {"notice_row_bytes": len(data) / slots, "notice_row_us": decode_us / slots}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()
    figures = {**chunk_cost("proprio"), **chunk_cost("image"), **notice_cost(200)}
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    if arguments.json:
        print(json.dumps(rounded))
        return
    for name, value in rounded.items():
        print(f"{name:28} {value:>10}")


if __name__ == "__main__":
    main()
