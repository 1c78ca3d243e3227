"""What a run measured, as lines: `metrics.jsonl` holds everything, `metrics.csv` what people plot.

Learner and evaluator append to both; each line is one write, so neither cuts the other's in two.
Of a line that was cut by a crash the rest is lost, and the next one begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from system.files import append_line

COLUMNS = (
    "time_s", "frames", "updates", "eval/return_mean", "eval/return_std", "eval/episodes",
    "learner/updates_per_s", "learner/policy_version", "replay/steps", "replay/ratio",
    "real/steps", "real/resets", "dream/steps", "dream/return", "dream/reward", "dream/gap_ratio",
    "loss/reconstruction", "loss/reward", "loss/continue", "loss/dynamics", "loss/representation",
    "loss/policy", "loss/value", "loss/replay_value", "policy/entropy", "gradient_norm",
)  # fmt: skip
"""Of `metrics.csv`, named as in `metrics.jsonl`; what a line does not tell is left empty."""


class RunLog:
    """Both files of one run folder.

    The loop that uses it::

        log.append({"time_s": 12.5, "frames": 1000, "updates": 40, "loss/value": 1.5})
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self._table = folder / "metrics.csv"

    def append(self, line: Mapping[str, float]) -> None:
        """One line; `time_s`, `frames` and `updates` are always among it. Raises OSError."""
        append_line(self.path, json.dumps(line, separators=(",", ":")))
        self._begin_table()
        append_line(self._table, ",".join(_cell(line.get(name)) for name in COLUMNS))

    def _begin_table(self) -> None:
        """The first line names the columns; a table with other ones is kept under another name."""
        head = (",".join(COLUMNS) + "\n").encode()
        with contextlib.suppress(FileNotFoundError), self._table.open("rb") as file:
            before = file.readline()
            if before == head:
                return
            # Named after the file: of two writers that found it, the later one cannot put the new
            # table in its place.
            which = f"{os.fstat(file.fileno()).st_ino}".encode() + before
            kept = f"metrics.{hashlib.sha256(which).hexdigest()[:8]}.csv"
            with contextlib.suppress(FileExistsError):
                os.link(self._table, self._table.with_name(kept))
            if os.path.samestat(self._table.stat(), os.fstat(file.fileno())):
                self._table.unlink()
        temporary = self._table.with_name(f".metrics.{threading.get_native_id()}.csv")
        temporary.write_bytes(head)
        # A link, since a rename would replace the one that another process has just begun.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self._table)
        temporary.unlink()


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
