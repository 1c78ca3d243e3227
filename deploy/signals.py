"""Ctrl-C and SIGTERM: the first one asks to stop in order, the second one insists.

A closed terminal (SIGHUP) is no wish to stop where the run goes on without it. A signal that this
process was told to ignore (`nohup`, a script's `&`) stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forced(BaseException):
    """The user insisted; nothing may be waited for."""


class Detached(BaseException):
    """The terminal is gone; what it watched goes on."""


class Interrupts:
    """Counts signals while it is entered.

    The loop that uses it::

        with Interrupts(on_first=lambda: say("draining")) as interrupts:
            while not interrupts.stopping:
                work()

    Raises:
      Forced: from wherever the program is, on the second signal.
      Detached: the same, on a hang-up, if `hangup_detaches`.
    """

    def __init__(self, on_first: Callable[[], None], *, hangup_detaches: bool = False) -> None:
        self.stopping = False
        self._hangup_detaches = hangup_detaches
        self._on_first = on_first
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in CAUGHT:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._hangup_detaches:
            raise Detached
        if self.stopping:
            raise Forced
        self.stopping = True
        self._on_first()
