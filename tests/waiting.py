"""Waiting in tests: for a condition, with a deadline that twenty busy neighbours do not break."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 180.0
FoundT = TypeVar("FoundT")


def wait_until(
    condition: Callable[[], FoundT],
    what: str = "came true",
    *,
    timeout_s: float = DEADLINE_S,
    words: Callable[[], object] = str,
) -> FoundT:
    """Returns what the condition returns, once that is true.

    Raises:
      AssertionError: never `what` within `timeout_s` [s]; with `words()`, asked only then.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"never {what}: {words()}"
        time.sleep(0.01)
    return found
