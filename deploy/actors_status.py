"""The actors of a run: wished, alive, and missing with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from system.control.protocol import FIRST_OWN_SLOT, Control, Event, Lease

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
    """slot -> why it is pending."""
    own: int = 0
    """Alive and started by hand; desired does not count them."""

    @property
    def settled(self) -> bool:
        """Whether the fleet is as wished."""
        return self.running == self.desired and not self.starting and not self.pending

    def __str__(self) -> str:
        """For people."""
        text = f"desired {self.desired}, running {self.running}"
        text += f", starting {self.starting}, pending {self.pending}"
        return text + (f"; {self.own} own" if self.own else "")


def actors_of(control: Control, leases: list[Lease]) -> ActorsStatus:
    """Compares the wish with the leases. Raises Unavailable."""
    desired = control.desired().actors
    doing = {lease.slot: lease.doing for lease in leases if lease.role == "actor"}
    alive = {slot for slot in doing if slot < FIRST_OWN_SLOT}
    missing = [slot for slot in range(desired) if slot not in alive]
    told = _last_words(control.events(last=50 + 4 * len(missing))) if missing else {}
    reasons = {str(slot): told[slot] for slot in missing if slot in told}
    starting = sum(doing[slot] == STARTING for slot in alive)
    return ActorsStatus(
        desired=desired,
        running=len(alive) - starting,
        starting=starting + len(missing) - len(reasons),
        pending=len(reasons),
        reasons=reasons,
        own=len(doing) - len(alive),
    )


def _last_words(events: list[Event]) -> dict[int, str]:
    """Slot -> why its actor is not there; none of one that was just started again."""
    newest = {event.slot: event for event in events if event.kind in _TOLD}
    return {
        slot: event.text.partition("\n")[0]
        for slot, event in newest.items()
        if event.kind != "actor_restarted"
    }
