"""The embedded server while it reads a long append-only file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy import redis_server
from deploy.redis_server import EmbeddedRedis
from system.redis_client import connect
from tests.waiting import wait_until

KEYS = 4_000


class SlowReader(EmbeddedRedis):
    """Takes more than three seconds to read its file."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--key-load-delay", "800"]


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[SlowReader]:
    server = SlowReader(tmp_path / "redis", max_memory_bytes=64 * 1024**2)
    server.start()
    with closing(connect(server.url)) as connection:
        for number in range(KEYS):
            connection.call("SET", f"key{number}", "kept")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive(), "died")
    yield server
    server.stop()


def test_a_server_that_reads_its_files_is_waited_for(
    killed: SlowReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "START_TIMEOUT_S", 2.0)
    said = []
    starting = threading.Thread(target=lambda: said.append(killed.start()))
    starting.start()
    other = EmbeddedRedis(killed.folder, max_memory_bytes=64 * 1024**2)
    wait_until(other.alive, "answered: nobody restarts one that reads")
    first = other.pid
    other.start()
    starting.join()
    assert said == [None]
    assert other.pid == first
    with closing(connect(killed.url)) as connection:
        assert connection.call("DBSIZE") == KEYS


def test_one_that_cannot_start_is_not_waited_for(tmp_path: Path) -> None:
    class Broken(EmbeddedRedis):
        def _arguments(self) -> list[str]:
            return [*super()._arguments(), "--no-such-setting", "1"]

    begun_s = time.monotonic()
    with pytest.raises(redis_server.RunError, match="did not start"):
        Broken(tmp_path / "redis", max_memory_bytes=64 * 1024**2).start()
    assert time.monotonic() - begun_s < redis_server.START_TIMEOUT_S
