"""Lines of a run as TensorBoard event files; with the extra `[tensorboard]`.

::

    metrics.jsonl | control.history -> deploy/export.py -> EventFile -> DIR/NAME/events.out...
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from system.errors import ConfigError

SUFFIX = ".dreamfleet"
"""Ends the names of our files: an export replaces the one before."""
FACTS = {"time_s", "elapsed_s", "frames", "updates"}


class EventFile:
    """One run's scalars against frames.

    The loop that uses it::

        with contextlib.closing(EventFile(folder)) as file:
            file.add(wall_s, {"frames": 1000, "loss/value": 1.5})
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError without the extra."""
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ConfigError(
                f"--tensorboard needs the library ({error}); install the extra: "
                "pip install 'dreamfleet[tensorboard]'"
            ) from None
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink()
        self._writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)

    def add(self, wall_s: float, line: Mapping[str, float]) -> int:
        """One line of metrics; its step is the number of frames.

        Args:
          wall_s: when it was written, Unix time [s].
          line: as in `metrics.jsonl`; what is not a finite number is left out.

        Returns:
          How many numbers it had.
        """
        values = [
            self._summary.Value(tag=name, simple_value=float(value))
            for name, value in line.items()
            if name not in FACTS and isinstance(value, int | float) and math.isfinite(value)
        ]
        self._writer.add_event(
            self._event(
                wall_time=wall_s, step=int(line["frames"]), summary=self._summary(value=values)
            )
        )
        return len(values)

    def flush(self) -> None:
        """Makes TensorBoard see what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Writes the rest."""
        self._writer.close()
