"""Who should run, who does, what to do about it. Pure: no Ray, no Redis, no sleeping.

::

    desired fleet --\
                     reconcile(..., now) -> [Start | Drain | Kill]
    observed ------/

A member is wanted, or it is not. Wanted and not alive: start it, after a pause that doubles with
every failure in a row. Wanted and silent for too long: kill it, and the next turn starts it again.
Not wanted and alive: drain it, then kill it when its grace is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import NamedTuple, TypeAlias

from deploy.config import FleetConfig

KILL_AGAIN_S = 20.0
"""How long an end may take to be confirmed before the kill is repeated [s]."""
STABLE_S = 5.0
"""A member that lived so long before it was killed has not failed in a row [s]."""
DRAINED_BY_HAND = "drained by hand"
RESTARTED_BY_HAND = "restarted by hand"
RAISED_STABLE_S = 60.0
"""The same if it failed by itself: restored, it may meet the cause again after some updates [s]."""


class Member(NamedTuple):
    """One place in the fleet."""

    role: str
    """`learner`, `evaluator` or `actor`."""
    slot: int

    def __str__(self) -> str:
        return f"{self.role} {self.slot}" if self.role == "actor" else self.role

    @property
    def file_name(self) -> str:
        """Begins the names of its files in the run's `log/`."""
        return str(self).replace(" ", "-")


LEARNER = Member("learner", 0)
EVALUATOR = Member("evaluator", 0)


class Phase(Enum):
    """What is known of a member."""

    ABSENT = "absent"
    """Never started, or ended in order."""
    ALIVE = "alive"
    DRAINING = "draining"
    KILLED = "killed"
    """Ended by us; its end is not confirmed yet."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """One member as last seen. Times are monotonic [s]."""

    phase: Phase = Phase.ABSENT
    since_s: float = 0.0
    """When this phase began."""
    placed_s: float | None = None
    """Since when it has a place on a machine; None while it waits for one."""
    seen_s: float | None = None
    """Last sign of life of this incarnation; None before the first."""
    incarnation: int = 0
    """As its lease says; 0 before it has claimed its slot."""
    failures: int = 0
    """Failures in a row, this one included."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The fleet as it should be now."""

    actors: int
    learner: bool = True
    evaluator: bool = True
    held: frozenset[int] = frozenset()
    """Slots that stay empty."""
    retired: Mapping[int, int] = field(default_factory=dict)
    """Slot -> its newest incarnation that is to end."""

    def __contains__(self, member: Member) -> bool:
        if member.role == "actor":
            return member.slot < self.actors and member.slot not in self.held
        return self.learner if member == LEARNER else self.evaluator

    @property
    def members(self) -> list[Member]:
        """Every wanted member; the learner first, since actors wait for its word."""
        members = [LEARNER] if self.learner else []
        slots = (slot for slot in range(self.actors) if slot not in self.held)
        members += [Member("actor", slot) for slot in slots]
        return members + ([EVALUATOR] if self.evaluator else [])


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How patient the supervisor is [s]."""

    lost_after_s: float
    start_after_s: float
    grace_s: float
    backoff_first_s: float
    backoff_longest_s: float

    @classmethod
    def of(cls, config: FleetConfig) -> Rules:
        """As configured."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Start:
    """Start a member; `reason` is empty the first time."""

    member: Member
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a member to finish, flush and exit; `reason` is empty if it is not wanted."""

    member: Member
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """End a member now."""

    member: Member
    reason: str


Action: TypeAlias = Start | Drain | Kill


def reconcile(
    wanted: Wanted, observed: Mapping[Member, Observed], now_s: float, rules: Rules
) -> list[Action]:
    """What to do now; at most one action for each member."""
    actions: list[Action] = []
    for member in wanted.members:
        seen = observed.get(member, Observed())
        if member.role == "actor" and _is_retired(seen, wanted.retired.get(member.slot, 0)):
            actions.append(Drain(member, RESTARTED_BY_HAND))
        else:
            actions += _for_wanted(member, seen, now_s, rules)
    for member in sorted(set(observed)):
        if member not in wanted:
            by_hand = member.role == "actor" and member.slot in wanted.held
            reason = DRAINED_BY_HAND if by_hand else ""
            actions += _for_unwanted(member, observed[member], now_s, rules, reason)
    return actions


def backoff_s(failures: int, rules: Rules) -> float:
    """Pause before the next start after so many failures in a row [s]."""
    if failures <= 0:
        return 0.0
    return min(rules.backoff_longest_s, rules.backoff_first_s * 2.0 ** min(failures - 1, 30))


def failures_in_a_row(before: Observed, now_s: float, *, raised: bool) -> int:
    """The count after one more failure of a member that was `before`."""
    stable_s = RAISED_STABLE_S if raised else STABLE_S
    stable = before.seen_s is not None and now_s - before.since_s >= stable_s
    return 1 if stable else before.failures + 1


def _for_wanted(member: Member, seen: Observed, now_s: float, rules: Rules) -> list[Action]:
    if seen.phase is Phase.ABSENT:
        return [Start(member)]
    if seen.phase is Phase.FAILED:
        due = now_s - seen.since_s >= backoff_s(seen.failures, rules)
        return [Start(member, seen.reason)] if due else []
    if seen.phase is Phase.ALIVE and (silence := _silence(seen, now_s, rules)):
        return [Kill(member, silence)]
    return _when_overdue(member, seen, now_s, rules)


def _is_retired(seen: Observed, last: int) -> bool:
    return seen.phase is Phase.ALIVE and 0 < seen.incarnation <= last


def _for_unwanted(
    member: Member, seen: Observed, now_s: float, rules: Rules, reason: str
) -> list[Action]:
    if seen.phase is Phase.ALIVE:
        return [Drain(member, reason)]
    return _when_overdue(member, seen, now_s, rules)


def _when_overdue(member: Member, seen: Observed, now_s: float, rules: Rules) -> list[Action]:
    if seen.phase is Phase.DRAINING and now_s - seen.since_s > rules.grace_s:
        return [Kill(member, f"not drained within {rules.grace_s:g} s")]
    if seen.phase is Phase.KILLED and now_s - seen.since_s > KILL_AGAIN_S:
        return [Kill(member, f"still there {KILL_AGAIN_S:g} s after it was killed")]
    return []


def _silence(seen: Observed, now_s: float, rules: Rules) -> str:
    """Why a member that should show signs of life is taken for lost; empty if it is not."""
    if seen.placed_s is None and seen.seen_s is None:
        return ""  # waiting for room is no silence
    if seen.seen_s is None:
        silent_s, limit_s = now_s - (seen.placed_s or 0.0), rules.start_after_s
    else:
        silent_s, limit_s = now_s - seen.seen_s, rules.lost_after_s
    return f"no sign of life for {silent_s:.0f} s" if silent_s > limit_s else ""
