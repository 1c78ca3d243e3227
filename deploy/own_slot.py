"""Which slot an actor started by hand takes, and the spool folder that goes with it.

Slots of the fleet are 0, 1, ...; those of actors that nobody supervises begin at 1000. A slot whose
lease is alive belongs to that process, unless it was our own earlier life: then its spool folder is
here, unlocked, and names it. Of those who start at once, one gets the lease (`own_lease.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.own_lease import OwnLease
from system.control.protocol import FIRST_OWN_SLOT
from system.errors import ConfigError, RunError
from system.log.disk_spool import DiskShelf, OnEvent
from system.log.messages import decode_claim

SLOTS = 1000
"""Own slots that are looked through for a free one."""
_NUMBER = re.compile(r"[1-9][0-9]{3,8}")
"""Folder of an own slot; whatever else people keep beside it is theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolBudget:
    """How much a spool folder may hold."""

    max_bytes: int
    """On disk [bytes]."""
    memory_bytes: int
    """In memory, while the disk takes nothing [bytes]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSlot:
    """A slot that is ours to claim, and its folder, locked."""

    slot: int
    shelf: DiskShelf


def check_slot(slot: int) -> None:
    """Raises ConfigError for a slot of the supervised fleet."""
    if slot < FIRST_OWN_SLOT:
        raise ConfigError(
            f"--slot {slot} belongs to the supervised fleet (`dreamfleet scale`); use "
            f"{FIRST_OWN_SLOT} or more, or leave --slot out"
        )


def take_slot(
    slot: int | None, lease: OwnLease, folder: Path, budget: SpoolBudget, on_event: OnEvent
) -> OwnSlot:
    """The named slot, or the first free one; one whose spool holds something comes first.

    Args:
      slot: the one named; None looks for a free one.
      lease: to be taken.
      folder: spool folder of this run; each slot has its own inside.
      budget: of the spool.
      on_event: told what the shelf finds.

    Raises:
      ConfigError: the spool folder cannot be made.
      RunError: the slot is held, or its folder is in use.
      Unavailable: Redis does not answer.
    """

    def take(number: int) -> OwnSlot:
        shelf = DiskShelf(
            folder / str(number),
            slot=number,
            max_bytes=budget.max_bytes,
            memory_bytes=budget.memory_bytes,
            on_event=on_event,
        )
        try:
            if holder := lease.take(number, earlier=_earlier_who(shelf)):
                raise RunError(
                    f"slot {number} is held by {holder}; stop that actor, or choose another --slot"
                )
        except BaseException:
            shelf.close()
            raise
        return OwnSlot(slot=number, shelf=shelf)

    _make(folder)
    if slot is not None:
        check_slot(slot)
        return take(slot)
    held = lease.holders()
    for number in _candidates(folder):
        if number in held and not (folder / str(number)).exists():
            continue
        try:
            return take(number)
        except RunError:
            continue
    raise RunError(f"slots {FIRST_OWN_SLOT} to {FIRST_OWN_SLOT + SLOTS - 1} are all held")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"spool folder {folder} cannot be used: {error.strerror}; name another with --spool DIR"
        ) from error


def _candidates(folder: Path) -> Iterator[int]:
    names = {path.parent.name for path in folder.glob("[1-9]*/[1-9]*-[1-9]*")}
    yield from sorted(int(name) for name in names if _NUMBER.fullmatch(name))
    yield from range(FIRST_OWN_SLOT, FIRST_OWN_SLOT + SLOTS)


def _earlier_who(shelf: DiskShelf) -> str:
    found = shelf.found()
    return "" if found is None else decode_claim(found.claim.payload).who
