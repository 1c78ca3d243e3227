"""One stream of events for each open tab."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deploy.dashboard.answers import FIRST_LOOK_S, of_error, to_response
from deploy.dashboard.hub import Hub
from deploy.dashboard.stream import HEARTBEAT, Has, list_news, now_has, run_news
from system.errors import Unavailable

HEARTBEAT_S = 10.0
RETRY_MS = 2000
"""A browser tries again after so long [ms]."""
MOST_TABS = 64


class Tabs:
    """Every tab of one server."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._open = 0

    async def open(self, request: Request) -> Response:
        """Answers a tab: a stream that ends with the tab or the server."""
        if request.method != "GET":  # Starlette lets HEAD through: a stream without an end
            return to_response(of_error("a stream is for GET", 405))
        run_id = request.query_params.get("run", "")
        try:
            if run_id and await run_in_threadpool(self._hub.source, run_id) is None:
                return to_response(of_error(f"no run {run_id[:100]!r}", 404))
        except Unavailable as error:
            return to_response(of_error(str(error), 503))
        if self._open >= MOST_TABS:
            return to_response(of_error(f"{MOST_TABS} tabs are open; close one", 503))
        has = Has.parse(request.headers.get("last-event-id", ""))
        self._open += 1
        return _Stream(self._frames(run_id, has), self._left)

    def _left(self) -> None:
        self._open -= 1

    async def _frames(self, run_id: str, has: Has) -> AsyncIterator[bytes]:
        hub, loop, news = self._hub, asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:  # called by the reader
            with contextlib.suppress(RuntimeError):  # the server is gone
                loop.call_soon_threadsafe(news.set)

        yield f"retry: {RETRY_MS}\n\n".encode()
        if not run_id:
            await run_in_threadpool(hub.asked, "", timeout_s=FIRST_LOOK_S)
            run_id = hub.default_run()
        with hub.watch(run_id, wake):
            while not hub.closing:
                news.clear()
                listed, shown = hub.listed, hub.shown(run_id)
                frames = list_news(listed, has)
                frames += run_news(shown, has) if shown is not None else []
                has = now_has(listed, shown, has)
                if frames:
                    yield b"".join(frames)
                try:
                    await asyncio.wait_for(news.wait(), HEARTBEAT_S)
                except TimeoutError:
                    yield HEARTBEAT


class _Stream(StreamingResponse):
    """Tells when it is over, also if it never began."""

    def __init__(self, frames: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        super().__init__(frames, media_type="text/event-stream")
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()
