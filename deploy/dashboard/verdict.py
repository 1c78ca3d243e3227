"""Two answers for one look: is it learning, is it healthy? Pure.

*Learning* compares evaluations: the mean of the last third with that of the first third. The noise
of one evaluation is the greater of two estimates of its variance v: what its episodes say (mean of
std^2 / episodes), and what neighbours say, whose squared differences have the median 2 v 0.455 if
there is noise alone; neither a slow trend nor a jump moves that much. A gain counts if it exceeds
two standard errors of a difference of two means of k evaluations each: 2 sqrt(2 v / k).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from deploy.actors_status import ActorsStatus
from deploy.dashboard.curve import CurvePoint
from system.control.protocol import Event

LEAST_EVALUATIONS = 4
"""Fewer say nothing."""
PATIENCE = 8
"""Evaluations without a gain after which the answer is no, not: too early."""
ERRORS = 2.0
"""Standard errors that a gain must exceed."""
MEDIAN_OF_CHI2 = 0.4549
"""Of the square of a standard normal number."""
RECENT_S = 300.0
"""An event is news for so long [s]."""
OLD_POLICY_S = 60.0
"""Actors should act with something newer [s]."""

GRAVE = {
    "not_finite": "training diverged: a weight is not finite, the last good checkpoint stays",
    "disk_full": "the disk of the run folder is full",
}
WORRYING = {
    "learner_died": "the learner died and was started again",
    "learner_killed": "the learner fell silent and was started again",
    "actor_died": "an actor died and was started again",
    "actor_killed": "an actor fell silent and was started again",
    "evaluator_died": "the evaluator died and was started again",
    "redis_died": "the embedded Redis died and was started again",
    "chunk_rejected": "Chunks were rejected as invalid",
    "environment_hang": "an environment hung and was rebuilt",
    "environment_died": "an environment died and was rebuilt",
    "segment_damaged": "a segment of the replay is damaged",
    "checkpoint_damaged": "a checkpoint is damaged, the one before was used",
    "spool_full": "a robot's spool is full",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Learning:
    """Whether it gets better."""

    answer: Literal["yes", "no", "early", "unknown"]
    text: str
    """One plain sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether something is wrong."""

    answer: Literal["yes", "warn", "no"]
    text: str
    """One plain sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signs:
    """What health is judged by."""

    alive: bool
    ended: str
    """How the run came to rest; empty while it runs."""
    trouble: str
    """Why the last look failed; empty if it did not."""
    actors: ActorsStatus
    learner_up: bool | None
    """None: not known."""
    events: Sequence[Event]
    gap_alarm: bool
    """Whether dreams promise another return than reality brings; not while they are young."""
    policy_age_s: float | None
    """Of the policy that acts [s]."""
    now_s: float
    """Unix time [s]."""


def learning_of(evaluations: Sequence[CurvePoint]) -> Learning:
    """Judges evaluations, given by growing frames."""
    means = [point.mean for point in evaluations if point.mean is not None]
    if not means:
        return Learning(answer="unknown", text="no evaluation yet")
    if len(means) < LEAST_EVALUATIONS:
        return Learning(
            answer="early",
            text=f"{len(means)} of {LEAST_EVALUATIONS} evaluations needed; last return "
            f"{_shown(means[-1])}",
        )
    size = len(means) // 3
    first, last = sum(means[:size]) / size, sum(means[-size:]) / size
    best = max(sum(means[at : at + size]) / size for at in range(len(means) - size + 1))
    error = ERRORS * math.sqrt(2 * variance_of_one(evaluations) / size)
    if last - first > error:
        fell = best - last > error
        text = f"return rose from {_shown(first)} to {_shown(last)}"
        return Learning(answer="yes", text=text + (f"; it was {_shown(best)}" if fell else ""))
    if best - first > error:
        return Learning(
            answer="no", text=f"return rose from {_shown(first)} to {_shown(best)} and fell back "
            f"to {_shown(last)}",
        )  # fmt: skip
    if len(means) < PATIENCE:
        return Learning(answer="early", text=f"no clear gain yet: return {_shown(last)}")
    return Learning(
        answer="no",
        text=f"return {_shown(last)} is not above the first {_shown(first)} beyond the noise",
    )


def variance_of_one(evaluations: Sequence[CurvePoint]) -> float:
    """Variance of one evaluation's mean return."""
    told = [
        point.std**2 / max(point.episodes or 1, 1) for point in evaluations if point.std is not None
    ]
    means = [point.mean for point in evaluations if point.mean is not None]
    squares = [(after - before) ** 2 for before, after in pairwise(means)]
    neighbours = statistics.median(squares) / (2 * MEDIAN_OF_CHI2) if squares else 0.0
    return max(sum(told) / len(told) if told else 0.0, neighbours)


def health_of(signs: Signs) -> Health:
    """The worst that is known, in a sentence."""
    if not signs.alive:
        good = signs.ended in ("finished", "stopped")
        word = signs.ended or "not running"
        bad = word.startswith(("failed", "lost"))
        return Health(
            answer="yes" if good else "no" if bad else "warn",
            text=f"the run has {word}" if good else f"the run is not running: {word}",
        )
    recent = {event.kind: event for event in signs.events if signs.now_s - event.time_s < RECENT_S}
    for kind, text in GRAVE.items():
        if kind in recent and not _mended(kind, recent):
            return Health(answer="no", text=text)
    for worry in _worries(signs):
        return Health(answer="warn", text=worry)
    for kind, text in WORRYING.items():
        if kind in recent:
            return Health(answer="warn", text=text)
    return Health(answer="yes", text="every process is well")


def _worries(signs: Signs) -> list[str]:
    """What is wrong now, the worst first."""
    actors = signs.actors
    old = signs.policy_age_s is not None and signs.policy_age_s > OLD_POLICY_S
    slot, why = next(iter(actors.reasons.items()), ("", ""))
    checks = {
        f"these figures are old: {signs.trouble}": bool(signs.trouble),
        "the learner is not there": signs.learner_up is False,
        f"{actors.pending} of {actors.desired} actors are missing; actor {slot}: {why}":
            actors.pending > 0,
        "the dream promises another return than reality brings": signs.gap_alarm,
        f"actors act with a policy {signs.policy_age_s or 0:.0f} s old": old,
    }  # fmt: skip
    return [text for text, holds in checks.items() if holds]


def _mended(kind: str, recent: dict[str, Event]) -> bool:
    room = recent.get("disk_has_room")
    return kind == "disk_full" and room is not None and room.time_s >= recent[kind].time_s


def _shown(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
