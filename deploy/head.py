"""Keeps a Ray cluster of this machine open for as long as a run needs it.

::

    train --> python -m deploy.head runs/NAME --> ray.json: where it is --> until SIGTERM

A process of its own, in a session of its own: the death of the terminal, or of the supervisor, does
not end the cluster. It ends when told to, or when nobody has driven the run for some time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from deploy.files import read_json, write_json
from deploy.ray_session import Cluster, local_cluster
from deploy.run_folder import RunFolder
from system.errors import DreamfleetError, RunError

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
LOOK_S = 1.0
UNUSED_S = 120.0
"""How long a cluster waits for a driver, at first and after the last one [s]."""


class Head:
    """The cluster of one run folder, as its users see it.

    The calls that use it::

        cluster = head.start()      # returns when Ray answers
        head.stop()                 # returns when it is gone
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._address_path = folder.path / "ray.json"
        self._token_path = folder.path / "ray.token"
        self._log_path = folder.log_path / "ray.log"

    @property
    def cluster(self) -> Cluster | None:
        """Where it is, if it runs."""
        if not self._folder.has_head() or not self._address_path.exists():
            return None
        return Cluster(**read_json(self._address_path))

    def start(self) -> Cluster:
        """Starts it as a process of its own.

        Raises:
          RunError: it does not come up; the message ends with its last words.
        """
        self._address_path.unlink(missing_ok=True)
        self._write_token()
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.head", str(self._folder.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (cluster := self.cluster) is None:
            if process.poll() is not None or time.monotonic() > deadline_s:
                process.kill()
                words = self._log_path.read_text(errors="replace").splitlines()[-3:]
                raise RunError(f"Ray does not start: {' / '.join(words)} ({self._log_path})")
            time.sleep(0.05)
        return cluster

    def stop(self) -> None:
        """Ends it, politely and then not; returns when it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.tell(number)
            deadline_s = time.monotonic() + STOP_TIMEOUT_S
            while self._folder.has_head() and time.monotonic() < deadline_s:
                time.sleep(0.05)

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal to it, if it runs."""
        pid = self._folder.head_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def hold(self) -> None:
        """Runs it in this process until SIGTERM, or until nobody needs it."""
        told = threading.Event()
        with (
            self._folder.held_by_head(),
            _short_folder() as temporary,
            local_cluster(self._token_path, temporary) as cluster,
        ):
            # Only now: Ray has put a handler of its own in place.
            signal.signal(signal.SIGTERM, lambda *_: told.set())
            write_json(self._address_path, asdict(cluster))
            used_s = time.monotonic()
            while not told.wait(LOOK_S) and time.monotonic() - used_s < UNUSED_S:
                if self._folder.is_driven():
                    used_s = time.monotonic()
        self._address_path.unlink(missing_ok=True)

    def _write_token(self) -> None:
        descriptor = os.open(self._token_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """Ray puts unix sockets into it, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="dreamfleet-ray-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """`python -m deploy.head FOLDER`."""
    try:
        Head(RunFolder(Path(sys.argv[1]))).hold()
    except DreamfleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
