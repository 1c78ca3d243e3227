"""Where a process is when nothing in it can run any more, written by a thread that needs no Python.

A hang that holds the interpreter (C code that never returns) stops heartbeats, logging and signal
handlers alike. faulthandler's own thread goes on: unless it is put off, it writes every stack.
"""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path

KEPT_BYTES = 16_000
"""Of a longer file the beginning is read: threads of Python's come first [bytes]."""


class StackWatch:
    """Writes the stack of every thread to a file once `pet` has not been called for a while.

    The file holds something only while the process hangs, or if it never came back. One watch a
    process: faulthandler has one timer.

    The loop that uses it::

        watch = StackWatch(folder / "actor-0.stack", timeout_s=50)
        while True:
            watch.pet()          # with every heartbeat; about 10 microseconds
        watch.close()
        StackWatch.read_and_clear(folder / "actor-0.stack")  # another process, after the kill
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - the timer writes to it
        self.pet()

    def pet(self) -> None:
        """Puts the writing off by `timeout_s` [s]; what an overcome hang wrote is dropped."""
        # Stops the timer before anything else, or it could write between the two lines below.
        faulthandler.cancel_dump_traceback_later()
        if self._file.tell():
            self._file.seek(0)
            self._file.truncate()
        faulthandler.dump_traceback_later(self._timeout_s, file=self._file)

    def close(self) -> None:
        """Ends the watch; an orderly end leaves no file."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._path.unlink(missing_ok=True)

    @staticmethod
    def read_and_clear(path: Path) -> str:
        """What a watch left, and removes it; empty if there is nothing to read."""
        try:
            with open(path, "rb") as file:
                written = file.read(KEPT_BYTES)
            os.unlink(path)
        except OSError:
            return ""
        return written.decode(errors="replace").strip()
