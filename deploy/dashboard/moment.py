"""One run at one moment, as the page shows it: plain data for the event `now`. Pure.

::

    Glance, RunView, rates, evaluations, DreamReport -> Moment -> now_of -> {"progress": ...}

`None` is "not known". Every number is finite; texts that others wrote are cut, never interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.actors_status import ActorsStatus, actors_from
from deploy.dashboard.curve import CurvePoint
from deploy.dashboard.fleet_rows import fleet_rows
from deploy.dashboard.plain import cut, finite, known, number_of, text_of
from deploy.dashboard.slow import slow_of
from deploy.dashboard.source import Glance
from deploy.dashboard.verdict import LEAST_EVALUATIONS, Signs, health_of, learning_of
from deploy.exporter.merge import RunView
from system.control.protocol import Event
from system.dream import DreamReport

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Everything that is known."""

    run_id: str
    name: str
    config: Json
    """Plain data; of any version."""
    glance: Glance
    view: RunView
    rates: Mapping[str, float]
    """What grows -> how fast [1/s]: `frames`, `updates`, `actor:<slot>`."""
    evaluations: list[CurvePoint]
    """By growing frames."""
    events: list[Event]
    """The newest, oldest first."""
    dream: DreamReport | None = None
    """The newest."""
    time_s: float
    """Unix time of the last look that succeeded [s]."""
    trouble: str = ""
    """Why the last look failed; empty if it did not."""
    scalable: bool = True
    """Whether its actors can be scaled: not those of one process."""


def now_of(moment: Moment) -> Json:
    """The event `now`."""
    glance = moment.glance
    ended = "" if glance.alive else glance.ended or "not running"
    actors = _actors(moment)
    health = _health(moment)
    return {
        "time_s": moment.time_s,
        "run": {
            "id": moment.run_id,
            "name": moment.name,
            "env": text_of(moment.config, "env", "name"),
            "preset": text_of(moment.config, "preset"),
            "size": text_of(moment.config, "model", "size"),
            "phase": "running" if glance.alive else ended,
            "alive": glance.alive,
            "ended": ended,
        },
        "progress": _progress(moment),
        "verdict": _verdict(moment, actors, gap_alarm=bool(health["gap_alarm"])),
        "fleet": {
            "desired": actors.desired,
            "running": actors.running,
            "starting": actors.starting,
            "pending": actors.pending,
            "rows": fleet_rows(
                moment.view, glance.look, actors, moment.rates,
                env=text_of(moment.config, "env", "name"), scalable=moment.scalable,
            ),
        },
        "replay": _replay(moment),
        "slow": slow_of(glance, redis_up=not moment.trouble),
        "health": health,
    }  # fmt: skip


def _actors(moment: Moment) -> ActorsStatus:
    look = moment.glance.look
    if look is None or not moment.glance.alive:
        return ActorsStatus()
    return actors_from(look.desired, look.leases, moment.events)


def _progress(moment: Moment) -> Json:
    numbers, rates = moment.glance.numbers, moment.rates
    frames = known(numbers, "frames")
    limit = number_of(moment.config, "frames") or None
    rate = rates.get("frames") if moment.glance.alive else None
    left = None if limit is None or frames is None else max(0.0, limit - frames)
    return {
        "frames": frames,
        "frames_limit": limit,
        "updates": known(numbers, "updates"),
        "elapsed_s": known(numbers, "time_s"),
        "frames_per_s": rate,
        "updates_per_s": known(numbers, "learner/updates_per_s") if moment.glance.alive else None,
        "eta_s": left / rate if left is not None and rate else None,
    }


def _verdict(moment: Moment, actors: ActorsStatus, *, gap_alarm: bool) -> Json:
    learning = learning_of(moment.evaluations)
    health = health_of(
        Signs(
            alive=moment.glance.alive,
            ended=moment.glance.ended,
            trouble=moment.trouble,
            actors=actors,
            learner_up=_learner_up(moment),
            events=moment.events,
            gap_alarm=gap_alarm and len(moment.evaluations) >= LEAST_EVALUATIONS,
            policy_age_s=_mean_of_actors(moment, "actor/policy_age_s"),
            now_s=moment.time_s,
        )
    )
    return {
        "learning": learning.answer,
        "learning_text": learning.text,
        "healthy": health.answer,
        "healthy_text": cut(health.text),
    }


def _learner_up(moment: Moment) -> bool | None:
    """None while it may just be starting."""
    if moment.glance.look is None:
        return None
    learners = [one for one in moment.view.processes if one.place.role == "learner"]
    return any(one.lease is not None for one in learners) if learners else None


def _replay(moment: Moment) -> Json:
    numbers, config = moment.glance.numbers, moment.config
    steps, fill = known(numbers, "replay/steps"), known(numbers, "replay/fill")
    budget = number_of(config, "replay", "capacity_bytes")
    return {
        "steps": steps,
        "capacity_steps": round(steps / fill) if steps and fill else None,
        "fill": fill,
        "ratio": known(numbers, "replay/ratio"),
        "ratio_target": known(numbers, "replay/ratio_target"),
        "log_bytes": known(numbers, "replay/log_bytes"),
        "log_budget_bytes": number_of(config, "replay", "log_bytes"),
        "segment_bytes": known(numbers, "replay/bytes"),
        # Of its budget, latents included: it grows in proportion.
        "arena_bytes": None if budget is None or fill is None else round(budget * fill),
        "age_s": known(numbers, "replay/age_s"),
    }


def _health(moment: Moment) -> Json:
    numbers, dream = moment.glance.numbers, moment.dream
    frames = known(numbers, "frames")
    repeat = number_of(moment.config, "env", "action_repeat") or 1.0
    real_steps = known(numbers, "real/steps")
    if real_steps is None and frames is not None:
        real_steps = frames / repeat
    imagined = known(numbers, "dream/steps")
    gap = None if dream is None else dream.gap
    return {
        "kl_nats": known(numbers, "loss/dynamics"),
        "reconstruction": known(numbers, "loss/reconstruction"),
        "gap_ratio": None if gap is None else finite(gap.ratio),
        "gap_alarm": gap is not None and gap.alarm,
        "dreamed_return": None if gap is None else finite(gap.dreamed_return),
        "real_return": None if gap is None else finite(gap.real_return),
        "real_steps": real_steps,
        "real_s": known(numbers, "time_s"),
        "resets": known(numbers, "real/resets"),
        "imagined_steps": imagined,
        "imagined_per_real": imagined / real_steps if imagined and real_steps else None,
    }


def _mean_of_actors(moment: Moment, key: str) -> float | None:
    look = moment.glance.look
    told = [] if look is None else [one.values for one in look.metrics if one.role == "actor"]
    values = [value for one in told if (value := known(one, key)) is not None]
    return sum(values) / len(values) if values else None
