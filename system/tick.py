"""What one turn of a loop came to.

Both loops, acting and learning, are `tick() -> Progress | Wait`: a thread each may spin them, or
one thread may turn them by turns, and neither ever blocks inside while the other could help.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Something was done; tick again at once."""

    what: str
    """One word: acted, updated, inserted, ..."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now."""

    reason: str
    """What is missing, in a few words: credit, data, redis, learner, ..."""
    seconds: float = 0.01
    """When to look again [s]."""
