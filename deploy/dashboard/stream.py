"""What one tab is sent: server-sent events, each only once. Pure.

::

    Listed, Shown + what this tab has -> news -> frames      id: <serial>.<points>.<events>

A tab that comes back with `Last-Event-ID` gets only what it missed, if this process still has the
lists it knew; else everything anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deploy.dashboard.curve import CurvePoint
from deploy.dashboard.hub import Listed
from deploy.dashboard.watched import Shown

IDENTITY = re.compile(r"([0-9a-f]{8})\.(\d{1,9})\.(\d{1,9})")
HEARTBEAT = b": still here\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Has:
    """What a tab has of one run."""

    serial: str = ""
    """Of the lists it knows."""
    num_points: int = 0
    num_events: int = 0
    version: int = 0
    """Of the look it knows."""
    listed: int = 0
    """Version of the list of runs it knows."""
    dream: int | None = None
    """Update of the newest dream it was told of."""

    @classmethod
    def parse(cls, text: str) -> Has:
        """What `Last-Event-ID` says; of any other text nothing."""
        found = IDENTITY.fullmatch(text)
        if found is None:
            return cls()
        return cls(serial=found[1], num_points=int(found[2]), num_events=int(found[3]))


def frame(kind: str, data: object, identity: str = "") -> bytes:
    """One event."""
    line = f"id: {identity}\n" if identity else ""
    return f"{line}event: {kind}\ndata: {to_text(data)}\n\n".encode()


def to_text(data: object) -> str:
    """JSON in which no text can be taken for HTML; refuses what is not finite."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def list_news(listed: Listed, has: Has) -> list[bytes]:
    """The list of runs, if it is newer than the tab's."""
    return [frame("runs", runs_json(listed))] if listed.version != has.listed else []


def run_news(shown: Shown, has: Has) -> list[bytes]:
    """What a tab misses of one run."""
    same = shown.serial == has.serial
    if same and shown.version == has.version:
        return []
    points_from = min(has.num_points, shown.num_points) if same else 0
    missed = shown.num_events - has.num_events if same else shown.num_events
    identity = f"{shown.serial}.{shown.num_points}.{shown.num_events}"
    frames = [frame("now", shown.now)]
    if shown.num_points > points_from or not same:
        curve = {"reset": not same, "points": points_json(shown, points_from)}
        frames.append(frame("curve", curve))
    if missed > 0:
        frames.append(frame("events", shown.events[-missed:]))
    if shown.dream is not None and (not same or shown.dream["update"] != has.dream):
        frames.append(frame("dream", shown.dream))
    # The id goes last: a stream that breaks off in between is sent this again.
    return [*frames[:-1], f"id: {identity}\n".encode() + frames[-1]]


def now_has(listed: Listed, shown: Shown | None, has: Has) -> Has:
    """What the tab has once all this is sent."""
    has = replace(has, listed=listed.version)
    if shown is None:
        return has
    return Has(
        serial=shown.serial,
        num_points=shown.num_points,
        num_events=shown.num_events,
        version=shown.version,
        listed=listed.version,
        dream=None if shown.dream is None else shown.dream["update"],
    )


def newest_json(listed: Listed, shown: Shown | None) -> dict[str, Any]:
    """All events at once, for who asks instead of listening."""
    answer: dict[str, Any] = {"runs": runs_json(listed)}
    if shown is not None:
        curve = {"reset": True, "points": points_json(shown, 0)}
        answer |= {
            "now": shown.now, "curve": curve, "events": shown.events, "dream": shown.dream,
        }  # fmt: skip
    return answer


def runs_json(listed: Listed) -> list[dict[str, Any]]:
    """The event `runs`."""
    return [
        {
            "id": card.run_id, "name": card.name, "env": card.env, "phase": card.phase,
            "alive": card.alive, "frames": card.frames, "return_mean": card.return_mean,
            "seen_s": card.seen_s,
        }
        for card in listed.cards
    ]  # fmt: skip


def points_json(shown: Shown, first: int) -> list[dict[str, Any]]:
    """Points of the curve from one on."""
    points: Sequence[CurvePoint] = shown.points[first : shown.num_points]
    return [asdict(point) for point in points]
