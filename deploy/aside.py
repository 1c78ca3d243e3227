"""Redis from a thread that must not wait: a robot's next action is due, whatever the network does.

A connection whose packets vanish answers nothing for seconds. Here each seam has a thread for its
calls; one that takes longer than a moment is Unavailable, which every caller survives, and is
finished aside. Nothing else is sent on that connection until then, so order is kept: a late append
is seen by the `last_id` that follows every doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from system.channel.protocol import PolicyChannel
from system.errors import Unavailable
from system.types import Snapshot

MOMENT_S = 0.05
"""What a call may cost the thread that acts [s]."""

SeamT = TypeVar("SeamT")
ResultT = TypeVar("ResultT")


class _Worker:
    """One thread, one call at a time."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._last: Future[Any] | None = None

    def __call__(self, call: Callable[[], ResultT]) -> ResultT:
        """Its result. Raises Unavailable if it, or the one before, takes longer than a moment."""
        if self._last is not None and not self._last.done():
            raise Unavailable("Redis has not answered the call before")
        future = self._executor.submit(call)
        self._last = future
        try:
            return future.result(timeout=MOMENT_S)
        except TimeoutError:
            raise Unavailable(f"Redis did not answer within {MOMENT_S} s") from None


class _Aside:
    """Passes every method call to a worker."""

    def __init__(self, inner: object) -> None:
        self._inner, self._worker = inner, _Worker(type(inner).__name__)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)
        return lambda *args, **kwargs: self._worker(lambda: method(*args, **kwargs))


def aside(seam: SeamT) -> SeamT:
    """The same seam (SlotLog, Control, Registry: methods only), for a thread that must not wait."""
    return cast(SeamT, _Aside(seam))


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
