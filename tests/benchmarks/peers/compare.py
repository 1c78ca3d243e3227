"""The size1m update beside those of the best peers: same work, same threads, same minutes.

Run from the repository::

    python -m tests.benchmarks.peers.compare --sheeprl \\
        [--dreamerv3 PATH] [--r2dreamer PATH] [--threads 1] [--rounds 7] [--bfloat16] [--out FILE]

PATH is a checkout of danijar/dreamerv3 or NM512/r2dreamer (neither is in a package registry);
their dependencies, and sheeprl, are installed from the registries into environments of their own
below `--cache` (default `build/peers`). None of their code is here: each script calls their own
update as their own training loop does.

What an update is, for all of them: the 640,867 parameters of size1m for walker walk (24 numbers
seen, 6 continuous actions), 16 sequences of 64 Steps and one context Step, 1024 dreams of 15
steps, all losses (replayed values too), one backward pass, AGC and LaProp, the slow value. The
batch is random, always the same, and already there: no replay, no write-back, no policy for actors.
float32; `--bfloat16` shows our update also with bfloat16 products, beside the others' float32.

What differs: danijar/dreamerv3 is compiled by XLA and its percentiles interpolate; r2dreamer asks
for float16 autocast, switched off here; sheeprl keeps contexts in float16, and it and r2dreamer
can be compiled too (`--compile`: minutes, needs a C++ compiler).

Each contender is a process of its own, warmed up, on the same CPUs. They take turns, `--updates` a
turn, in an order that moves on with every round, while the others wait. Wall time is what counts
on a quiet machine; the CPU time of the process is printed beside it for one that is not. A ratio is
the median over rounds of ours / theirs within the round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from deploy.provenance import provenance
from tests.benchmarks.peers.environments import environment

FOLDER = Path(__file__).parent
CLOCKS = ("wall_ms", "cpu_ms")
CHECKOUTS = {"dreamerv3": "dreamerv3", "r2dreamer": "dreamer.py"}
"""And what lies in each."""


@dataclass
class Contender:
    """One process that does its updates when told."""

    name: str
    command: list[str]
    facts: dict = field(default_factory=dict)
    rounds: list[dict] = field(default_factory=list)

    def start(self, threads, log):
        """Starts it and waits until it is warm."""
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        number = str(threads)
        limits = {f"{library}_NUM_THREADS": number for library in ("OMP", "MKL", "OPENBLAS")}
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, **limits}, preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip
        self.facts = self._answer()

    def turn(self, updates):
        print(updates, file=self._process.stdin, flush=True)
        self.rounds.append(self._answer())

    def end(self):
        self._process.stdin.close()
        self._process.wait()

    def median(self, clock):
        return statistics.median(ms for turn in self.rounds for ms in turn[clock])

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}: see its output above")
        return json.loads(line)


def main():
    options = arguments()
    here, began = provenance(), os.getloadavg()[0]
    contenders = chosen(options)
    for contender in contenders:
        print(f"{contender.name}: warming up", file=sys.stderr)
        contender.start(options.threads, sys.stderr)
    for number in range(options.rounds):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            contender.turn(options.updates)
    for contender in contenders:
        contender.end()
    result = summary(options, contenders, here) | {
        "load_before_and_after": [began, os.getloadavg()[0]]
    }
    print(table(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dreamerv3", type=Path, help="checkout of danijar/dreamerv3")
    parser.add_argument("--r2dreamer", type=Path, help="checkout of NM512/r2dreamer")
    parser.add_argument("--sheeprl", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="ours also with bfloat16 products")
    parser.add_argument("--compile", action="store_true", help="torch.compile of those that can")
    parser.add_argument("--xla-flags", default="", help="for danijar/dreamerv3")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batch-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=3, help="of one turn")
    parser.add_argument("--cache", type=Path, default=Path("build/peers"))
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args()
    for name, inside in CHECKOUTS.items():
        path = getattr(options, name)
        if path and not (path / inside).exists():
            parser.error(f"--{name} {path} is no checkout of it")
    return options


def chosen(options):
    """Ours first."""
    sizes = ["--batch-size", options.batch_size, "--batch-length", options.batch_length]
    threads = ["--threads", options.threads]

    def ours(name, precision):
        module = [sys.executable, "-m", "tests.benchmarks.peers.ours_update"]
        return Contender(name, texts(*module, *sizes, *threads, "--precision", precision))

    def peer(name, *more, checkout=None):
        python = environment(name, options.cache)
        where = ["--checkout", checkout.absolute()] if checkout else []
        script = [python, FOLDER / f"{name}_update.py"]
        return Contender(name, texts(*script, *where, *sizes, "--dtype", "float32", *more))

    compiled = ["--compile"] if options.compile else []
    found = [ours("ours", "fp32")]
    if options.bfloat16:
        found.append(ours("ours, bfloat16", "bf16"))
    if options.dreamerv3:
        flags = f"--xla-flags={options.xla_flags}"
        found.append(peer("dreamerv3", flags, checkout=options.dreamerv3))
    if options.sheeprl:
        found.append(peer("sheeprl", *threads, *compiled))
    if options.r2dreamer:
        found.append(peer("r2dreamer", *threads, *compiled, checkout=options.r2dreamer))
    return found


def texts(*words):
    return [str(word) for word in words]


def summary(options, contenders, here):
    """What is printed and written."""
    settings = ("batch_size", "batch_length", "threads", "rounds", "updates", "xla_flags")
    ours = contenders[0]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{here['hardware']['cpu']}, {os.cpu_count()} CPUs",
        "git": here["git"],
        "checkouts": {k: commit_of(path) for k in CHECKOUTS if (path := getattr(options, k))},
        "dtype": "float32",
        **{name: getattr(options, name) for name in settings},
        "contenders": [
            {
                "name": contender.name,
                **contender.facts,
                **{clock: contender.median(clock) for clock in CLOCKS},
                **{f"ours_over_it_{clock}": ratio(ours, contender, clock) for clock in CLOCKS},
                "rounds": contender.rounds,
            }
            for contender in contenders
        ],
    }


def commit_of(checkout):
    """What is checked out there; empty if it is no git checkout."""
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def ratio(ours, theirs, clock):
    """Median over rounds of ours / theirs."""
    pairs = zip(ours.rounds, theirs.rounds, strict=True)
    return statistics.median(
        statistics.median(mine[clock]) / statistics.median(twin[clock]) for mine, twin in pairs
    )


def table(result):
    """Markdown."""
    load = " to ".join(f"{load:.1f}" for load in result["load_before_and_after"])
    head = [
        f"{result['date']}, {result['hardware']}, {result['threads']} thread(s), load {load}",
        "",
        "| | update, wall | CPU time | ours / it, wall | ours / it, CPU time | first update |",
        "|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {each['name']} | {each['wall_ms']:.0f} ms | {each['cpu_ms']:.0f} ms "
        f"| {each['ours_over_it_wall_ms']:.2f} | {each['ours_over_it_cpu_ms']:.2f} "
        f"| {each['first_update_s']:.0f} s |"
        for each in result["contenders"]
    ]
    return "\n".join(head + rows)


if __name__ == "__main__":
    main()
