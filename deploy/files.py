"""Small files written whole or not at all, and lines of JSON as they are read back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from system.errors import RunError
from system.files import write_whole


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replaces a file by one JSON object, which this user alone may read."""
    write_whole(path, (json.dumps(data, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A file that `write_json` wrote. Raises RunError if it cannot be read."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} is not a JSON object")
    return data


def read_lines(path: Path, *, holding: str = "") -> Iterator[dict[str, Any]]:
    """Every whole JSON line, one at a time; a line cut short by a crash is left out.

    Args:
      path: of the file; none is as good as an empty one.
      holding: only lines with this name are read; the others cost no parsing.
    """
    with contextlib.suppress(FileNotFoundError), path.open(errors="replace") as file:
        for text in file:
            if holding not in text:
                continue
            line = None
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
            if isinstance(line, dict) and (not holding or holding in line):
                yield line
