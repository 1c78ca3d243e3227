"""The options of `results`, and those of `train` for several seeds."""

from __future__ import annotations

import argparse

from deploy.option_types import count, positive


def seeds(text: str) -> tuple[int, ...]:
    """`3` means 0, 1, 2; `0,4` those two; `7,` that one."""
    if "," not in text:
        return tuple(range(positive(text)))
    found = tuple(count(part) for part in text.split(",") if part)
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} must name at least one seed, each once")
    return found


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Of `train`."""
    parser.add_argument("--seeds", type=seeds, metavar="N",
                        help="runs NAME-s0 .. NAME-s(N-1), reported together; or a list: "
                        "0,4")  # fmt: skip
    parser.add_argument("--parallel", type=positive, metavar="N",
                        help="with --seeds: so many at a time, default 1")  # fmt: skip


def add_results(parser: argparse.ArgumentParser) -> None:
    """Of `results`."""
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN",
        help="names, folders or globs in quotes (default: every run here)")  # fmt: skip
    add("--out", metavar="DIR", help="write README.md, results.json and a PNG for each task")
    add("--copy-runs", action="store_true",
        help="with --out: also a copy of what each run measured")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object and nothing else")
