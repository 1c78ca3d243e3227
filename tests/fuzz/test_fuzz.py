"""A short run of the fuzzer, and proof that it can see."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from system.codec import unpack
from system.errors import RejectedChunk
from system.log.messages import Claim
from tests.chunks_for_tests import SPEC
from tests.fuzz.chunk_targets import ChunkTarget
from tests.fuzz.message_targets import ClaimTarget
from tests.fuzz.run import fuzz, message_of

MESSAGES = 20_000


def test_no_decoder_crashes_or_accepts_what_is_not_valid() -> None:
    # A process of its own: what other tests leave behind would count as growth.
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--messages", str(MESSAGES), "--seed", "2",
         "--json"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["messages"] >= MESSAGES
    assert report["crashes"] == report["invalid_accepted"] == 0
    assert report["rss_growth_mb"] < 64
    for name, tally in report["targets"].items():
        # the valid ones, and harmless changes
        assert tally["accepted"] >= tally["messages"] // 10, name
        refused = sum(tally["refused"].values())
        assert name == "metric lines" or refused > tally["messages"] // 20, name


def test_messages_depend_on_seed_and_number_alone() -> None:
    target = ClaimTarget()
    again = [message_of(target, 3, number) for number in range(50)]
    assert [message_of(ClaimTarget(), 3, number) for number in range(50)] == again
    assert [message_of(target, 4, number) for number in range(50)] != again


class CarelessClaim(ClaimTarget):
    """Reads what it needs and looks at nothing else, as `decode_claim` once did."""

    def feed(self, data: bytes) -> Claim:
        message = unpack(data)
        try:
            return Claim(**{key: message[key] for key in ("who", "spec_digest", "num_copies")})
        except KeyError:
            raise RejectedChunk("header", "not a claim") from None


class CrashingClaim(ClaimTarget):
    def feed(self, data: bytes) -> Claim:
        return Claim(**unpack(data))


class SuspiciousClaim(ClaimTarget):
    def feed(self, data: bytes) -> object:
        raise RejectedChunk("header", "everything is")


@pytest.mark.parametrize(
    ("target", "figure"),
    [(CarelessClaim(), "invalid"), (CrashingClaim(), "crashes"), (SuspiciousClaim(), "invalid")],
)
def test_the_fuzzer_finds_a_bad_decoder(target: ClaimTarget, figure: str) -> None:
    tally = fuzz([target], 300, seed=0)[target.name]
    assert getattr(tally, figure) > 0
    assert tally.failures


def test_the_fuzzer_finds_a_checksum_that_nobody_compares() -> None:
    class Trusting(ChunkTarget):
        def feed(self, data: bytes) -> object:
            import zlib

            return super().feed(data[:5] + zlib.crc32(data[9:]).to_bytes(4, "little") + data[9:])

    assert fuzz([Trusting("chunk", SPEC)], 2000, seed=0)["chunk"].invalid > 0


def test_the_fuzzer_finds_an_array_that_is_not_what_was_sent() -> None:
    class Rounding(ChunkTarget):
        def feed(self, data: bytes) -> object:
            chunk = super().feed(data)
            return replace(chunk, fields={**chunk.fields, "reward": chunk.fields["reward"] * 2})

    assert fuzz([Rounding("chunk", SPEC)], 300, seed=0)["chunk"].invalid > 0
