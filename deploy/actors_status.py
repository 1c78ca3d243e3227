"""The actors of a run: wished, alive, and missing with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deploy.reconcile import DRAINED_BY_HAND
from system.control.protocol import FIRST_OWN_SLOT, Control, Desired, Event, Lease

STARTING = "starting"
_TOLD = {"actor_pending", "actor_died", "actor_restarted", "actor_killed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorsStatus:
    """Actor slots: as wished, alive, and missing with the reason."""

    desired: int = 0
    running: int = 0
    """Alive and past their start, those that drain included."""
    starting: int = 0
    pending: int = 0
    """Wanted, and neither running nor starting."""
    reasons: dict[str, str] = field(default_factory=dict)
    """slot -> why it is pending, or held."""
    held: int = 0
    """Wished, but kept empty by hand."""
    own: int = 0
    """Alive and started by hand; desired does not count them."""

    @property
    def settled(self) -> bool:
        """Whether the fleet is as wished."""
        wanted = self.desired - self.held
        return self.running == wanted and not self.starting and not self.pending

    def __str__(self) -> str:
        """For people."""
        text = f"desired {self.desired}, running {self.running}"
        text += f", starting {self.starting}, pending {self.pending}"
        for number, word in ((self.held, "drained by hand"), (self.own, "own")):
            text += f"; {number} {word}" if number else ""
        return text


def actors_of(control: Control, leases: Sequence[Lease]) -> ActorsStatus:
    """Compares the wish with the leases. Raises Unavailable."""
    wish = control.desired()
    missing = _missing(wish, leases)
    events = control.events(last=50 + 4 * len(missing)) if missing else []
    return actors_from(wish, leases, events)


def actors_from(wish: Desired, leases: Sequence[Lease], events: Iterable[Event]) -> ActorsStatus:
    """The same from what was read. Pure.

    Args:
      wish: the fleet somebody asked for.
      leases: of every process.
      events: the newest ones, oldest first.
    """
    doing = {lease.slot: lease.doing for lease in leases if lease.role == "actor"}
    alive = {slot for slot in doing if slot < FIRST_OWN_SLOT}
    missing, held = _missing(wish, leases), _held(wish)
    told = _last_words(events)
    pending = {str(slot): told[slot] for slot in missing if slot in told}
    starting = sum(doing[slot] == STARTING for slot in alive)
    return ActorsStatus(
        desired=wish.actors,
        running=len(alive) - starting,
        starting=starting + len(missing) - len(pending),
        pending=len(pending),
        reasons=pending | {str(slot): DRAINED_BY_HAND for slot in held if slot not in alive},
        held=len(held),
        own=len(doing) - len(alive),
    )


def _held(wish: Desired) -> list[int]:
    return [slot for slot in wish.held if slot < wish.actors]


def _missing(wish: Desired, leases: Sequence[Lease]) -> list[int]:
    """Slots that somebody wants and nobody has."""
    alive = {lease.slot for lease in leases if lease.role == "actor"}
    return [slot for slot in range(wish.actors) if slot not in alive and slot not in wish.held]


def _last_words(events: Iterable[Event]) -> dict[int, str]:
    """Slot -> why its actor is not there; none of one that was just started again."""
    newest = {event.slot: event for event in events if event.kind in _TOLD}
    return {
        slot: event.text.partition("\n")[0]
        for slot, event in newest.items()
        if event.kind != "actor_restarted"
    }
