"""Runs of a folder on this machine: everything a run folder remembers, and control if it lives."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.dashboard.curve import Curve
from deploy.dashboard.plain import known, text_of
from deploy.dashboard.source import Checkpoint, DreamFile, Glance, RunCard, look_at
from deploy.files import read_json
from deploy.folder_control import FolderControl, how_it_ended
from deploy.run_folder import RUNS, RunFolder, list_runs
from deploy.status import merge_line, newest_numbers
from deploy.tail import Tail
from system.control.protocol import MAX_BLOB_BYTES, Control
from system.errors import DreamfleetError, RunError, Unavailable
from system.types import Snapshot

CHECKPOINT = re.compile(r"(\d{1,18})-(\d{1,18})")
DREAM = re.compile(r"(\d{1,18})\.dream")


class FolderSource:
    """One run of a folder."""

    def __init__(self, folder: RunFolder, control: Control | None = None) -> None:
        """`control` of a run in this process; else it is where the folder says.

        Raises:
          RunError: `config.json` cannot be read.
        """
        data = read_json(folder.path / "config.json")
        config, run_id = data.get("config"), data.get("run_id")
        if not isinstance(config, dict) or not isinstance(run_id, str):
            raise RunError(f"{folder.path / 'config.json'} is not a run's")
        self.run_id, self.name, self.config = run_id, folder.name, config
        self.scalable = control is None
        self.curve = Curve()
        self._folder, self._own = folder, control
        self._tail = Tail(folder.metrics_path)
        self._numbers: dict[str, Any] = {}
        self._meeting = FolderControl(folder, run_id)

    def glance(self, cursor: str) -> Glance:
        """Looks once; while control is away, what the folder remembers is all."""
        self._read_on()
        alive, look, trouble = self._folder.in_use(), None, ""
        try:
            control = self._control() if alive else None
            look = look_at(control, cursor) if control is not None else None
        except Unavailable as error:
            trouble = str(error)
        return Glance(
            alive=alive,
            ended="" if alive else how_it_ended(self._folder),
            look=look,
            numbers=self._numbers | (newest_numbers(look.metrics) if look is not None else {}),
            checkpoints=self._checkpoints(),
            trouble=trouble,
        )

    def card(self) -> RunCard:
        """For the list, without asking Redis."""
        self._read_on()
        alive, frames = self._folder.in_use(), known(self._numbers, "frames")
        return RunCard(
            run_id=self.run_id,
            name=self.name,
            env=text_of(self.config, "env", "name"),
            phase="running" if alive else how_it_ended(self._folder) or "not running",
            alive=alive,
            frames=None if frames is None else int(frames),
            return_mean=known(self._numbers, "eval/return_mean"),
            seen_s=_changed_s(self._folder.metrics_path),
        )

    def dreams(self) -> list[DreamFile]:
        """Those the folder keeps, oldest first."""
        found = []
        for path in (self._folder.path / "dreams").glob("*.dream"):
            named, time_s = DREAM.fullmatch(path.name), _changed_s(path)
            if named and time_s is not None:
                found.append(DreamFile(update=int(named[1]), path=path, time_s=time_s))
        return sorted(found, key=lambda dream: dream.update)

    def dream(self, update: int | None) -> bytes | None:
        """One of the folder's, the newest by default."""
        for dream in reversed(self.dreams()):
            if dream.path is not None and update in (None, dream.update):
                with contextlib.suppress(OSError), dream.path.open("rb") as file:
                    return file.read(MAX_BLOB_BYTES + 1)
        return None

    def control(self, verb: str) -> Control:
        """Of a running run."""
        if self._own is not None:
            raise RunError(f"a run of one process (--runner local) cannot {verb}")
        if not self._folder.in_use():
            raise RunError(f"run {self.name!r} is not running, so there is nothing to {verb}")
        control = self._control()
        if control is None:
            raise RunError(f"run {self.name!r} is not controlled from here, or not yet")
        return control

    def policy(self) -> Snapshot:
        """That of its newest checkpoint."""
        from learner.checkpoint import load_policy  # torch: only for who wants weights

        return load_policy(self._folder.path / "checkpoints")

    def close(self) -> None:
        """Releases the connection."""
        self._meeting.close()

    def _control(self) -> Control | None:
        return self._own if self._own is not None else self._meeting.connected()

    def _read_on(self) -> None:
        lines = self._tail.new()
        self.curve.take(lines)
        for line in lines:
            with contextlib.suppress(KeyError, TypeError):  # a line of another version
                merge_line(self._numbers, line)

    def _checkpoints(self) -> list[Checkpoint]:
        found = []
        for path in (self._folder.path / "checkpoints").glob("[0-9]*"):
            named, time_s = CHECKPOINT.fullmatch(path.name), _changed_s(path)
            if named and time_s is not None:
                found.append(Checkpoint(updates=int(named[2]), time_s=time_s))
        return sorted(found, key=lambda checkpoint: checkpoint.updates)


class FolderRuns:
    """Every run under `runs/`, or one of them."""

    def __init__(
        self, where: Path, *, only: str | None = None, own: Mapping[str, Control] | None = None
    ) -> None:
        """Looks at nothing yet.

        Args:
          where: the folder with `runs/`.
          only: name of the only run to show; None shows all.
          own: name -> control of a run in this very process.
        """
        self.where = str(where / RUNS)
        self._place, self._only, self._own = where, only, own or {}
        self._known: dict[str, FolderSource] = {}
        self._looking = threading.Lock()  # the reader and requests look

    def cards(self) -> list[RunCard]:
        """The list, by name; a run whose files cannot be read hides no other."""
        self._look()
        cards = []
        for source in list(self._known.values()):
            with contextlib.suppress(DreamfleetError, OSError):
                cards.append(source.card())
        return cards

    def open(self, run_id: str) -> FolderSource | None:
        """One of them."""
        if run_id not in self._ids():
            self._look()
        return self._ids().get(run_id)

    def close(self) -> None:
        """Releases the connections."""
        for source in list(self._known.values()):
            source.close()

    def _ids(self) -> dict[str, FolderSource]:
        return {source.run_id: source for source in list(self._known.values())}

    def _look(self) -> None:
        with self._looking:
            self._look_alone()

    def _look_alone(self) -> None:
        names = list_runs(self._place) if self._only is None else [self._only]
        for name in set(self._known) - set(names):
            self._known.pop(name).close()
        for name in names:
            folder, before = RunFolder(self._place.absolute() / RUNS / name), self._known.get(name)
            with contextlib.suppress(DreamfleetError):
                if before is None or before.run_id != _run_id(folder):
                    self._known[name] = FolderSource(folder, self._own.get(name))
                    if before is not None:  # deleted, and another run took the name
                        before.close()


def _run_id(folder: RunFolder) -> object:
    return read_json(folder.path / "config.json").get("run_id")


def _changed_s(path: Path) -> float | None:
    """When a file was last written, Unix time [s]; None if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
