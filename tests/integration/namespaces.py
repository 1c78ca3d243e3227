"""Machines of one network, as network namespaces: own addresses, own loopback, a link to cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time

PREFIX = "10.214.77"
BRIDGE = "dreamfleet0"


def why_not():
    """Why there can be no namespaces here; empty if there can."""
    if shutil.which("ip") is None:
        return "no iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"dreamfleet-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "network namespaces are not permitted"
    _ip("netns", "del", probe)
    return ""


class Machine:
    """One namespace, and the processes in it."""

    def __init__(self, number, where):
        self.name, self.address = f"dreamfleet-{number}", f"{PREFIX}.{10 + number}"
        self.link, self.home = f"dreamfleet-v{number}", where / self.name
        self.home.mkdir()

    def __enter__(self):
        _ip("netns", "add", self.name)
        _ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self.link, "master", BRIDGE, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
            ["address", "add", f"{self.address}/24", "dev", "eth0"],
        ):
            _ip("-n", self.name, *words)
        return self

    def __exit__(self, *_):
        """Kills what runs in it, by number, and removes it."""
        deadline_s = time.monotonic() + 10
        while (pids := self.pids) and time.monotonic() < deadline_s:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        # By name: a namespace whose last process is still going takes its end along late.
        _ip("link", "del", self.link)
        _ip("netns", "del", self.name)

    def run(self, words, *, cwd=None, env=None, timeout_s=150):
        """One command in it, to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *words], cwd=cwd or self.home,
            env={**os.environ, "HOME": str(self.home), **(env or {})}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    @property
    def pids(self):
        """Its processes."""
        return {int(word) for word in _ip("netns", "pids", self.name).split()}

    def cut(self):
        """Nothing goes in or out; whoever waits for a reply waits on."""
        _ip("link", "set", self.link, "down")

    def mend(self):
        _ip("link", "set", self.link, "up")


@contextlib.contextmanager
def machines(count, where):
    """So many machines, which reach each other and this one at `PREFIX`.1."""
    with contextlib.ExitStack() as stack:
        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(_ip, "link", "del", BRIDGE)
        _ip("address", "add", f"{PREFIX}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield [stack.enter_context(Machine(number, where)) for number in range(count)]


def _ip(*words):
    answer = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, (words, answer.stderr)
    return answer.stdout
