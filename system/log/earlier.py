"""What an earlier life of a slot left on its shelf: finished before the next life claims."""

from __future__ import annotations

from system.clock import Clock
from system.errors import Fenced
from system.log.disk_spool import DiskShelf
from system.log.messages import decode_claim
from system.log.protocol import SlotLog
from system.log.spool import Spool, SpoolSetup
from system.log.writer import SlotWriter
from system.tick import Wait

UNLIMITED = 2**62


class EarlierLife:
    """Sends, under the old incarnation, what the store does not have; waits until all is durable.

    It is the old writer over the found spool, so nothing is stored twice and a wiped store is
    rebuilt. If somebody newer has the slot, what is left is kept for people (`fenced/`).

    The loop that uses it::

        while (left := earlier.tick()) is not None:
            clock.sleep(left.seconds)
        writer.try_claim()
    """

    def __init__(self, log: SlotLog, shelf: DiskShelf, *, slot: int, clock: Clock) -> None:
        """Reads the shelf; `log` is used by the next life's writer too, which closes it."""
        self._shelf = shelf
        self._writer: SlotWriter | None = None
        found = shelf.found()
        self.who = ""
        """`Claim.who` of the earlier life; "" if there was none."""
        if found is None:
            return
        claim = decode_claim(found.claim.payload)
        self.who = claim.who
        setup = SpoolSetup(spool_chunks=UNLIMITED, retain_bytes=UNLIMITED, shelf=shelf)
        self._writer = SlotWriter(
            log,
            slot=slot,
            claim=claim,
            spool=setup,
            clock=clock,
            found=Spool(found.claim, setup, found=found.chunks),
        )

    def tick(self) -> Wait | None:
        """Does the next thing; None when nothing is left."""
        writer = self._writer
        if writer is None or writer.settled:
            self._writer = None
            return None
        try:
            turn = writer.tick()
        except Fenced as error:
            self._shelf.keep_fenced(str(error))
            self._writer = None
            return None
        return turn if isinstance(turn, Wait) else Wait("earlier", 0.0)
