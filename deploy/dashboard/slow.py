"""Why it is slow: where the time of actors and learner goes, and who holds the others up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.bottleneck import Load, diagnose, load_of
from deploy.dashboard.plain import finite
from deploy.dashboard.source import Glance

LEAST_SHARE = 0.001
"""A smaller one is not shown."""


def slow_of(glance: Glance, *, redis_up: bool) -> dict[str, Any]:
    """Shares of the time by activity, the greatest first; nothing of a run at rest."""
    metrics = glance.look.metrics if glance.look is not None and glance.alive else []
    load = load_of(metrics, redis_up=redis_up or not glance.alive)
    diagnosis = diagnose(load if glance.alive else Load(acting={}, learning={}))
    return {
        "actors": _sorted(load.acting),
        "learner": _sorted(load.learning),
        "bottleneck": diagnosis.bottleneck,
        "text": diagnosis.text if glance.alive else "",
        "gain_ratio": diagnosis.gain_ratio,
    }


def _sorted(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    known = {word: share for word, share in shares.items() if (finite(share) or 0.0) > LEAST_SHARE}
    order = sorted(known.items(), key=lambda item: (-item[1], item[0]))
    return [{"activity": word[:40], "share": share} for word, share in order]
