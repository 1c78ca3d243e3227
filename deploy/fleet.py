"""What a supervisor looks at and acts on: processes, control, and the server it keeps alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from deploy.processes import Outcome
from deploy.reconcile import Member
from system.clock import Clock
from system.control.protocol import Control


class Fleet(Protocol):
    """The processes, however they are run."""

    def start(self, member: Member) -> None:
        """Starts a process; returns at once."""
        ...

    def drain(self, member: Member, *, final: bool) -> None:
        """Asks a process to finish; `final`: the run is over, so only the last policy counts."""
        ...

    def kill(self, member: Member) -> None:
        """Ends a process at once."""
        ...

    def ended(self) -> dict[Member, Outcome | str]:
        """Processes that ended since the last call; a text says how one failed."""
        ...

    def why_pending(self, member: Member) -> str:
        """Why a started process shows no sign of life yet."""
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
