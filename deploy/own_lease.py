"""The lease of an actor started by hand: taken before anything is built, so that no two build."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from system.clock import Clock
from system.control.protocol import Control, Lease
from system.errors import Unavailable

ROLE = "actor"
RENEWALS = 3
"""How often a lease is renewed before it would expire."""


class OwnLease:
    """Takes a slot among those who ask at once, and keeps it until the actor itself does.

    The calls that use it::

        lease = OwnLease(control, clock, who=who, ttl_s=10.0)
        own = take_slot(None, lease, folder, budget, tell)
        with lease.kept(own.slot):
            actor = build_actor(...)       # from now on its heartbeats renew the lease
    """

    def __init__(self, control: Control, clock: Clock, *, who: str, ttl_s: float) -> None:
        """Touches nothing yet; `ttl_s` is how long the lease outlives its last renewal [s]."""
        self._control, self._clock = control, clock
        self._who, self._ttl_s = who, ttl_s

    def holders(self) -> set[int]:
        """Slots that are held just now. Raises Unavailable."""
        return {lease.slot for lease in self._control.leases() if lease.role == ROLE}

    def take(self, slot: int, *, earlier: str) -> str:
        """Takes the slot; returns "", or who holds it and what that does. Raises Unavailable.

        Args:
          slot: the slot.
          earlier: `who` of our earlier life, whose lease may still be there; "" if there was none.
        """
        lease = self._lease(slot)
        if self._control.take(lease, ttl_s=self._ttl_s):
            return ""
        for held in self._control.leases():
            if (held.role, held.slot) == (ROLE, slot) and held.who != earlier:
                return f"{held.who} ({held.doing})"
            if (held.role, held.slot) == (ROLE, slot):
                self._control.renew(lease, ttl_s=self._ttl_s)
                return ""
        return "" if self._control.take(lease, ttl_s=self._ttl_s) else "another process"

    @contextlib.contextmanager
    def kept(self, slot: int) -> Iterator[None]:
        """Renews it meanwhile; gives it back if what was to be built cannot be."""
        over = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(slot, over), daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            over.set()
            thread.join()
            with contextlib.suppress(Unavailable):
                self._control.release(ROLE, slot)
            raise
        over.set()
        thread.join()

    def _renew_until(self, slot: int, over: threading.Event) -> None:
        while not over.wait(self._ttl_s / RENEWALS):
            with contextlib.suppress(Unavailable):
                self._control.renew(self._lease(slot), ttl_s=self._ttl_s)

    def _lease(self, slot: int) -> Lease:
        return Lease(
            role=ROLE, slot=slot, incarnation=0, who=self._who, doing="starting",
            time_s=self._clock.wall(),
        )  # fmt: skip
