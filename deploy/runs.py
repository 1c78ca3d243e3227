"""`dreamfleet runs`: what runs there are and what they hold; `runs rm NAME` frees it.

With `--redis` the runs of that server, else those of the folder `runs/` here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.operated import FolderRun, RemoteRun, Target
from deploy.registry import Registry
from deploy.remove import num_bytes, remove
from deploy.run_entry import RunEntry
from deploy.run_folder import RUNS, RunFolder, list_runs
from deploy.target import open_registry
from deploy.terminal import clock_time, number
from system.clock import SystemClock
from system.errors import ConfigError, DreamfleetError, Unavailable, UserError

UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One run in the list. None: not known."""

    name: str
    run_id: str
    phase: str
    """`running`, `finished`, `stopped`, `failed`, `lost`, `not running` or `unreadable`."""
    running: int | None = None
    """Actors that run."""
    desired: int | None = None
    """Actors that should."""
    frames: int | None = None
    return_mean: float | None = None
    age_s: float | None = None
    """Since its creation [s]."""
    redis_bytes: int | None = None
    """What it holds on its servers [bytes]."""
    folder_bytes: int | None = None
    """Size of its folder [bytes]."""


def runs(options: argparse.Namespace) -> None:
    """`dreamfleet runs` and `dreamfleet runs rm NAME`."""
    if options.action == "rm":
        remove(options)
        return
    if options.folder or options.yes:
        raise ConfigError("--folder and --yes belong to: dreamfleet runs rm NAME")
    lines = _lines_of_redis(options) if options.redis else _lines_of_folder(Path.cwd())
    if options.json:
        sys.stdout.write(json.dumps({"runs": [asdict(line) for line in lines]}) + "\n")
    else:
        sys.stdout.write(table(lines))


def _lines_of_redis(options: argparse.Namespace) -> list[RunLine]:
    with contextlib.closing(open_registry(options, "learner")) as registry:
        listing = registry.listing()
        lines = [_remote_line(registry, entry) for entry in listing.entries]
    return lines + [
        RunLine(name="?", run_id=run_id, phase=UNREADABLE) for run_id in listing.unreadable
    ]


def _remote_line(registry: Registry, entry: RunEntry) -> RunLine:
    """What others wrote may be damaged, or of another version: then only its size is told."""
    redis_bytes = None
    with contextlib.suppress(DreamfleetError):  # its data server may be away, or refuse us
        redis_bytes = registry.size(entry.run_id)
    age_s = SystemClock().wall() - entry.created_s
    try:
        with contextlib.closing(RemoteRun(registry, entry)) as run:
            return _line(run, age_s, redis_bytes=redis_bytes)
    except Unavailable:
        raise
    except DreamfleetError:
        return RunLine(
            name=entry.name, run_id=entry.run_id, phase=UNREADABLE, age_s=age_s,
            redis_bytes=redis_bytes,
        )  # fmt: skip


def _lines_of_folder(where: Path) -> list[RunLine]:
    lines = []
    for name in list_runs(where):
        folder = RunFolder(where / RUNS / name)
        try:
            run, entry = FolderRun(folder), RunEntry.of(folder)
        except UserError:
            lines.append(RunLine(name=name, run_id="?", phase=UNREADABLE))
            continue
        redis_bytes = None
        with contextlib.suppress(DreamfleetError), contextlib.closing(run):
            redis_bytes = _size_of_running(run)
        age_s = SystemClock().wall() - entry.created_s
        lines.append(
            _line(run, age_s, redis_bytes=redis_bytes, folder_bytes=num_bytes(folder.path))
        )
    return lines


def _size_of_running(run: FolderRun) -> int | None:
    file = run.folder.control()
    if not run.alive() or file is None or not file.redis:
        return None
    with contextlib.closing(Registry(file.redis, data=file.redis_data)) as registry:
        return registry.size(run.record.run_id)


def _line(
    run: Target, age_s: float, *, redis_bytes: int | None, folder_bytes: int | None = None
) -> RunLine:
    now = run.status()
    return RunLine(
        name=run.name,
        run_id=run.record.run_id,
        phase=now.phase.partition(":")[0],
        running=now.actors.running if now.alive else None,
        desired=now.actors.desired if now.alive else None,
        frames=now.frames,
        return_mean=now.return_mean,
        age_s=age_s,
        redis_bytes=redis_bytes,
        folder_bytes=folder_bytes,
    )


def table(lines: Iterable[RunLine]) -> str:
    """For people: one line a run, columns as wide as they must be."""
    rows = [("name", "id", "state", "actors", "frames", "return", "age", "redis", "folder")]
    rows += [
        (
            line.name,
            line.run_id,
            line.phase,
            "-" if line.running is None else f"{line.running}/{line.desired}",
            number(line.frames, ",d"),
            number(line.return_mean, ".1f"),
            "-" if line.age_s is None else clock_time(max(line.age_s, 0.0)),
            megabytes(line.redis_bytes),
            megabytes(line.folder_bytes),
        )
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(map(printable, texts)) + "\n"


def megabytes(size: int | None) -> str:
    """`12.3 MB`, or `-` while it is not known."""
    return "-" if size is None else f"{size / 1e6:,.1f} MB"


def printable(text: str) -> str:
    """Without what a terminal would obey: others may write into the registry."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
