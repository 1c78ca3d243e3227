"""How a wish about the fleet changes. Pure: memory and Redis decide alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from system.control.protocol import FIRST_OWN_SLOT, Desired, SlotAction
from system.errors import ConfigError


def changed(
    desired: Desired,
    *,
    actors: int | None,
    delta: int,
    stopping: bool | None,
    held: Sequence[int] | None,
) -> Desired:
    """`desired` with the given parts replaced; a new generation only if something differs.

    Raises:
      ConfigError: more actors than there are supervised slots.
    """
    wanted = max(0, (desired.actors if actors is None else actors) + delta)
    if wanted > FIRST_OWN_SLOT:
        raise ConfigError(
            f"actors={wanted} must be at most {FIRST_OWN_SLOT}: the slots above belong to actors "
            "started by hand"
        )
    kept = desired.held if held is None else held
    wish = replace(
        desired,
        actors=wanted,
        stopping=desired.stopping if stopping is None else stopping,
        held=sorted(slot for slot in set(kept) if slot < wanted),
        retired={slot: last for slot, last in desired.retired.items() if int(slot) < wanted},
    )
    return _counted(desired, wish)


def asked(desired: Desired, slot: int, action: SlotAction, incarnation: int) -> Desired:
    """`desired` with another wish about one slot.

    Args:
      desired: what was wished before.
      slot: of an actor.
      action: what is to become of it, see `Control.ask_slot`.
      incarnation: that lives in the slot now; 0 if none does.

    Raises:
      ConfigError: the slot is not one of the wished fleet, or the action is none.
    """
    if action not in get_args(SlotAction):
        raise ConfigError(f"action={action!r} must be one of {', '.join(get_args(SlotAction))}")
    if not 0 <= slot < desired.actors:
        raise ConfigError(
            f"slot={slot} is not one of the {desired.actors} slots of the fleet; more are there "
            f"after: dreamfleet scale {max(slot, 0) + 1}"
        )
    held = set(desired.held) - {slot}
    retired = dict(desired.retired)
    if action == "drain":
        held.add(slot)
    elif action == "restart":
        retired[str(slot)] = max(incarnation, retired.get(str(slot), 0))
    return _counted(desired, replace(desired, held=sorted(held), retired=retired))


def _counted(before: Desired, wish: Desired) -> Desired:
    return before if wish == before else replace(wish, generation=before.generation + 1)
