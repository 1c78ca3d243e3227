"""Redis from a thread that must not wait: a robot's next action is due, whatever the network does.

A reply takes a round trip, and over a connection whose packets vanish it takes seconds. So the
thread that acts asks nobody: what it has to tell is told aside, and what it wants to know is asked
aside and read when it is there.

::

    Chunks                       SenderThread     (`sender.py`)
    heartbeats, events           control_aside    told in order; one of a kind under way
    policies                     channel_aside    however long a fetch takes, it is not begun anew
    whether the run has ended    Inquiry          the same for any question
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

from system.channel.protocol import PolicyChannel
from system.control.protocol import Control
from system.errors import Unavailable
from system.types import Snapshot

MOMENT_S = 0.05
"""What telling may cost the thread that acts [s]."""

AnswerT = TypeVar("AnswerT")


class Inquiry(Generic[AnswerT]):
    """A question that is asked aside, again and again.

    The loop that uses it::

        if (answer := inquiry()) is not None:
            heed(answer)
    """

    def __init__(self, ask: Callable[[], AnswerT]) -> None:
        self._ask, self._executor = ask, ThreadPoolExecutor(1, thread_name_prefix="inquiry")
        self._asked: Future[AnswerT] | None = None

    def __call__(self) -> AnswerT | None:
        """What was answered since the last call, and asks anew; raises what the question raised."""
        if self._asked is not None and not self._asked.done():
            return None
        asked, self._asked = self._asked, self._executor.submit(self._ask)
        return None if asked is None else asked.result()


def control_aside(control: Control) -> Control:
    """Control for a thread that tells and never asks: every method only writes, later."""
    return cast(Control, _ControlAside(control))


class _Told:
    """One call on its way; it can be made again."""

    def __init__(self, executor: ThreadPoolExecutor, call: Callable[[], object]) -> None:
        self._executor, self._call = executor, call
        self._until_s = time.monotonic() + MOMENT_S
        self._future = executor.submit(call)

    def check(self) -> None:
        """Returns if it was heard. Raises Unavailable if not, or not yet; then it goes on."""
        try:
            self._future.result(timeout=max(0.0, self._until_s - time.monotonic()))
        except TimeoutError:
            raise Unavailable(f"Redis did not answer within {MOMENT_S} s") from None
        except Unavailable:
            self._future = self._executor.submit(self._call)
            raise


class _ControlAside:
    """Tells one after the other. What was refused, Redis being away, is told again."""

    def __init__(self, inner: Control) -> None:
        self._inner = inner
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._told: dict[str, _Told] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = getattr(self._inner, name)

        def tell(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            if name in self._told:
                self._told[name].check()
            self._told[name] = _Told(self._executor, lambda: method(*args, **kwargs))

        return tell


def channel_aside(channel: PolicyChannel) -> PolicyChannel:
    """A channel that fetches aside: `newer_than` returns what has arrived meanwhile."""
    return cast(PolicyChannel, _ChannelAside(channel))


class _ChannelAside:
    """However long a fetch takes, it is not begun anew."""

    def __init__(self, inner: PolicyChannel) -> None:
        self._inner = inner
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="channel")
        self._fetch: Future[Snapshot | None] | None = None

    def newer_than(self, epoch: int, version: int) -> Snapshot | None:
        """What was fetched since the last call, if it is newer than (epoch, version)."""
        if self._fetch is None:
            self._fetch = self._executor.submit(self._inner.newer_than, epoch, version)
        if not self._fetch.done():
            return None
        fetched, self._fetch = self._fetch, None
        found = fetched.result()
        newer = found is not None and (found.epoch, found.version) > (epoch, version)
        return found if newer else None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)
