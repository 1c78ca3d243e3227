"""`dreamfleet export`: what a run measured, for other tools; while it goes on, too."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.operated import FolderRun, RemoteRun, Target
from deploy.run_entry import RunEntry
from deploy.tail import Tail
from deploy.target import find_target
from deploy.tensorboard import EventFile
from system.clock import SystemClock
from system.errors import Unavailable

LOOK_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of metrics and when it was written."""

    wall_s: float
    """Unix time [s]."""
    values: dict[str, float]


class Lines:
    """Lines of a run, each once: from its folder, or what its Redis remembers of them."""

    def __init__(self, target: Target) -> None:
        self._remote = target if isinstance(target, RemoteRun) else None
        self._tail: Tail | None = None
        self._created_s, self._after = 0.0, ""
        if isinstance(target, FolderRun):
            self._tail = Tail(target.folder.metrics_path)
            self._created_s = RunEntry.of(target.folder).created_s

    def new(self) -> Iterator[Line]:
        """Those since the last call, oldest first. Raises Unavailable."""
        if self._tail is not None:
            for line in self._tail.new():
                if "frames" in line and "time_s" in line:
                    yield Line(wall_s=self._created_s + float(line["time_s"]), values=line)
        if self._remote is not None:
            for one in self._remote.history(self._after):
                self._after = one.cursor
                yield Line(wall_s=one.point.time_s, values=one.point.values)


def export(options: argparse.Namespace) -> None:
    """`dreamfleet export --tensorboard DIR`: event files of a run.

    Raises:
      ConfigError: the extra is not installed.
    """
    target, clock = find_target(options, Path.cwd()), SystemClock()
    folder, lines = Path(options.tensorboard) / target.name, Lines(target)
    written = 0
    with contextlib.closing(EventFile(folder)) as file, contextlib.suppress(KeyboardInterrupt):
        while True:
            ended = not options.follow or _has_ended(target)  # asked first: its last lines count
            with contextlib.suppress(Unavailable):
                for line in lines.new():
                    file.add(line.wall_s, line.values)
                    written += 1
            file.flush()
            if ended:
                break
            clock.sleep(LOOK_S)
    sys.stdout.write(
        f"{written} lines of run {target.name} in {folder}; look with: tensorboard --logdir "
        f"{options.tensorboard}\n"
    )


def _has_ended(target: Target) -> bool:
    with contextlib.suppress(Unavailable):
        return not target.alive()
    return False
