"""The fleet table: a row for every process that lives, lived lately, or is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.actors_status import ActorsStatus
from deploy.dashboard.plain import cut, known
from deploy.exporter.merge import Look, Place, ProcessView, RunView
from system.control.protocol import FIRST_OWN_SLOT

ORDER = ("supervisor", "learner", "evaluator", "actor")
VERSION = {"actor": "actor/policy_version", "learner": "learner/policy_version",
           "evaluator": "eval/policy_version"}  # fmt: skip
RETURN = {"actor": "actor/return_mean", "evaluator": "eval/return_mean"}
"""Role -> the number that says so."""


def fleet_rows(
    view: RunView,
    look: Look | None,
    actors: ActorsStatus,
    rates: Mapping[str, float],
    *,
    env: str,
    scalable: bool,
) -> list[dict[str, Any]]:
    """Every row, actors last.

    Args:
      view: processes, with those that died lately.
      look: the last read of control; None if nobody drives the run.
      actors: which slots are missing, and why.
      rates: `actor:<slot>` -> agent steps per second [1/s].
      env: of the run.
      scalable: whether slots can be drained and restarted.
    """
    if look is None:
        return []
    processes = {process.place: process for process in view.processes}
    wanted = {Place("actor", slot) for slot in range(look.desired.actors)}
    shown = wanted | {place for place, one in processes.items() if _is_shown(one, wanted)}
    values = {Place(one.role, one.slot): one.values for one in look.metrics}
    rows = []
    for place in sorted(shown, key=lambda place: (ORDER.index(place.role), place.slot)):
        process = processes.get(place)
        up = process is not None and process.lease is not None
        told = values.get(place, {}) if up else {}
        of_fleet = place in wanted and scalable
        held = place.slot in look.desired.held and of_fleet
        rows.append(
            {
                "role": place.role,
                "slot": place.slot,
                "env": env if place.role in ("actor", "evaluator") else None,
                **_life(process),
                "steps_per_s": rates.get(f"actor:{place.slot}") if place.role == "actor" and up
                else None,
                "policy_version": known(told, VERSION.get(place.role, "")),
                "policy_age_s": known(told, "actor/policy_age_s"),
                "return_mean": known(told, RETURN.get(place.role, "")),
                "reason": cut(actors.reasons.get(str(place.slot), "")) if place.role == "actor"
                else "",
                "held": held,
                "up": up,
                "restartable": of_fleet,
            }
        )  # fmt: skip
    return rows


def _is_shown(process: ProcessView, wanted: set[Place]) -> bool:
    """A slot that was scaled away is gone once its actor is."""
    scaled_away = process.place.role == "actor" and process.place.slot < FIRST_OWN_SLOT
    if process.lease is None and scaled_away and process.place not in wanted:
        return False
    return process.last_seen_s is not None and process.place.role in ORDER


def _life(process: ProcessView | None) -> dict[str, Any]:
    lease = None if process is None else process.lease
    return {
        "host": None if lease is None else cut(lease.who.partition(":")[0], 100),
        "doing": "" if lease is None else cut(lease.doing, 100),
        "last_seen_s": None if process is None else process.last_seen_s,
    }
