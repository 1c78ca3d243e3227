"""Who listens: the embedded server on its private socket alone; and the helper sees the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy.redis_server import MAX_SOCKET_BYTES, EmbeddedRedis
from system.errors import RunError
from tests.integration.listeners import listeners, tree

MEMORY_BYTES = 64 * 1024**2


@pytest.fixture
def start():
    """Starts a server, and stops it in the end."""
    servers = []

    def started(folder):
        servers.append(EmbeddedRedis(folder, max_memory_bytes=MEMORY_BYTES))
        servers[-1].start()
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


@pytest.mark.parametrize("name", ["redis", "long" * 40])
def test_the_embedded_server_has_one_private_socket(start, tmp_path, name):
    server = start(tmp_path / name)
    (one,) = listeners(server.pid)
    path = Path(one.address)
    assert one.kind == "unix"
    assert len(bytes(path)) <= MAX_SOCKET_BYTES
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    assert one.private
    server.stop()
    assert path.parent == server.folder or not path.parent.exists()


def test_a_long_temporary_folder_is_no_obstacle(start, tmp_path, monkeypatch):
    long = tmp_path / ("t" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert start(tmp_path / ("long" * 40)).alive()


def test_somebody_elses_folder_is_refused(start, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "redis").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="must be a folder of this user"):
        start(tmp_path / "redis")
    if os.getuid() == 0:
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 12345, 12345)
        with pytest.raises(RunError, match="must be a folder of this user"):
            start(tmp_path / "theirs")


LISTENER = """
import socket, sys
sockets = [socket.create_server((address, 0), family=family) for address, family in (
    ("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET), ("::1", socket.AF_INET6))]
print(*[one.getsockname()[1] for one in sockets], flush=True)
sys.stdin.read()
"""


def test_the_helper_sees_what_a_descendant_listens_on():
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTENER!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        ports = [int(word) for word in process.stdout.readline().split()]
        found = {one.port: one for one in listeners(process.pid)}
        assert process.pid not in {one.pid for one in found.values()}
        assert len(tree(process.pid)) == 2
        assert [found[port].address for port in ports] == ["127.0.0.1", "0.0.0.0", "::1"]
        assert [found[port].private for port in ports] == [True, False, True]
        process.stdin.close()


def test_a_socket_is_private_by_its_own_mode_or_a_folder_above():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "inside" / "socket"
        path.parent.mkdir()
        server.bind(str(path))
        server.listen()
        (one,) = [each for each in listeners(os.getpid()) if each.address == str(path)]
        assert one.private  # TemporaryDirectory is
        Path(folder).chmod(0o755)
        path.chmod(0o777)
        assert not one.private
        path.chmod(0o755)
        assert one.private


def test_a_connection_is_no_listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            mine = [one for one in listeners(os.getpid()) if one.port == port]
    assert len(mine) == 1
