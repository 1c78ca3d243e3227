"""The weights of one machine: fetched once, read by all, and never a reason to fail."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import signal
import subprocess
import sys

import pytest

from system.channel import node_cache
from system.channel.node_cache import NodeCache, default_folder
from system.channel.redis import RedisChannel
from system.redis_client import as_bytes, connect
from system.types import Snapshot

READERS = 4
VERSIONS = 4
PIECES = 4
READER = """
import sys, time
from pathlib import Path
from system.channel.node_cache import NodeCache
from system.channel.redis import RedisChannel
url, run, folder, last = sys.argv[1:]
channel = RedisChannel(url, run, cache=NodeCache(Path(folder), wait_s=60))
version, seen = 0, []
print("ready", flush=True)
while version < int(last):
    snapshot = channel.newer_than(1, version)
    if snapshot is None:
        time.sleep(0.001)
        continue
    version = snapshot.version
    assert set(snapshot.weights) == {version} and len(snapshot.weights) == 4000
    print(version, flush=True)
"""
DATA = b"weights" * 100
SHA = hashlib.sha256(DATA).hexdigest()


class Source:
    """Counts what is fetched."""

    def __init__(self, data=DATA):
        self.data, self.fetched = data, 0

    def __call__(self):
        self.fetched += 1
        return self.data


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_many_processes_fetch_each_version_once(redis_server, run_name, folder):
    channel = RedisChannel(redis_server.url, run_name, piece_bytes=1000)
    before = getranges(redis_server)
    arguments = [redis_server.url, run_name, str(folder), str(VERSIONS)]
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE, text=True
        )
        for _ in range(READERS)
    ]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for version in range(1, VERSIONS + 1):
        channel.publish(snapshot(version))
        for reader in readers:
            assert reader.stdout.readline() == f"{version}\n"
    for reader in readers:
        reader.stdout.close()
        assert reader.wait() == 0
    assert getranges(redis_server) - before == VERSIONS * PIECES
    assert folder.stat().st_mode & 0o777 == 0o700
    channel.close()


def test_a_second_look_reads_the_file(folder):
    source = Source()
    assert NodeCache(folder).get(SHA, source) == DATA
    assert NodeCache(folder).get(SHA, source) == DATA
    assert source.fetched == 1


def test_what_is_gone_is_not_kept(folder):
    cache, source = NodeCache(folder), Source(None)
    assert cache.get(SHA, source) is None
    assert cache.get(SHA, Source()) == DATA


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA + b"!", b"x" + DATA[1:]])
def test_a_damaged_file_is_fetched_again_and_replaced(folder, damage):
    cache, source = NodeCache(folder), Source()
    cache.get(SHA, source)
    (folder / SHA).write_bytes(damage)
    assert cache.get(SHA, source) == DATA
    assert cache.get(SHA, source) == DATA
    assert source.fetched == 2


def test_only_the_newest_few_are_kept(folder, monkeypatch):
    monkeypatch.setattr(node_cache, "KEPT_FILES", 3)
    cache = NodeCache(folder)
    shas = [put(cache, bytes([i]) * 100, folder, age_s=100 - i) for i in range(6)]
    assert stored(folder) == set(shas[-3:])
    monkeypatch.setattr(node_cache, "KEPT_BYTES", 250)
    shas.append(put(cache, b"z" * 100, folder, age_s=10))
    assert stored(folder) == set(shas[-2:])
    huge = put(cache, b"h" * 1000, folder, age_s=0)
    assert stored(folder) == {huge}


def test_nobody_waits_for_a_holder_that_hangs(folder):
    cache, source = NodeCache(folder, wait_s=0.1), Source()
    folder.mkdir(mode=0o700)
    with (folder / f"lock-{SHA[0]}").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cache.get(SHA, source) == DATA
        assert not stored(folder)
    assert cache.get(SHA, source) == DATA
    assert stored(folder) == {SHA}


def test_a_killed_writer_leaves_nothing_in_the_way(folder):
    folder.mkdir(mode=0o700)
    killed = subprocess.run(
        [sys.executable, "-c",
         "import os, sys\n"
         "from pathlib import Path\n"
         "from system.channel.node_cache import NodeCache\n"
         "Path.rename = lambda *_: os.kill(os.getpid(), 9)\n"
         f"NodeCache(Path(sys.argv[1])).get({SHA!r}, lambda: b'half')", str(folder)],
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert (folder / f"new-{SHA[0]}").read_bytes() == b"half"
    assert NodeCache(folder).get(SHA, Source()) == DATA
    assert {path.name for path in folder.iterdir()} == {SHA, f"lock-{SHA[0]}"}


@pytest.mark.parametrize("what", ["open to all", "a link", "a file", "no parent", "another user's"])
def test_a_folder_that_is_not_ours_alone_is_not_used(folder, what):
    if what == "open to all":
        folder.mkdir()
        folder.chmod(0o755)
    elif what == "a link":
        folder.with_name("elsewhere").mkdir(mode=0o700)
        folder.symlink_to(folder.with_name("elsewhere"))
    elif what == "a file":
        folder.write_text("")
    elif what == "no parent":
        folder = folder / "deeper"
    elif os.getuid() == 0:
        folder.mkdir(mode=0o700)
        os.chown(folder, 12345, 12345)
    else:
        pytest.skip("only root can give a folder away")
    source = Source()
    for _ in range(2):
        assert NodeCache(folder).get(SHA, source) == DATA
    assert source.fetched == 2
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_full_disk_is_as_good_as_no_cache(folder):
    cache, source = NodeCache(folder), Source(b"large" * 10_000)
    sha = hashlib.sha256(source.data).hexdigest()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert cache.get(sha, source) == source.data
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in folder.iterdir()} == {f"lock-{sha[0]}"}
    cache.get(sha, source)
    assert stored(folder) == {sha}


def test_what_fetching_raises_is_raised_and_frees_the_lock(folder):
    def fail():
        raise ValueError("no route")

    with pytest.raises(ValueError, match="no route"):
        NodeCache(folder).get(SHA, fail)
    assert NodeCache(folder, wait_s=0).get(SHA, Source()) == DATA
    assert stored(folder) == {SHA}


def test_the_default_folder_is_the_users_own(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert str(default_folder()) == f"/run/user/7/dreamfleet-{os.getuid()}"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_folder().name == f"dreamfleet-{os.getuid()}"


def put(cache, data, folder, *, age_s):
    """Stores data as if it were so old; returns its name."""
    sha = hashlib.sha256(data).hexdigest()
    assert cache.get(sha, lambda: data) == data
    then = os.stat(folder).st_mtime - age_s
    os.utime(folder / sha, (then, then))
    return sha


def stored(folder):
    return {path.name for path in folder.iterdir() if len(path.name) == 64}


def getranges(server):
    connection = connect(server.url)
    lines = as_bytes(connection.call("INFO", "commandstats")).decode().splitlines()
    connection.close()
    found = [line for line in lines if line.startswith("cmdstat_getrange:")]
    return int(found[0].split("calls=")[1].split(",")[0]) if found else 0


def snapshot(version):
    return Snapshot(
        epoch=1, version=version, update=0, agent_steps=0, elapsed_s=0.0, model_digest="",
        time_s=0.0, weights=bytes([version]) * 1000 * PIECES,
    )  # fmt: skip
