"""The page of a run that goes on: where it is, and the process that serves it.

::

    train --> python -m deploy.dashboard.beside runs/NAME --> dashboard.json: URL with token

A process of its own, so that it lives as long as the run and not the terminal; it ends with the
run. Nobody starts it again: the run needs no page, and `dreamfleet dashboard --run NAME` is one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.file_lock import FileLock
from deploy.files import read_json, write_json
from deploy.run_folder import RunFolder
from system.clock import SystemClock
from system.control.protocol import Control
from system.errors import DreamfleetError

if TYPE_CHECKING:
    from deploy.dashboard.server import PageServer

NICENESS = 10
LOOK_S = 1.0
UNUSED_S = 180.0
"""How long it waits for the run to begin [s]."""
GONE_S = 60.0
"""A run that nobody has driven for so long is over, although nobody said so [s]."""
LINGER_S = 10.0
"""So long after its end an open page can still see how it ended [s]."""
STOP_S = 10.0
"""A process that was told to end is killed after so long [s]."""


class RunPage:
    """The page of one run folder, as others see it.

    The calls that use it::

        page = RunPage(folder)
        page.start()                        # returns at once
        page.wait_for_url(5.0)              # empty if there is none
        page.stop()
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._path = folder.path / "dashboard.json"
        self._lock = FileLock(folder.path / ".dashboard")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """With the token; empty if nobody serves it."""
        with contextlib.suppress(DreamfleetError):
            if self._path.exists() and self._lock.is_held():
                url = read_json(self._path).get("url")
                return url if isinstance(url, str) else ""
        return ""

    def start(self) -> None:
        """Starts a process that serves it; one that is still there goes."""
        self.stop()
        self._path.unlink(missing_ok=True)
        with (self._folder.log_path / "dashboard.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.dashboard.beside", str(self._folder.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_for_url(self, timeout_s: float) -> str:
        """The URL as soon as it is served; empty if that takes longer [s]."""
        deadline_s = time.monotonic() + timeout_s
        while not self.url and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return self.url

    def stop(self) -> None:
        """Ends the process, if there is one; returns when it is gone."""
        if self._process is not None:  # it may not have begun to serve
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        deadline_s = time.monotonic() + STOP_S
        while self._lock.is_held() and time.monotonic() < deadline_s:
            with contextlib.suppress(DreamfleetError, OSError, ValueError):
                os.kill(int(read_json(self._path)["pid"]), signal.SIGTERM)
            time.sleep(0.05)

    @contextlib.contextmanager
    def served(self, control: Control | None = None) -> Iterator[PageServer]:
        """Serves it from this process; `control` of a run that lives in this process too.

        Raises:
          RunError: another process serves it.
          ConfigError: there is no port to listen on.
        """
        # Whoever only asks for the URL needs no web server.
        from deploy.dashboard.folders import FolderRuns
        from deploy.dashboard.server import PageServer

        folder = self._folder
        with self._lock.held(lambda: f"the page of {folder.name!r} is served already"):
            own = {} if control is None else {folder.name: control}
            runs = FolderRuns(folder.path.parents[1], own=own)
            server = PageServer(runs, SystemClock(), first_run=folder.name)
            try:
                write_json(self._path, {"url": server.url, "pid": os.getpid()})
                yield server
            finally:
                self._path.unlink(missing_ok=True)
                server.close()


def serve_while_it_runs(folder: RunFolder) -> None:
    """Returns some time after the end of the run, or when told to."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with RunPage(folder).served():
        began, used_s = False, time.monotonic()
        while not told.wait(LOOK_S):
            unused_s = time.monotonic() - used_s
            if folder.in_use():
                began, used_s = True, time.monotonic()
            elif unused_s > (LINGER_S if folder.end() else GONE_S if began else UNUSED_S):
                return


def main() -> int:
    """`python -m deploy.dashboard.beside FOLDER`."""
    os.nice(NICENESS)
    try:
        serve_while_it_runs(RunFolder(Path(sys.argv[1])))
    except DreamfleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
