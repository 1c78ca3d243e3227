"""The folder of a run: `runs/NAME/`, its files and its lock.

::

    config.json     complete config, environment spec, versions, hardware; written once
    metrics.jsonl   one JSON object a line, each with time_s, frames, updates
    metrics.csv     what people plot of it, in fixed columns
    control.json    where the processes of this run meet, for `status`, `scale`, `stop`
    end.json        how it ended, if it did
    dashboard.json  URL of its page, with the token, while that is served
    checkpoints/ replay/ dreams/ redis/ log/ curve.png

Whoever drives the run holds `.lock` (flock), so two drivers never share a folder; the process that
keeps its Ray open holds `.head`, a terminal that puts both in place `.starting`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.config import RunConfig
from deploy.file_lock import FileLock
from deploy.files import read_json, read_lines, write_json
from deploy.provenance import provenance
from system.config import from_json, to_json
from system.errors import ConfigError, RunError, nearest
from system.specs import EnvSpec

RUNS = "runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlFile:
    """Where other terminals find the run."""

    runner: str
    redis: str
    """URL of its control Redis; empty with `runner=local`."""
    host: str
    pid: int
    """Process that drives it."""
    started_s: float
    """Wall-clock time of the start [s]."""
    redis_data: str = ""
    """URL of the Redis of its Chunks; empty: the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a run came to rest."""

    how: str
    """`finished`, `stopped` or `failed`."""
    text: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What `config.json` says."""

    config: RunConfig
    spec: EnvSpec
    run_id: str
    """The name in Redis keys: unlike the folder's it is never used twice."""


class RunFolder:
    """One run on disk.

    The calls that use it::

        folder = RunFolder.create(Path.cwd(), config, spec)    # or RunFolder.open(Path.cwd(), name)
        with folder.locked():
            train(folder.record())
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.metrics_path = path / "metrics.jsonl"
        self.curve_path = path / "curve.png"
        self.log_path = path / "log"
        self.redis_path = path / "redis"
        self._config_path = path / "config.json"
        self._control_path = path / "control.json"
        self._end_path = path / "end.json"
        self._lock = FileLock(path / ".lock")
        self._head = FileLock(path / ".head")
        self._starting = FileLock(path / ".starting")

    @classmethod
    def create(cls, where: Path, config: RunConfig, spec: EnvSpec) -> RunFolder:
        """Makes `where/runs/NAME/`.

        Raises:
          RunError: it exists; the message names `dreamfleet resume`.
        """
        folder = cls(where.absolute() / RUNS / config.run)
        folder.refuse_existing()
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.log_path.mkdir()
        run_id = f"{config.run}-{secrets.token_hex(4)}"
        write_json(
            folder._config_path,
            {**provenance(), "run_id": run_id, "config": to_json(config), "spec": spec.to_json()},
        )
        return folder

    @classmethod
    def open(cls, where: Path, name: str) -> RunFolder:
        """Finds an existing run.

        Raises:
          RunError: there is none of this name; the nearest match is named.
        """
        folder = cls(where.absolute() / RUNS / name)
        if folder.exists():
            return folder
        known = list_runs(where)
        hint = nearest(name, known) if known else f"there is none yet under {where / RUNS}"
        raise RunError(f"no run {name!r} in {where / RUNS}; {hint}")

    def exists(self) -> bool:
        """Whether there is such a run."""
        return self._config_path.is_file()

    def refuse_existing(self) -> None:
        """Raises RunError if this run exists."""
        if self.exists():
            raise RunError(
                f"run {self.name!r} exists in {self.path}; go on with it: dreamfleet resume "
                f"--run {self.name}, or choose another name with --run"
            )

    def record(self) -> RunRecord:
        """Reads `config.json`.

        Raises:
          RunError: it cannot be read.
          ConfigError: it was written by another version of dreamfleet.
        """
        data = read_json(self._config_path)
        try:
            return RunRecord(
                config=from_json(RunConfig, data["config"]),
                spec=EnvSpec.from_json(data["spec"]),
                run_id=_run_id(data["run_id"]),
            )
        except KeyError as error:
            raise RunError(f"{self._config_path} misses {error}; the run is not usable") from error
        except ConfigError as error:
            raise ConfigError(
                f"{self._config_path} (dreamfleet {data.get('dreamfleet')}): {error}"
            ) from error

    def reconfigure(self, config: RunConfig) -> None:
        """Moves the frame limit or the servers of an existing run."""
        data = read_json(self._config_path)
        write_json(self._config_path, {**data, "config": to_json(config)})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for one driver.

        Raises:
          RunError: another process drives it.
        """
        with self._lock.held(self._in_use):
            # They tell of the driver before us, whose process id may be anybody's by now.
            self._control_path.unlink(missing_ok=True)
            self._end_path.unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Held by a terminal that starts the run. Raises RunError if it goes on already."""
        with self._starting.held(self._in_use):
            if self.in_use():
                raise RunError(self._in_use())
            self._end_path.unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def held_by_head(self) -> Iterator[None]:
        """Held by the process that keeps Ray open; its process id can be asked for meanwhile."""
        with self._head.held(self._in_use) as file:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def is_driven(self) -> bool:
        """Whether a driver holds the run at this moment; a supervisor may just be restarting."""
        return self._lock.is_held()

    def has_head(self) -> bool:
        """Whether the run keeps a Ray cluster of its own open."""
        return self._head.is_held()

    def head_pid(self) -> int | None:
        """Process that keeps Ray open; None if there is none."""
        if not self.has_head():
            return None
        text = self._head.path.read_text().strip()
        return int(text) if text.isdigit() else None

    def in_use(self) -> bool:
        """Whether the run is going on."""
        return self.is_driven() or self.has_head()

    def write_end(self, end: End) -> None:
        """Tells how the run came to rest."""
        write_json(self._end_path, asdict(end))

    def end(self) -> End | None:
        """How the run came to rest; None while it goes on, or if nobody could tell."""
        return from_json(End, read_json(self._end_path)) if self._end_path.exists() else None

    def write_control(
        self, runner: str, redis: str, started_s: float, *, redis_data: str = ""
    ) -> None:
        """Tells other terminals where this run is controlled."""
        control = ControlFile(
            runner=runner,
            redis=redis,
            redis_data=redis_data,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=started_s,
        )
        write_json(self._control_path, asdict(control))

    def control(self) -> ControlFile | None:
        """Where the run is, or was last, controlled."""
        if not self._control_path.exists():
            return None
        return from_json(ControlFile, read_json(self._control_path))

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every line of `metrics.jsonl`, oldest first."""
        return read_lines(self.metrics_path)

    def evaluations(self) -> Iterator[dict[str, Any]]:
        """Those that hold an evaluation: few, however long the run."""
        return read_lines(self.metrics_path, holding="eval/return_mean")

    def _in_use(self) -> str:
        control = self.control()
        by_whom = f" by process {control.pid} on {control.host}" if control else ""
        return (
            f"run {self.name!r} is in use{by_whom}; look with: dreamfleet status --run "
            f"{self.name}, end it with: dreamfleet stop --run {self.name}"
        )


def _run_id(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError("run_id must be text")
    return value


def list_runs(where: Path) -> list[str]:
    """Names of the runs under `where`, growing order."""
    return sorted(path.parent.name for path in (where / RUNS).glob("*/config.json"))


def default_name(where: Path, env: str, today: datetime.date) -> str:
    """`cartpole-swingup-1123`, with a number behind it if that is taken."""
    word = re.sub(r"[^a-z0-9]+", "-", env.rpartition("/")[2].rpartition(":")[2].lower()).strip("-")
    base = f"{word[:40] or 'run'}-{today:%m%d}"
    name, number = base, 1
    while (where / RUNS / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name
