"""Fuzzes every decoder: forged messages must be refused as documented, or be valid after all.

Run: ``python -m tests.fuzz.run [--messages 1000000] [--seed 0] [--target NAME] [--json]``; one
message again: ``python -m tests.fuzz.run --seed 0 --target chunk --number 4711``.

::

    Random(seed, target, number) -> forge -> decoder -> documented refusal        counted by reason
                                                     -> value -> slow judge       else "invalid"
                                                     -> anything else             "crash"

Message `number` of a target depends on nothing but the seed. Every tenth message is left valid and
must be accepted. The exit status is 1 if anything was accepted that should not be, refused that
should not be, crashed, or took memory.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from system.errors import RejectedChunk
from tests.fuzz.target import Target

VALID_EVERY = 10
TURNS = 10
MAX_FAILURES = 5
"""Of each target, told in full."""
MESSAGE_BYTES = 48 * 1024**2
"""No message may raise the process's peak by more [bytes]."""


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of one target's messages."""

    messages: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    invalid: int = 0
    """Accepted, but the judge says no; or valid, but refused."""
    greedy: int = 0
    """Took more memory than any message may."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.crashes + self.invalid + self.greedy


def message_of(target: Target, seed: int, number: int) -> tuple[bytes, bool]:
    """(bytes, whether they are valid as they are)."""
    random = Random(f"{seed}/{target.name}/{number}")
    valid = number % VALID_EVERY == 0
    return (target.valid(random) if valid else target.forge(random)), valid


def try_one(target: Target, tally: Tally, data: bytes, *, valid: bool) -> str | None:
    """Feeds one message; what went wrong, in words, or None."""
    tally.messages += 1
    peak = _peak_bytes()
    try:
        value = target.feed(data)
    except target.refusals as error:
        reason = error.reason if isinstance(error, RejectedChunk) else type(error).__name__
        tally.refused[reason] += 1
        if valid:
            tally.invalid += 1
            return f"refused a valid message: {error}"
    except BaseException:  # noqa: BLE001 - a crash is what we look for
        tally.crashes += 1
        return traceback.format_exc(limit=-3)
    else:
        tally.accepted += 1
        try:
            target.judge(data, value)
        except Exception:  # noqa: BLE001 - whatever the slow reader trips over is not valid
            tally.invalid += 1
            return f"accepted what is not valid: {traceback.format_exc(limit=-2)}"
    grown = _peak_bytes() - peak
    if grown > MESSAGE_BYTES:
        tally.greedy += 1
        return f"peak memory grew by {grown} bytes"
    return None


def fuzz(targets: Iterable[Target], messages: int, seed: int) -> dict[str, Tally]:
    """So many messages, shared by weight, by turns."""
    targets = list(targets)
    tallies = {target.name: Tally() for target in targets}
    share = messages / sum(target.weight for target in targets)
    for turn in range(TURNS):
        for target in targets:
            tally, each = tallies[target.name], math.ceil(share * target.weight)
            started = time.perf_counter()
            for number in range(each * turn // TURNS, each * (turn + 1) // TURNS):
                data, valid = message_of(target, seed, number)
                failure = try_one(target, tally, data, valid=valid)
                if failure is not None and len(tally.failures) < MAX_FAILURES:
                    again = f"--seed {seed} --target {target.name!r} --number {number}"
                    shown = (
                        data.hex() if len(data) < 3000 else f"{data[:200].hex()}... ({len(data)})"
                    )
                    tally.failures.append(f"{target.name} {again}\n  {failure}\n  hex {shown}")
            tally.seconds += time.perf_counter() - started
    return tallies


def all_targets(folder: Path) -> list[Target]:
    """Every decoder; `folder` is for those that read files."""
    from tests.fuzz.chunk_targets import chunk_targets
    from tests.fuzz.dream_target import dream_targets
    from tests.fuzz.file_targets import file_targets
    from tests.fuzz.message_targets import message_targets
    from tests.fuzz.spool_target import SpoolTarget

    return [
        *chunk_targets(folder), *message_targets(), *dream_targets(), *file_targets(folder),
        SpoolTarget(folder),
    ]  # fmt: skip


def rss_bytes() -> int:
    """Resident memory of this process now [bytes]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="only this decoder")
    parser.add_argument("--number", type=int, help="only this message, told in full")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="dreamfleet-fuzz-") as name:
        targets = all_targets(Path(name))
        if arguments.target:
            targets = [target for target in targets if target.name == arguments.target]
        if arguments.number is not None:
            return _again(targets[0], arguments.seed, arguments.number)
        started = time.perf_counter()
        warm = fuzz(targets, min(20_000, arguments.messages // 10), arguments.seed + 1_000_000)
        before = rss_bytes()
        tallies = fuzz(targets, arguments.messages, arguments.seed)
        grown = rss_bytes() - before
    bad = sum(tally.bad for tally in (*warm.values(), *tallies.values()))
    report = {
        "messages": sum(tally.messages for tally in tallies.values()),
        "accepted": sum(tally.accepted for tally in tallies.values()),
        "crashes": sum(tally.crashes for tally in tallies.values()),
        "invalid_accepted": sum(tally.invalid for tally in tallies.values()),
        "rss_growth_mb": round(grown / 1e6, 1),
        "peak_mb": round(_peak_bytes() / 1e6),
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(time.process_time()),
        "targets": {
            name: {
                "messages": tally.messages, "accepted": tally.accepted, "bad": tally.bad,
                "us_each": round(1e6 * tally.seconds / max(1, tally.messages)),
                "refused": dict(tally.refused.most_common()),
            }
            for name, tally in tallies.items()
        },
    }  # fmt: skip
    _show(report, as_json=arguments.json)
    for tally in (*warm.values(), *tallies.values()):
        print(*tally.failures, sep="\n", end="\n" if tally.failures else "", file=sys.stderr)
    return 1 if bad else 0


def _again(target: Target, seed: int, number: int) -> int:
    data, valid = message_of(target, seed, number)
    tally = Tally()
    failure = try_one(target, tally, data, valid=valid)
    print(f"{len(data)} bytes: {data[:4000].hex()}")
    print(failure or f"fine: {'accepted' if tally.accepted else dict(tally.refused)}")
    return 1 if failure else 0


def _show(report: dict, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    for name, figures in report.pop("targets").items():
        reasons = ", ".join(f"{reason} {number}" for reason, number in figures["refused"].items())
        numbers = [figures[key] for key in ("messages", "accepted", "bad", "us_each")]
        print("{:14} {:>7} messages {:>6} accepted {:>3} bad {:>5} us".format(name, *numbers),
              f"  refused: {reasons}")  # fmt: skip
    print(*(f"{name} {value}" for name, value in report.items()), sep="   ")


if __name__ == "__main__":
    sys.exit(main())
