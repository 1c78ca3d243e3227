"""Dreams kept in the run folder, `dreams/<update>.dream`: many early ones, few late ones.

Whoever looks back over a run wants steps of equal ratio, not of equal time: what happened between
update 100 and 200 matters as much as what happened between 10,000 and 20,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from learner.disk import full_disk_is_named
from system.dream import DreamReport
from system.dream_codec import decode_dream
from system.errors import RejectedChunk
from system.files import write_whole

FOLDER = "dreams"
MOST_KEPT = 48


def superfluous(updates: Sequence[int], most: int) -> int | None:
    """Which one to delete if there are more than `most`; never the first or the last.

    The one whose neighbors are closest, as a ratio: the others then lie evenly over the logarithm
    of their updates.
    """
    if len(updates) <= most or len(updates) < 3:
        return None
    ratios = [
        math.log((after + 1) / (before + 1))
        for before, after in zip(updates, updates[2:], strict=False)
    ]
    return updates[1 + ratios.index(min(ratios))]


class DreamFiles:
    """The dreams of one run.

    The calls that use it::

        files.write(report.update, encode_dream(report))
        earlier = files.read_before(report.update // 2)
    """

    def __init__(self, run_folder: Path, check: Callable[[], None] = lambda: None) -> None:
        """Writes nothing yet; `check` raises Fenced if somebody else writes this folder now."""
        self.folder = run_folder / FOLDER
        self._check = check

    def updates(self) -> list[int]:
        """Of what is kept, growing order."""
        names = (path.stem for path in self.folder.glob("*.dream"))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def write(self, update: int, data: bytes) -> None:
        """Keeps one more, and deletes what is one too many. Raises DiskFull or Fenced."""
        self._check()
        with full_disk_is_named(self.folder):
            self.folder.mkdir(exist_ok=True)
            write_whole(self._path(update), data)
        while (spare := superfluous(self.updates(), MOST_KEPT)) is not None:
            self._path(spare).unlink(missing_ok=True)

    def read(self, update: int) -> DreamReport | None:
        """One of them; None if it is not there or damaged."""
        try:
            return decode_dream(self._path(update).read_bytes())
        except (OSError, RejectedChunk):
            return None

    def read_before(self, update: int) -> DreamReport | None:
        """The newest of `update` or before; None if there is none."""
        older = [kept for kept in self.updates() if kept <= update]
        return self.read(older[-1]) if older else None

    def _path(self, update: int) -> Path:
        return self.folder / f"{update}.dream"
