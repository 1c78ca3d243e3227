"""Where the processes of one run meet: in memory, or in Redis."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from system.channel.memory import MemoryChannel
from system.channel.protocol import PolicyChannel
from system.channel.redis import RedisChannel
from system.clock import Clock, SystemClock
from system.control.memory import MemoryControl
from system.control.protocol import Control
from system.control.redis import RedisControl
from system.log.memory import MemoryLog
from system.log.redis import RedisLog


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the processes of one run meet."""

    log: MemoryLog | RedisLog
    channel: PolicyChannel
    control: Control
    clock: Clock


def memory_place() -> Place:
    """For one process."""
    clock = SystemClock()
    return Place(
        log=MemoryLog(), channel=MemoryChannel(), control=MemoryControl(clock), clock=clock
    )


def redis_place(url: str, run_id: str) -> Place:
    """For many; each process makes its own, connections are opened on first use."""
    return Place(
        log=RedisLog(url=url, run=run_id),
        channel=RedisChannel(url, run_id),
        control=RedisControl(url, run_id),
        clock=SystemClock(),
    )


def who() -> str:
    """`host:pid:life`: this process, told apart from a later one with the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
