"""Machines of one network: namespaces with addresses of their own and a link to cut; or, where
those are not permitted, groups of processes that are stopped as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PREFIX = "10.214.77"
BRIDGE = "dreamfleet0"
MARK = "DREAMFLEET_TEST_MACHINE"


def why_no_namespaces():
    """Empty if they are permitted."""
    if shutil.which("ip") is None:
        return "no iproute2; make system-packages"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"dreamfleet-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "network namespaces are not permitted"
    _ip("netns", "del", probe)
    return ""


class Machine:
    """Some processes of this machine, told apart by a mark that they inherit.

    Cut off, they stand still: a half-dead machine, whose peers get no answer.
    """

    def __init__(self, number, where, address):
        self.name, self.address = f"dreamfleet-{number}", address
        self.home = where / self.name
        self.home.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Kills what runs in it, by number."""
        deadline_s = time.monotonic() + 10
        while (pids := self.pids) and time.monotonic() < deadline_s:
            _signal(pids, signal.SIGKILL)
            time.sleep(0.1)

    def run(self, words, *, cwd=None, env=None, timeout_s=150):
        """One command in it, to its end."""
        marked = {**os.environ, "HOME": str(self.home), MARK: str(self.home), **(env or {})}
        return subprocess.run(
            [*self._enter(), *words], cwd=cwd or self.home, env=marked, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    @property
    def pids(self):
        """Its processes."""
        mark, found = f"{MARK}={self.home}".encode(), set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.add(int(path.parent.name))
        return found

    def cut(self):
        """Nobody gets an answer."""
        _signal(self.pids, signal.SIGSTOP)

    def mend(self):
        """It goes on where it was."""
        _signal(self.pids, signal.SIGCONT)

    def _enter(self):
        return []


class Namespace(Machine):
    """A machine with a network of its own. Cut off, it works on, and hears and reaches nobody."""

    def __init__(self, number, where):
        super().__init__(number, where, f"{PREFIX}.{10 + number}")
        self._link = f"dreamfleet-v{number}"

    def __enter__(self):
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
            ["address", "add", f"{self.address}/24", "dev", "eth0"],
        ):
            _ip("-n", self.name, *words)
        return self

    def __exit__(self, *_):
        """Kills what runs in it, and removes it."""
        super().__exit__()
        # By name: a namespace whose last process is still going takes its end along late.
        _ip("link", "del", self._link)
        _ip("netns", "del", self.name)

    @property
    def pids(self):
        """Its processes."""
        return {int(word) for word in _ip("netns", "pids", self.name).split()}

    def cut(self):
        """Nothing goes in or out; whoever waits for a reply waits on."""
        _ip("link", "set", self._link, "down")

    def mend(self):
        """The link is up again."""
        _ip("link", "set", self._link, "up")

    def _enter(self):
        return ["ip", "netns", "exec", self.name]


@contextlib.contextmanager
def namespaces(count, where):
    """So many machines, and the address at which they all reach this one."""
    with contextlib.ExitStack() as stack:
        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(_ip, "link", "del", BRIDGE)
        _ip("address", "add", f"{PREFIX}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        made = [stack.enter_context(Namespace(number, where)) for number in range(count)]
        yield made, f"{PREFIX}.1"


@contextlib.contextmanager
def groups(count, where):
    """The same with groups of processes."""
    from ray.util import get_node_ip_address

    address = get_node_ip_address()
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Machine(number, where, address)) for number in range(count)]
        yield made, address


def _signal(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ip(*words):
    answer = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, (words, answer.stderr)
    return answer.stdout
