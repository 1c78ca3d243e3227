"""What a SlotWriter has done so far, for metrics and tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class WriterCounters:
    """Counted by the writer, read by everybody else."""

    appended: int = 0
    """Chunks received for the first time."""
    reappended: int = 0
    """Chunks sent again because the store had lost them."""
    duplicates: int = 0
    """Chunks found stored although their reply was lost."""
    bytes_sent: int = 0
    """Payload bytes of all appends that were answered [bytes]."""
    waits: Counter[str] = field(default_factory=Counter)
    """Ticks that could do nothing, by reason."""
