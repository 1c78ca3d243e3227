"""The learning loop: one update a Batch; insert, grant, broadcast and save when due.

::

    log -> ingest -> arena -> sample -> update -> write back
                                          |-> publish        policies to actors
                                          `-> checkpoint     to the run folder
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from learner.arena import Arena
from learner.graphed import Updater
from learner.ingest import Ingest
from learner.samplers import Sampler
from system.limiter import ReplayLimiter
from system.tick import Progress, Wait


@dataclass(kw_only=True, slots=True)
class LearnerLoop:
    """`loop.tick()` again and again; it never blocks. Raises Fenced when a newer learner came."""

    ingest: Ingest
    arena: Arena
    sampler: Sampler
    limiter: ReplayLimiter
    learning: Updater
    batch_size: int
    """B."""
    max_steps: int | None
    """Stop inserting after so many Steps [agent steps]."""
    after_update: Callable[[], None]
    """Broadcast and save when due."""
    commit_due: Callable[[], bool]
    updates: int = 0
    metrics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the last wanted Step is inserted and everything owed is replayed."""
        return self._full and not self.limiter.may_update()

    def tick(self) -> Progress | Wait:
        """One update, or one insertion, or what it waits for."""
        if self.commit_due():
            self.ingest.commit()
        if self.limiter.may_update() and self._update():
            return Progress("updated")
        if not self._full and self.ingest.insert_next():
            self.limiter.inserted = self.arena.end
            return Progress("inserted")
        # Nothing to read: whoever waits for credit should have it now.
        if self.ingest.commit():
            return Progress("granted")
        return Wait("disk" if self.ingest.disk_is_full else "data")

    def _update(self) -> bool:
        """False if no Sequence can be drawn yet: then more data is wanted, whatever is owed."""
        if not len(contexts := self.sampler.draw(self.arena, self.batch_size)):
            return False
        self.learning.activity.switch("sample")
        batch = self.arena.sample(contexts)
        result = self.learning.update(batch)
        self.learning.activity.switch("sample")
        self.arena.write_back(batch, result.latents)
        self.limiter.replayed += batch.ordinals.size
        self.updates += 1
        self.metrics = result.metrics
        self.after_update()
        return True

    @property
    def _full(self) -> bool:
        return self.max_steps is not None and self.arena.end >= self.max_steps
