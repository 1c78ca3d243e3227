"""Totals as they are kept in Redis: an exporter that starts anew goes on where the last one was."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TypeVar

from deploy.exporter.merge import MAX_PROCESSES, Place, RunMerge
from deploy.exporter.totals import KEPT_LIVES, Counts, Totals
from system.errors import RejectedChunk
from system.message import Message, is_count, pack, unpack
from system.metrics import COUNTED, EVENT_KINDS, ROLES
from system.types import EntryId

FIELDS = {"events", "cursor", "processes"}
PROCESS_FIELDS = {"starts", "base", "lives"}
Value = TypeVar("Value")


def encode(merge: RunMerge) -> bytes:
    """What must outlive the exporter."""
    processes = {
        f"{place.role}:{place.slot}": {
            "starts": totals.starts,
            "base": totals.base,
            "lives": {repr(started_s): counts for started_s, counts in totals.lives.items()},
        }
        for place, totals in sorted(merge.totals.items())
    }
    return pack({"events": merge.events, "cursor": merge.cursor, "processes": processes})


def decode(data: bytes) -> RunMerge:
    """Reads what `encode` made.

    Raises:
      RejectedChunk: it is something else.
    """
    message = _map(unpack(data), FIELDS)
    events = _counts(message["events"], (*EVENT_KINDS, "other"))
    cursor, rows = message["cursor"], message["processes"]
    if not isinstance(cursor, str) or not isinstance(rows, dict) or len(rows) > MAX_PROCESSES:
        raise RejectedChunk("header", "not an exporter's totals")
    try:
        if cursor and not all(map(is_count, _read(cursor, EntryId.parse))):
            raise ValueError(cursor)
        totals = {_place(name): _totals(row) for name, row in rows.items()}
    except ValueError as error:
        raise RejectedChunk("value", f"an exporter's totals: {error}") from None
    merge = RunMerge()
    merge.restore(totals, events, cursor)
    return merge


def _place(name: str) -> Place:
    role, _, slot = name.partition(":")
    place = Place(role, _read(slot, int))
    if role not in ROLES or not is_count(place.slot):
        raise ValueError(name)
    return place


def _totals(row: object) -> Totals:
    message = _map(row, PROCESS_FIELDS)
    totals, lives = Totals(), message["lives"]
    if not is_count(message["starts"]) or not isinstance(lives, dict) or len(lives) > KEPT_LIVES:
        raise RejectedChunk("value", "lives that cannot be")
    totals.starts = int(str(message["starts"]))
    totals.base = _counts(message["base"], COUNTED)
    totals.lives = {_read(life, float): _counts(counts, COUNTED) for life, counts in lives.items()}
    if len(totals.lives) < len(lives) or not all(map(math.isfinite, totals.lives)):
        raise RejectedChunk("value", "lives that cannot be")
    return totals


def _read(text: str, kind: Callable[[str], Value]) -> Value:
    """Every value has one spelling: else one name could hide another."""
    value = kind(text)
    if str(value) != text:
        raise ValueError(text)
    return value


def _counts(value: object, known: Collection[str]) -> Counts:
    """A map of counts. A name that this version does not know is left out."""
    if not isinstance(value, dict) or not all(is_count(count) for count in value.values()):
        raise RejectedChunk("value", "counts that cannot be")
    return {key: count for key, count in value.items() if key in known}


def _map(value: object, fields: set[str]) -> Message:
    if not isinstance(value, dict) or set(value) != fields:
        raise RejectedChunk("header", "not an exporter's totals")
    return value
