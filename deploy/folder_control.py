"""A run whose folder is here: where it meets now, and how it ended."""

from __future__ import annotations

import socket
import threading

from deploy.place import REPLY_TIMEOUT_S
from deploy.run_folder import RunFolder
from system.control.redis import RedisControl


class FolderControl:
    """The control of one run; a resumed one may meet elsewhere. Threads may share it.

    The calls that use it::

        control = meeting.connected()       # each time: None if it cannot be asked from here
        meeting.close()
    """

    def __init__(self, folder: RunFolder, run_id: str) -> None:
        self._folder, self._run_id = folder, run_id
        self._control: RedisControl | None = None
        self._url = ""
        self._lock = threading.Lock()

    def connected(self) -> RedisControl | None:
        """To where the run meets now. None if not from here."""
        file = self._folder.control()
        url = file.redis if file is not None else ""
        elsewhere = file is not None and file.host != socket.gethostname()
        if url.startswith("unix://") and elsewhere:
            return None
        with self._lock:
            if url != self._url:
                self._drop()
                self._url = url
                if url:
                    self._control = RedisControl(url, self._run_id, timeout_s=REPLY_TIMEOUT_S)
            return self._control

    def close(self) -> None:
        """Releases the connection."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control, self._url = None, ""


def how_it_ended(folder: RunFolder) -> str:
    """`finished`, `stopped`, `failed: why`, or `lost`: nobody told. Empty before it began."""
    end = folder.end()
    if end is None:
        return "lost" if folder.control() is not None else ""
    return f"{end.how}: {end.text}" if end.text else end.how
