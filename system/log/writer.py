"""The actor's end of the log as a protocol: nothing acknowledged is lost, nothing is stored twice.

::

    writer = SlotWriter(log, slot=3, claim=claim, spool=setup, clock=clock)
    incarnation = writer.try_claim()             # int, or Wait: tick again later
    while acting:
        if not writer.full:
            writer.offer(chunk)                  # ids <incarnation>-1, -2, ... without gaps
        writer.tick()                            # Progress | Wait; at most a few commands

One append is in flight at a time, so a failed one is never overtaken. What a reply means:

    acknowledged   received: retained until a notice says durable
    refused        look at the stream's last id: ours and >= this one = stored, its reply was lost;
                   a newer incarnation = Fenced, nothing is sent any more
    missing        the store was wiped: claim and retained Chunks are sent again, in order
    unavailable    nothing is known: look at the last id first, send again what the store lost

A wiped stream is only made again once the learner has spoken in the new store and has not named a
newer incarnation. Otherwise a forgotten process could rebuild it, and the slot's holder, whose
next append would then succeed, would never learn that its tail was lost.

With a shelf that outlives the process, a next life first finishes what lies there: a writer over
the found spool, ticked until it is `settled`, before another one claims (`earlier.py`).
"""

from __future__ import annotations

from system.clock import Clock
from system.codec import encode_chunk
from system.errors import Fenced, Unavailable
from system.log.counters import WriterCounters
from system.log.messages import encode_claim
from system.log.protocol import AppendReply, Claim, SlotLog, SlotNotice
from system.log.rules import Backoff, fenced_by, has_credit, next_incarnation
from system.log.spool import Item, Spool, SpoolSetup
from system.tick import Progress, Wait
from system.types import Chunk, EntryId

NOTICE_INTERVAL_S = 0.05
NOTICE_RARITY = 4
"""It is asked for again after so many times what it took."""
CREDIT_WAIT_S = 0.02
LEARNER_WAIT_S = 0.2
PROBE_INTERVAL_S = 1.0
CLAIM_WAIT_S = 0.01


class SlotWriter:
    """Writes one slot's Chunks. Single-threaded; `incarnation` is None before the claim."""

    def __init__(
        self,
        log: SlotLog,
        *,
        slot: int,
        claim: Claim,
        spool: SpoolSetup,
        clock: Clock,
        found: Spool | None = None,
    ) -> None:
        """Touches nothing yet.

        Args:
          log: raw commands on the slot's stream; owned, closed by `close`.
          slot: the slot's number.
          claim: who we are; `who` must differ between lives of a process.
          spool: when the writer is full, and where its Chunks lie.
          clock: for notices and pauses.
          found: what an earlier life left there, to be finished as if it lived; None claims anew.
        """
        self.incarnation = None if found is None else found.claim.entry_id.incarnation
        self._log = log
        self._slot = slot
        self._claim = claim
        self._setup = spool
        self._clock = clock
        self._backoff = Backoff()
        self._spool = found
        self._said = SlotNotice()
        self._learner_speaks = False
        self._notice_due_s = float("-inf")
        self._retry_due_s = float("-inf")
        self._probe_due_s = float("-inf")
        self._sure = found is None
        self._wiped = False
        self._fenced: str | None = None
        self.counters = WriterCounters()

    def try_claim(self) -> int | Wait:
        """Takes the slot: returns our incarnation, or what is missing. Call until it is an int."""
        if self.incarnation is not None:
            return self.incarnation
        now_s = self._clock.now()
        if now_s < self._retry_due_s:
            return self._wait("redis", self._retry_due_s - now_s)
        try:
            return self._try_claim(now_s)
        except Unavailable:
            return self._pause(now_s)

    def offer(self, chunk: Chunk, *, beyond: bool = False) -> None:
        """Encodes a sealed Chunk and takes charge of it; `beyond`: even if the writer is full.

        Raises:
          ValueError: the writer is `full`, the Chunk is not the next one, or cannot be encoded.
        """
        spool = self._claimed()
        if chunk.slot != self._slot:
            raise ValueError(f"chunk of slot {chunk.slot} offered to slot {self._slot}")
        spool.check_offer(chunk.entry_id, beyond=beyond)  # before the work of encoding
        spool.offer(Item(entry_id=chunk.entry_id, payload=encode_chunk(chunk)), beyond=beyond)

    def tick(self) -> Progress | Wait:
        """Does the next thing: refresh the notice, reconcile, or append one entry.

        Raises:
          Fenced: a newer incarnation holds the slot.
        """
        spool = self._claimed()
        if self._fenced is not None:
            raise Fenced(self._fenced)
        now_s = self._clock.now()
        spool.tend(now_s)
        if now_s < self._retry_due_s:
            return self._wait("redis", self._retry_due_s - now_s)
        try:
            self._refresh_notice(spool, now_s)
            return self._send(spool, now_s) if self._sure else self._reconcile(spool)
        except Unavailable:
            self._sure = False
            return self._pause(now_s)
        except Fenced as error:
            self._fenced = str(error)
            raise

    @property
    def full(self) -> bool:
        """Whether the actor must wait before it offers: spool full, or too much not durable."""
        return self._claimed().full

    @property
    def fill(self) -> float:
        """How full the shelf is; acting should pause where it can before 1 is reached [ratio]."""
        return self._claimed().fill

    @property
    def pending(self) -> int:
        """Chunks offered and not received."""
        return self._claimed().num_waiting

    @property
    def drained(self) -> bool:
        """Whether the store has everything that was offered."""
        return self._sure and self.pending == 0

    @property
    def settled(self) -> bool:
        """Whether everything offered is durable: not even a wiped store can lose it."""
        return self._claimed().num_retained == 0

    @property
    def retained_bytes(self) -> int:
        """Received, kept until durable [bytes]."""
        return self._claimed().retained_bytes

    @property
    def given_up(self) -> dict[str, int]:
        """Chunks that will never be sent, by reason: `thinned`, `damaged`."""
        return dict(self._claimed().counts)

    def close(self) -> None:
        """Releases the connection; in memory, what is not `drained` is lost with the process."""
        self._log.close()

    def _try_claim(self, now_s: float) -> int | Wait:
        notice = self._log.notice()
        if notice is None:
            return self._wait("learner", LEARNER_WAIT_S)
        incarnation = next_incarnation(self._slot, self._log.last_id(), notice)
        item = Item(entry_id=EntryId(incarnation, 0), payload=encode_claim(self._claim))
        if self._log.append(item.entry_id, item.payload, create=True) is AppendReply.REFUSED:
            return self._wait("claim", CLAIM_WAIT_S)
        self._spool = Spool(item, self._setup)
        self.incarnation = incarnation
        self._probe_due_s = now_s + PROBE_INTERVAL_S
        self._backoff.succeeded()
        return incarnation

    def _refresh_notice(self, spool: Spool, now_s: float) -> None:
        if now_s < self._notice_due_s and not self._out_of_credit(spool):
            return
        notice = self._log.notice()
        after_s = self._clock.now()  # over a slow link, most calls should be appends
        self._notice_due_s = after_s + max(NOTICE_INTERVAL_S, NOTICE_RARITY * (after_s - now_s))
        self._learner_speaks = notice is not None
        said = notice.slots.get(self._slot) if notice is not None else None
        if said is None:
            return  # a wiped store: what the learner said before still holds
        if reason := fenced_by(said, incarnation=spool.expect().incarnation, who=self._claim.who):
            raise Fenced(reason)
        self._said = said
        spool.forget(said.durable)

    def _reconcile(self, spool: Spool) -> Progress:
        last_id = self._log.last_id()
        self.counters.duplicates += max(0, spool.reconcile(last_id))
        self._sure = True
        self._backoff.succeeded()
        return Progress("reconciled") if last_id is not None else self._note_wipe(spool)

    def _send(self, spool: Spool, now_s: float) -> Progress | Wait:
        nothing = spool.head_id() is None
        if nothing or self._out_of_credit(spool):
            return self._probe(spool, now_s, "data" if nothing else "credit")
        if self._wiped and not self._learner_speaks:
            return self._wait("learner", LEARNER_WAIT_S)
        again, item = spool.head_is_again(), spool.head()
        if item is None:
            return Progress("damaged")
        reply = self._log.append(item.entry_id, item.payload, create=self._wiped)
        self._backoff.succeeded()
        if reply is AppendReply.REFUSED:
            self._sure, self._wiped = False, False
            return Progress("refused")
        if reply is AppendReply.MISSING:
            return self._note_wipe(spool)
        if spool.head_id() == item.entry_id:  # not given up on its way
            spool.received()
        self._wiped = False
        self._probe_due_s = now_s + PROBE_INTERVAL_S
        self._count(item, again=again)
        return Progress("appended")

    def _probe(self, spool: Spool, now_s: float, reason: str) -> Progress | Wait:
        """Nothing to send: looks now and then whether the store was wiped under a live connection.

        The claim, which the store has, makes the question cheap: its refusal is the good answer.
        """
        if now_s < self._probe_due_s:
            return self._wait(reason, CREDIT_WAIT_S)
        self._probe_due_s = now_s + PROBE_INTERVAL_S
        claim = spool.claim
        reply = self._log.append(claim.entry_id, claim.payload, create=False)
        if reply is AppendReply.MISSING:
            return self._note_wipe(spool)
        if reply is AppendReply.ACKNOWLEDGED:
            self._sure = False  # the stream had lost it, and what else?
        return self._wait(reason, CREDIT_WAIT_S)

    def _note_wipe(self, spool: Spool) -> Progress:
        spool.reconcile(None)
        self._wiped = True
        self._notice_due_s = float("-inf")  # the learner's words must be from the new store
        return Progress("wiped")

    def _out_of_credit(self, spool: Spool) -> bool:
        if spool.head_id() is None or spool.head_is_again():
            return False
        incarnation = spool.claim.entry_id.incarnation
        return not has_credit(self._said, incarnation=incarnation, num_received=spool.num_received)

    def _count(self, item: Item, *, again: bool) -> None:
        self.counters.bytes_sent += len(item.payload)
        if item.entry_id.sequence > 0:
            self.counters.reappended += again
            self.counters.appended += not again

    def _claimed(self) -> Spool:
        assert self._spool is not None, "call try_claim until it returns an incarnation"
        return self._spool

    def _pause(self, now_s: float) -> Wait:
        pause_s = self._backoff.failed()
        self._retry_due_s = now_s + pause_s
        return self._wait("redis", pause_s)

    def _wait(self, reason: str, seconds: float) -> Wait:
        self.counters.waits[reason] += 1
        return Wait(reason, seconds)
