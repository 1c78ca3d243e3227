"""What a supervisor looks at and acts on: processes, control, and the server it keeps alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.place import Place, RedisUrls, redis_place
from deploy.reconcile import Member
from deploy.run_folder import RunRecord
from system.clock import Clock
from system.control.protocol import Control


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a process ended."""

    kind: str
    """In order: `finished`, `drained`, `fenced` or `refused` (a mistake of the user: restarting is
    vain). Not in order: `failed` (it raised) or `died` (it is gone)."""
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a process is told; can be sent to another machine."""

    record: RunRecord
    folder: str
    redis: RedisUrls
    """With the credentials of learner, evaluator and supervisor."""
    actor_redis: RedisUrls
    """With those of an actor, which may do less."""

    def place(self, role: str) -> Place:
        """Where a process of this role meets the others."""
        urls = self.actor_redis if role == "actor" else self.redis
        return redis_place(urls, self.record.run_id)


class Fleet(Protocol):
    """The processes, however they are run."""

    def adopt(self) -> Sequence[Member]:
        """Takes over the processes that a supervisor before this one started; returns whose."""
        ...

    def start(self, member: Member) -> None:
        """Starts a process; returns at once."""
        ...

    def drain(self, member: Member, *, final: bool) -> None:
        """Asks a process to finish; `final`: the run is over, so only the last policy counts."""
        ...

    def kill(self, member: Member) -> None:
        """Ends a process at once, even one that is stopped or stuck."""
        ...

    def ended(self) -> dict[Member, Outcome]:
        """Processes that ended since the last call."""
        ...

    def placed(self, member: Member) -> bool:
        """Whether a started process has a place on a machine."""
        ...

    def why_pending(self, member: Member) -> str:
        """Why a started process shows no sign of life yet."""
        ...

    def ask_for(self, members: Sequence[Member]) -> None:
        """Tells whoever adds machines what the whole fleet needs; an empty one needs nothing."""
        ...


class Server(Protocol):
    """The embedded Redis, as far as it is supervised."""

    def alive(self) -> bool:
        """Whether it answers."""
        ...

    def start(self) -> None:
        """Starts it on its files, unless it runs."""
        ...

    def restart(self) -> None:
        """Stops what runs and starts again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorSeams:
    """What a supervisor looks at and acts on."""

    fleet: Fleet
    control: Control
    clock: Clock
    server: Server | None = None
    """The embedded Redis; None if the server is not ours to start."""
