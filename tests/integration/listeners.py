"""Who in a process tree accepts connections, by what /proc says.

::

    for one in listeners(pid):
        assert one.private, one
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp."""
ACCEPTING = 0x10000
"""__SO_ACCEPTCON in /proc/net/unix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """One socket that accepts connections."""

    pid: int
    command: str
    kind: str
    """`tcp` or `unix`."""
    address: str
    """IP address, or the path of a unix socket (`@name`: abstract)."""
    port: int = 0

    @property
    def private(self) -> bool:
        """Whether only this machine (tcp) or only its owner (unix) can connect.

        Connecting to a unix socket needs the right to write to it and to enter its folders.
        """
        if self.kind == "tcp":
            return ipaddress.ip_address(self.address).is_loopback
        if self.address.startswith("@"):
            return False
        path = Path(self.address)
        try:
            closed = not path.stat().st_mode & 0o022
            return closed or any(not folder.stat().st_mode & 0o011 for folder in path.parents)
        except FileNotFoundError:
            return True  # nobody can reach a removed one


def listeners(*roots: int) -> list[Listener]:
    """Every listening socket of these processes and of all that descend from them."""
    if not sys.platform.startswith("linux"):
        raise NotImplementedError("reads /proc")
    found = []
    for pid in sorted(tree(*roots)):
        inodes = _sockets(pid)
        command = _command(pid)
        for inode, kind, address, port in (*_tcp(pid), *_unix(pid)):
            if inode in inodes:
                found.append(
                    Listener(pid=pid, command=command, kind=kind, address=address, port=port)
                )
    return found


def tree(*roots: int) -> set[int]:
    """The processes and all their descendants; one whose parent died is nobody's descendant."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    members, grown = set(roots), True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return members


def _sockets(pid):
    inodes = set()
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return inodes
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80].strip()
    except OSError:
        return "?"


def _rows(path):
    try:
        return [line.split() for line in Path(path).read_text().splitlines()[1:]]
    except OSError:
        return []


def _tcp(pid):
    for name in ("tcp", "tcp6"):
        for row in _rows(f"/proc/{pid}/net/{name}"):
            if row[3] == LISTEN:
                digits, port = row[1].split(":")
                yield int(row[9]), "tcp", _address(digits), int(port, 16)


def _address(digits):
    """The kernel prints 32-bit words in the machine's byte order."""
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    text = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    return text.removeprefix("::ffff:") if "." in text else text


def _unix(pid):
    for row in _rows(f"/proc/{pid}/net/unix"):
        if int(row[3], 16) & ACCEPTING and row[4] == "0001" and len(row) > 7:
            yield int(row[6]), "unix", row[7], 0
