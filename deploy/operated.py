"""A run as those who operate it see it: by its folder, or by the registry of its Redis alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import replace
from typing import Protocol

from deploy.dashboard.beside import RunPage
from deploy.folder_control import FolderControl, how_it_ended
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder, RunRecord
from deploy.status import MetricsTail, Status, is_supervised, newest_numbers, status_of
from system.channel.redis import RedisChannel
from system.control.protocol import Control, RememberedPoint
from system.errors import CheckpointError, RunError, Unavailable
from system.types import Snapshot


class Target(Protocol):
    """A run as those who operate it see it."""

    name: str
    record: RunRecord

    @property
    def where(self) -> str:
        """For people: who drives it, or did."""
        ...

    def alive(self) -> bool:
        """Whether somebody drives it."""
        ...

    def status(self) -> Status:
        """How it stands."""
        ...

    def control(self, verb: str) -> Control:
        """The control plane of a running run.

        Raises:
          RunError: it is not running, or cannot do what `verb` says.
        """
        ...

    def stop(self) -> None:
        """Asks it to drain, save and exit; returns at once."""
        ...

    def policy(self) -> Snapshot:
        """Its newest policy.

        Raises:
          CheckpointError: there is none yet, or none any more.
        """
        ...

    def close(self) -> None:
        """Releases the connection."""
        ...


class FolderRun:
    """A run of a folder on this machine."""

    def __init__(self, folder: RunFolder) -> None:
        self.name, self.folder, self.record = folder.name, folder, folder.record()
        self._tail = MetricsTail(folder.metrics_path)
        self._meeting = FolderControl(folder, self.record.run_id)

    @property
    def where(self) -> str:
        """For people: who drives it, or did."""
        file = self.folder.control()
        return f"process {file.pid} on {file.host}" if file else str(self.folder.path)

    def alive(self) -> bool:
        """Whether somebody drives it."""
        return self.folder.in_use()

    def status(self) -> Status:
        """How it stands; without the fleet while Redis is away."""
        alive, values, ended = self.alive(), self._tail.read(), how_it_ended(self.folder)
        status = status_of(self.record, values, None, alive=alive, ended=ended)
        with contextlib.suppress(Unavailable):
            control = self._meeting.connected() if alive else None
            status = status_of(self.record, values, control, alive=alive, ended=ended)
        return replace(status, page=RunPage(self.folder).url)

    def control(self, verb: str) -> Control:
        """The control plane of a running run."""
        if not self.alive():
            raise RunError(_not_running(self.name, verb))
        file = self.folder.control()
        if file is None:
            raise RunError(f"run {self.name!r} is just starting; try again in some seconds")
        if file.runner != "ray":
            raise RunError(
                f"run {self.name!r} is one process (--runner local) and cannot {verb}; only runs "
                "with --runner ray can"
            )
        control = self._meeting.connected()
        if control is None:
            raise RunError(f"run {self.name!r} is controlled on {file.host}; run {verb} there")
        return control

    def stop(self) -> None:
        """Asks it to drain, save and exit, by Redis, by Ray, or by a signal."""
        file = self.folder.control()
        if file is None or file.runner != "local":
            from deploy.watch import ask_to_stop

            ask_to_stop(self.folder, self.record, self.control("stop"))
        elif file.host != socket.gethostname():
            raise RunError(f"run {self.name!r} is driven on {file.host}; stop it there")
        else:
            os.kill(file.pid, signal.SIGTERM)  # the lock is held, so it lives

    def policy(self) -> Snapshot:
        """That of its newest checkpoint."""
        from learner.checkpoint import load_policy

        return load_policy(self.folder.path / "checkpoints")

    def close(self) -> None:
        """Releases the connection."""
        self._meeting.close()


class RemoteRun:
    """A run known by the registry of a Redis alone."""

    def __init__(self, registry: Registry, entry: RunEntry) -> None:
        """Raises ConfigError if it was written by another version."""
        self.name, self.entry, self.record = entry.name, entry, entry.record()
        self._registry, self._control = registry, registry.control(entry.run_id)

    @property
    def where(self) -> str:
        """For people: who drives it, or did."""
        return f"{self.entry.folder} on {self.entry.host}"

    def alive(self) -> bool:
        """Whether a supervisor drives it."""
        return is_supervised(self._control.leases())

    def status(self) -> Status:
        """How it stands; numbers of a run at rest are those of its end."""
        self.entry = entry = self._registry.get(self.entry.run_id) or self.entry
        alive = self.alive()
        values = entry.numbers | newest_numbers(self._control.metrics())
        ended = f"{entry.ended}: {entry.text}" if entry.text else entry.ended or "lost"
        return status_of(
            self.record, values, self._control if alive else None, alive=alive, ended=ended
        )

    def history(self, after: str) -> list[RememberedPoint]:
        """What its Redis remembers of its lines of metrics, those after a cursor."""
        return self._control.history(after)

    def control(self, verb: str) -> Control:
        """The control plane of a running run."""
        if not self.alive():
            raise RunError(_not_running(self.name, verb) + f" (in {self.where})")
        return self._control

    def stop(self) -> None:
        """Asks it to drain, save and exit."""
        self._control.change_desired(stopping=True)

    def policy(self) -> Snapshot:
        """Its newest broadcast."""
        with contextlib.closing(RedisChannel(self._registry.url, self.entry.run_id)) as channel:
            snapshot = channel.newer_than(0, 0)
        if snapshot is None:
            raise CheckpointError(
                f"run {self.name!r} has broadcast no policy that is still in "
                f"{self._registry.shown_url}; evaluate its checkpoint in {self.where}"
            )
        return snapshot

    def close(self) -> None:
        """Releases the connection."""
        self._control.close()


def _not_running(name: str, verb: str) -> str:
    return (
        f"run {name!r} is not running, so there is nothing to {verb}; start it with: "
        f"dreamfleet resume --run {name}"
    )
