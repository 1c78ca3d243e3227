"""Where the processes of one run meet: in memory, or in Redis."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from system.channel.memory import MemoryChannel
from system.channel.node_cache import NodeCache
from system.channel.protocol import SAFE, PolicyChannel
from system.channel.redis import RedisChannel
from system.clock import Clock, SystemClock
from system.control.memory import MemoryControl
from system.control.protocol import Control
from system.control.redis import RedisControl
from system.log.memory import MemoryLog
from system.log.redis import RedisLog
from system.redis_client import without_password

REPLY_TIMEOUT_S = 3.0
"""Longest wait for one reply, for those who only look [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RedisUrls:
    """The servers of one run, by role; see `system.keys` for what lies where."""

    control: str
    """Notices, policies, leases, metrics, events, wishes."""
    data: str = ""
    """The Chunks; empty becomes the same server."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.data or self.control)

    def __repr__(self) -> str:
        control, data = without_password(self.control), without_password(self.data)
        return f"RedisUrls({control=}, {data=})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the processes of one run meet."""

    log: MemoryLog | RedisLog
    channel: PolicyChannel
    safe: PolicyChannel
    """Promoted policies, for robots."""
    control: Control
    clock: Clock


def memory_place() -> Place:
    """For one process."""
    clock = SystemClock()
    return Place(
        log=MemoryLog(),
        channel=MemoryChannel(),
        safe=MemoryChannel(name=SAFE),
        control=MemoryControl(clock),
        clock=clock,
    )


def redis_place(urls: RedisUrls, run_id: str) -> Place:
    """For many; each process makes its own, connections are opened on first use.

    Raises:
      UserError: a URL cannot be understood.
    """
    cache = NodeCache()
    return Place(
        log=RedisLog(url=urls.data, run=run_id, control_url=urls.control),
        channel=RedisChannel(urls.control, run_id, cache=cache),
        safe=RedisChannel(urls.control, run_id, name=SAFE, cache=cache),
        control=RedisControl(urls.control, run_id),
        clock=SystemClock(),
    )


def who() -> str:
    """`host:pid:life`: this process, told apart from a later one with the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
