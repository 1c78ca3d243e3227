"""The rule that keeps the replay ratio: replayed Steps per inserted Step (agent steps).

With ``debt = (inserted - min_steps) * ratio - replayed``: an update may run while the debt covers
it, and a Chunk may be inserted while it does not. Exactly one of the two is allowed at any time, so
the rule cannot deadlock, and ``0 <= debt < update + ratio * chunk`` holds for ever once `min_steps`
are inserted. Those first Steps are not owed for (nor are they in the authors' code): else training
would begin with minutes of updates on random data while every actor waits.

Actors never see this rule: the learner reads the log only when inserting is allowed, and grants
credit only for what it has read. So the number of actors changes the rate, never the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

from system.checks import require_positive


@dataclass(kw_only=True, slots=True)
class ReplayLimiter:
    """Counts both sides; the counts are part of every checkpoint."""

    ratio: float
    """Replayed Steps per inserted Step."""
    update_steps: int
    """Steps one update replays: B * T."""
    min_steps: int
    """Inserted Steps before the first update."""
    inserted: int = 0
    """Steps inserted so far [agent steps]."""
    replayed: int = 0
    """Steps replayed so far [agent steps]."""

    def __post_init__(self) -> None:
        for name in ("ratio", "update_steps", "min_steps"):
            require_positive("replay", self, name)

    @property
    def debt(self) -> float:
        """Steps still to be replayed for what was inserted; negative before `min_steps`."""
        return (self.inserted - self.min_steps) * self.ratio - self.replayed

    def may_update(self) -> bool:
        """Whether one more update keeps the debt at or above 0."""
        return self.debt >= self.update_steps

    def may_insert(self) -> bool:
        """Whether one more Chunk is wanted; always the opposite of `may_update`."""
        return not self.may_update()

    def achieved(self) -> float:
        """Replayed Steps per Step inserted since training began; 0 before."""
        since = self.inserted - self.min_steps
        return self.replayed / since if since > 0 else 0.0
