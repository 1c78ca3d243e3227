"""Keeps the fleet as somebody wished it: observes, decides by `reconcile`, acts, tells.

::

    control.desired ----> wanted --\
    fleet.ended, leases -> observed -- reconcile --> fleet.start / drain / kill, events

One supervisor decides; Ray's own restarts are off. It keeps nothing that cannot be found again:
after its death another one adopts the processes and reads the wish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deploy.fleet import Outcome, SupervisorSeams
from deploy.pending import Pending
from deploy.reconcile import (
    EVALUATOR,
    LEARNER,
    Action,
    Drain,
    Kill,
    Member,
    Observed,
    Phase,
    Rules,
    Start,
    Wanted,
    failures_in_a_row,
    reconcile,
)
from system.clock import Every
from system.control.protocol import Desired, Lease
from system.errors import DreamfleetError, RunError, Unavailable
from system.presence import Presence

REDIS = Member("redis", 0)
"""What happens to the embedded server is told as of a member."""
LEASE_TTL_S = 10.0
LOOK_S = 0.5
MAX_FAILURES = 8
"""Failures in a row, without a sign of life between, after which the run is given up."""
FINAL_EVALUATION_S = 600.0
"""Longest last evaluation [s]."""


class Supervisor:
    """One run's supervisor.

    The loop that uses it::

        while not supervisor.ended:
            supervisor.tick()
            clock.sleep(0.1)
        if supervisor.failure:
            raise UserError(supervisor.failure)
    """

    def __init__(
        self,
        seams: SupervisorSeams,
        rules: Rules,
        *,
        who: str,
        actors: int,
        stack_of: Callable[[Member], str] = lambda _: "",
    ) -> None:
        """Adopts what a supervisor before this one left running.

        Args:
          seams: what it looks at and acts on.
          rules: its patience.
          who: this process, for people.
          actors: how many to start if nobody has wished for a number.
          stack_of: where a member that fell silent is stuck, if that is known; asked once.
        """
        self._fleet, self._control, self._clock = seams.fleet, seams.control, seams.clock
        self._server, self._rules = seams.server, rules
        self._stack_of, self._pending = stack_of, Pending(seams.fleet, rules)
        self._presence = Presence(
            seams.control, seams.clock, role="supervisor", slot=0, who=who, lease_ttl_s=LEASE_TTL_S
        )
        self._observed: dict[Member, Observed] = {}
        self._holders: dict[Member, str] = {}
        self._dead: set[str] = set()
        self._desired = Desired(actors=actors)
        self._lives_on_own = actors == 0
        self._look_due, self._stopping = Every(LOOK_S), False
        self.finished = False
        """Whether the learner reached its frame limit."""
        self.failure = ""
        """Why the run was given up; empty if it was not."""
        now_s = self._clock.now()
        for member in self._fleet.adopt():
            self._observed[member] = Observed(phase=Phase.ALIVE, since_s=now_s)
            self._tell(member, "adopted", f"{member}, by a new supervisor")

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        if self.failure and not self._stopping:
            return True
        over = self.finished or self._stopping
        quiet = (Phase.ABSENT, Phase.FAILED)
        return over and all(seen.phase in quiet for seen in self._observed.values())

    def stop(self) -> None:
        """Drain, save, exit; works while Redis is away."""
        self._stopping = True

    def leave(self) -> None:
        """Tells what is untold, and gives the lease back."""
        self._presence.release()

    def tick(self) -> None:
        """One turn: look, decide, act."""
        now_s = self._clock.now()
        if self._look_due(now_s):
            self._keep_server()
            self._look(now_s)
        for member, how in self._fleet.ended().items():
            self._note_end(member, how, now_s)
        self._note_placed(now_s)
        self._cut_short(now_s)
        if not self.failure or self._stopping:
            wanted = self._wanted()
            self._fleet.ask_for(wanted.members)
            for action in reconcile(wanted, self._observed, now_s, self._rules):
                self._act(action, now_s)
        for member, reason in self._pending.news(self._wanted(), self._observed, now_s).items():
            self._tell(member, f"{member.role}_pending", reason)

    def _wanted(self) -> Wanted:
        """Order of an end: actors, then the learner they need to drain; evaluator at last."""
        acting = any(
            seen.phase in (Phase.ALIVE, Phase.DRAINING)
            for member, seen in self._observed.items()
            if member.role == "actor"
        )
        if self.finished:
            return Wanted(actors=0, learner=False, evaluator=acting and not self._stopping)
        if self._stopping:
            return Wanted(actors=0, learner=acting, evaluator=False)
        wish = self._desired
        return Wanted(
            actors=wish.actors,
            held=frozenset(wish.held),
            retired={int(slot): last for slot, last in wish.retired.items()},
        )

    def _keep_server(self) -> None:
        if self._server is None or self._server.alive():
            return
        self._tell(REDIS, "redis_died", "the embedded Redis does not answer; starting it")
        try:
            try:
                self._server.start()
            except RunError:
                self._server.restart()
        except DreamfleetError as error:
            self._tell(REDIS, "redis_down", str(error))
        else:
            self._tell(REDIS, "redis_restarted", "the embedded Redis answers again")

    def _look(self, now_s: float) -> None:
        """Reads the wish and the signs of life. While control is away, nobody counts as lost."""
        try:
            self._desired = self._remembered(self._control.desired())
            self._stopping = self._stopping or self._desired.stopping
            leases = self._control.leases()
            self._presence.say("draining" if self._stopping else "supervising", {})
        except Unavailable:
            for member, seen in self._observed.items():
                if seen.seen_s is not None:
                    self._observed[member] = replace(seen, seen_s=now_s)
                elif seen.placed_s is not None:
                    self._observed[member] = replace(seen, placed_s=now_s)
            return
        self._dead &= {lease.who for lease in leases}
        for lease in leases:
            self._note_lease(Member(lease.role, lease.slot), lease, now_s)

    def _note_placed(self, now_s: float) -> None:
        for member, seen in self._observed.items():
            waits = seen.phase is Phase.ALIVE and seen.seen_s is None and seen.placed_s is None
            if waits and self._fleet.placed(member):
                self._observed[member] = replace(seen, placed_s=now_s)

    def _cut_short(self, now_s: float) -> None:
        """Whoever asks to stop does not wait for a last evaluation."""
        seen = self._observed.get(EVALUATOR, Observed())
        if self._stopping and seen.phase is Phase.DRAINING and seen.since_s > now_s:
            self._fleet.drain(EVALUATOR, final=False)
            self._observed[EVALUATOR] = replace(seen, since_s=now_s)

    def _remembered(self, desired: Desired) -> Desired:
        """What is wished. A wiped store has forgotten it (generation 0): we have not."""
        if desired.generation > 0:
            return desired
        # In one write: half a wish, cut off here, would be taken for a new one.
        before = self._desired
        return self._control.change_desired(actors=before.actors, held=before.held)

    def _note_lease(self, member: Member, lease: Lease, now_s: float) -> None:
        seen = self._observed.get(member)
        if seen is None or lease.who in self._dead:
            return  # of the process before: leases outlive a kill for some seconds
        self._holders[member] = lease.who
        self._observed[member] = replace(seen, seen_s=now_s, incarnation=lease.incarnation)

    def _note_end(self, member: Member, how: Outcome, now_s: float) -> None:
        seen = self._observed.get(member, Observed())
        self._dead.add(self._holders.pop(member, ""))
        kind, text = how.kind, how.text
        spare = member.role == "actor" and self._lives_on_own
        if (kind == "refused" and not spare) or (kind == "fenced" and member == LEARNER):
            self._observed[member] = Observed(phase=Phase.FAILED, since_s=now_s, reason=text)
            self._give_up(
                member, text if kind == "refused" else f"another learner took over: {text}"
            )
            return
        self.finished = self.finished or (kind == "finished" and member == LEARNER)
        in_order = kind in ("finished", "drained") or seen.phase is Phase.DRAINING
        if in_order:
            self._observed[member] = Observed(since_s=now_s)
            return
        failures = failures_in_a_row(seen, now_s, raised=kind == "failed")
        self._observed[member] = Observed(
            phase=Phase.FAILED, since_s=now_s, failures=failures, reason=seen.reason or text
        )
        self._tell(member, f"{member.role}_died", f"{member}: {text}")
        vain = member == LEARNER or (member.role == "actor" and seen.seen_s is None)
        if vain and failures >= MAX_FAILURES:
            where = "its log is in the run's folder log/"
            self._give_up(member, f"{member} failed {failures} times in a row: {text}; {where}")

    def _give_up(self, member: Member, why: str) -> None:
        """Ends the run. What a living learner has learned is saved first."""
        self.failure = self.failure or why
        self._stopping = self._stopping or member != LEARNER

    def _act(self, action: Action, now_s: float) -> None:
        member = action.member
        seen = self._observed.get(member, Observed())
        match action:
            case Start(reason=reason):
                self._fleet.start(member)
                self._observed[member] = Observed(
                    phase=Phase.ALIVE, since_s=now_s, failures=seen.failures
                )
                if reason:
                    self._tell(member, f"{member.role}_restarted", f"{member} restarted; {reason}")
            case Drain(reason=reason):
                if reason:
                    self._tell(member, f"{member.role}_drained", f"{member}: {reason}")
                # Nobody reads what actors would send to a learner that is gone.
                final = self.finished and (member.role == "actor" or not self._stopping)
                self._fleet.drain(member, final=final)
                # An evaluator's grace begins when its last evaluation should be over.
                last_s = FINAL_EVALUATION_S if final and member == EVALUATOR else 0.0
                self._observed[member] = replace(seen, phase=Phase.DRAINING, since_s=now_s + last_s)
            case Kill(reason=reason):
                if stack := self._stack_of(member):
                    reason = f"{reason}; it was at\n{stack}"
                self._fleet.kill(member)
                self._observed[member] = replace(
                    seen, phase=Phase.KILLED, since_s=now_s, reason=reason
                )
                self._tell(member, f"{member.role}_killed", f"{member}: {reason}")

    def _tell(self, member: Member, kind: str, text: str) -> None:
        self._presence.tell(kind, text, role=member.role, slot=member.slot)
