"""A growing file of JSON lines, read on from where it was left."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any


class Tail:
    """Every line once.

    The loop that uses it::

        tail = Tail(folder.metrics_path)
        while True:
            for line in tail.new():
                ...
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> list[dict[str, Any]]:
        """What was written since; a line still being written is left for later."""
        lines: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for text in file:
                if not text.endswith(b"\n"):
                    break
                self._offset += len(text)
                with contextlib.suppress(ValueError, RecursionError):
                    line = json.loads(text)
                    if isinstance(line, dict):
                        lines.append(line)
        return lines
