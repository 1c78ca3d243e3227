"""Every Redis key, once. `{run}` is the run's name; nothing else may spell a key.

The first two lie on the *data* server, all others on *control* (small, must survive a full data
log); they are one server unless `--redis-data` names another.
Values start with a version byte or are Redis streams of versioned messages.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNS = "dreamfleet:runs"
"""Hash: run id -> JSON, see `deploy/registry.py`. Of no run: theirs go on with `:{run}:`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of one run."""

    run: str

    @property
    def pattern(self) -> str:
        """Matches every key of this run and of no other, for SCAN."""
        return f"dreamfleet:{_literal(self.run)}:*"

    def log(self, slot: int) -> str:
        """Stream: the Chunks of one actor slot; ids are `<incarnation>-<sequence>`."""
        return f"dreamfleet:{self.run}:log:{slot}"

    @property
    def slots(self) -> str:
        """Set: slot numbers that were ever claimed."""
        return f"dreamfleet:{self.run}:slots"

    @property
    def learner(self) -> str:
        """Stream, one entry long: what the learner says to actors; ids are `<epoch>-<tick>`."""
        return f"dreamfleet:{self.run}:learner"

    def policy(self, name: str = "policy") -> str:
        """Stream: manifests of one channel's policies; ids are `<epoch>-<version>`.

        `policy` feeds simulated actors. `policy:safe` feeds robots; there the first number counts
        promotions, and the second still names the version.
        """
        return f"dreamfleet:{self.run}:{name}"

    def policy_piece(self, name: str, epoch: int, version: int, index: int) -> str:
        """String: one piece of the weights behind one manifest; expires on `policy`."""
        return f"dreamfleet:{self.run}:{name}:{epoch}-{version}:{index}"

    @property
    def desired(self) -> str:
        """String: the desired fleet, with its generation."""
        return f"dreamfleet:{self.run}:desired"

    def lease(self, role: str, slot: int) -> str:
        """String, expiring: a living process and what it is doing."""
        return f"dreamfleet:{self.run}:lease:{role}:{slot}"

    @property
    def lease_pattern(self) -> str:
        """Matches every lease key of this run, for SCAN."""
        return f"dreamfleet:{_literal(self.run)}:lease:*"

    def metrics(self, role: str, slot: int) -> str:
        """String, expiring: the latest numbers of one process."""
        return f"dreamfleet:{self.run}:metrics:{role}:{slot}"

    @property
    def metrics_pattern(self) -> str:
        """Matches every metrics key of this run, for SCAN."""
        return f"dreamfleet:{_literal(self.run)}:metrics:*"

    @property
    def totals(self) -> str:
        """String, expiring: what the exporter counted so far, over all lives of every process."""
        return f"dreamfleet:{self.run}:totals"

    def blob(self, name: str) -> str:
        """String, expiring: one thing to look at, such as the newest dream."""
        return f"dreamfleet:{self.run}:blob:{name}"

    @property
    def history(self) -> str:
        """Stream, bounded: the run's curve, for whoever has no folder."""
        return f"dreamfleet:{self.run}:history"

    @property
    def events(self) -> str:
        """Stream, bounded: what happened, in plain words."""
        return f"dreamfleet:{self.run}:events"


def _literal(text: str) -> str:
    """Escapes what SCAN's patterns would read as wildcards."""
    return "".join(f"\\{letter}" if letter in "*?[]^-\\" else letter for letter in text)
