"""The folder of a run: `runs/NAME/`, its files and its lock.

::

    config.json     complete config, environment spec, versions, hardware; written once
    metrics.jsonl   one JSON object a line, each with time_s, frames, updates
    control.json    where the processes of this run meet, for `status`, `scale`, `stop`
    checkpoints/ replay/ redis/ log/ curve.png

Whoever drives the run holds `.lock` (flock), so two drivers never share a folder.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from deploy.config import RunConfig
from deploy.files import read_lines, write_json
from system.config import from_json, to_json
from system.errors import ConfigError, RunError, nearest
from system.specs import EnvSpec

RUNS = "runs"
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlFile:
    """Where other terminals find the run."""

    runner: str
    redis: str
    """URL of its Redis; empty with `runner=local`."""
    host: str
    pid: int
    """Process that drives it."""
    started_s: float
    """Wall-clock time of the start [s]."""


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
        write_json(folder._config_path, _describe(config, spec, run_id))
        return folder

    @classmethod
    def open(cls, where: Path, name: str) -> RunFolder:
        """Finds an existing run.

        Raises:
          RunError: there is none of this name; the nearest match is named.
        """
        folder = cls(where.absolute() / RUNS / name)
        if folder._config_path.is_file():
            return folder
        known = list_runs(where)
        hint = nearest(name, known) if known else f"there is none yet under {where / RUNS}"
        raise RunError(f"no run {name!r} in {where / RUNS}; {hint}")

    def refuse_existing(self) -> None:
        """Raises RunError if this run exists."""
        if self._config_path.exists():
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
        data = _read_json(self._config_path)
        try:
            return RunRecord(
                config=from_json(RunConfig, data["config"]),
                spec=EnvSpec.from_json(data["spec"]),
                run_id=data["run_id"],
            )
        except KeyError as error:
            raise RunError(f"{self._config_path} misses {error}; the run is not usable") from error
        except ConfigError as error:
            raise ConfigError(
                f"{self._config_path} (dreamfleet {data.get('dreamfleet')}): {error}"
            ) from error

    def extend(self, frames: int) -> None:
        """Moves the frame limit of an existing run."""
        data = _read_json(self._config_path)
        record = self.record()
        data["config"] = to_json(replace(record.config, frames=frames))
        write_json(self._config_path, data)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for one driver.

        Raises:
          RunError: another process drives it.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"run {self.name!r} is in use{self._by_whom()}; look with: dreamfleet status "
                    f"--run {self.name}, end it with: dreamfleet stop --run {self.name}"
                ) from None
            # It names the driver before us, whose process id may be anybody's by now.
            self._control_path.unlink(missing_ok=True)
            yield

    def in_use(self) -> bool:
        """Whether a driver holds the run."""
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            return False

    def write_control(self, runner: str, redis: str, started_s: float) -> None:
        """Tells other terminals where this run is controlled."""
        control = ControlFile(
            runner=runner,
            redis=redis,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_s=started_s,
        )
        write_json(self._control_path, asdict(control))

    def control(self) -> ControlFile | None:
        """Where the run is, or was last, controlled."""
        if not self._control_path.exists():
            return None
        return ControlFile(**_read_json(self._control_path))

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl`, oldest first."""
        return read_lines(self.metrics_path)

    def _by_whom(self) -> str:
        control = self.control()
        return f" by process {control.pid} on {control.host}" if control else ""


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


def _describe(config: RunConfig, spec: EnvSpec, run_id: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run_id": run_id,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dreamfleet": version(),
        "git": _git_commit(),
        "hardware": _hardware(),
        "config": to_json(config),
        "spec": spec.to_json(),
    }


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("dreamfleet")
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> dict[str, Any] | None:
    """Commit of the code that runs, if it runs from a checkout."""
    git, here = shutil.which("git"), Path(__file__).parent
    if git is None or not (here.parent / ".git").exists():
        return None
    commands = ("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")
    outputs = []
    for command in commands:
        answer = subprocess.run([git, "-C", here, *command], capture_output=True, text=True)
        if answer.returncode:
            return None
        outputs.append(answer.stdout.strip())
    return {"commit": outputs[0], "dirty": bool(outputs[1])}


def _hardware() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} is not a JSON object")
    return data
