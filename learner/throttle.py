"""Events that may come in floods: one of a kind from each slot at once, then one every 10 s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

INTERVAL_S = 10.0


@dataclass(slots=True)
class _Flood:
    due_s: float
    """When the next event may be recorded [s]."""
    count: int = 0
    """Kept back so far."""
    first: str = ""


class ThrottledEvents:
    """Says the first, counts the rest, and says how many they were.

    The loop that uses it::

        events.say("chunk_rejected", slot, text, clock.now())
        events.flush(clock.now())                  # now and then
    """

    def __init__(self, on_event: Callable[[str, str], None]) -> None:
        self._on_event = on_event
        self._floods: dict[tuple[str, int], _Flood] = {}

    def say(self, kind: str, slot: int, text: str, now_s: float) -> None:
        """Records an event, or counts it if this slot had one of this kind lately."""
        flood = self._floods.get((kind, slot))
        if flood is None:
            self._floods[kind, slot] = _Flood(due_s=now_s + INTERVAL_S)
            self._on_event(kind, f"slot {slot} {text}")
            return
        flood.first = flood.first or text
        flood.count += 1
        self.flush(now_s)

    def flush(self, now_s: float) -> None:
        """Records what was kept back for long enough; forgets slots that became quiet."""
        for (kind, slot), flood in list(self._floods.items()):
            if now_s < flood.due_s:
                continue
            if not flood.count:
                del self._floods[kind, slot]
                continue
            self._on_event(kind, f"slot {slot}: {flood.count} more, the first: {flood.first}")
            self._floods[kind, slot] = _Flood(due_s=now_s + INTERVAL_S)
