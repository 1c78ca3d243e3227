"""The page's routes: Starlette, every answer behind `guard.Guard`.

::

    GET   /  /static/FILE  /stream  /api/now  /api/dream  /api/dreams  /download/FILE
    POST  /api/scale  /api/slot

No GET changes anything. What a run's processes wrote goes out as JSON and is never HTML here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deploy.dashboard import answers
from deploy.dashboard.access import MOST_BODY_BYTES, Access
from deploy.dashboard.answers import Answer, of_error, to_response
from deploy.dashboard.guard import Guard
from deploy.dashboard.hub import Hub
from deploy.dashboard.tabs import Tabs
from system.errors import DreamfleetError

Handler = Callable[[Request], Awaitable[Response]]


def make_app(hub: Hub, access: Access) -> ASGIApp:
    """The whole page, for one hub."""
    routes = [
        Route("/", _get(lambda request: answers.static("index.html"))),
        Route("/static/{name}", _get(lambda request: answers.static(_name(request)))),
        Route("/stream", Tabs(hub).open),
        Route("/api/now", _get(lambda request: answers.now(hub, request.query_params))),
        Route("/api/dream", _get(lambda request: answers.dream(hub, request.query_params))),
        Route("/api/dreams", _get(lambda request: answers.dreams(hub, request.query_params))),
        Route(
            "/download/{name}",
            _get(lambda request: answers.download(hub, _name(request), request.query_params)),
        ),
        Route("/api/scale", _post(lambda body: answers.scale(hub, body)), methods=["POST"]),
        Route("/api/slot", _post(lambda body: answers.slot(hub, body)), methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _plain}), access)


def _get(answer: Callable[[Request], Answer]) -> Handler:
    async def handler(request: Request) -> Response:
        return await _answered(lambda: answer(request))

    return handler


def _post(answer: Callable[[dict[str, Any]], Answer]) -> Handler:
    async def handler(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY_BYTES:
                most = f"at most {MOST_BODY_BYTES} bytes may be sent"
                return to_response(of_error(most, 413))
        return await _answered(lambda: answer(answers.parse_body(body)))

    return handler


async def _answered(answer: Callable[[], Answer]) -> Response:
    """In a thread: it may wait for Redis or a file."""
    try:
        return to_response(await run_in_threadpool(answer))
    except (DreamfleetError, OSError) as error:
        return to_response(answers.refused(error))


async def _plain(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return to_response(of_error("there is no such page", status))


def _name(request: Request) -> str:
    return str(request.path_params["name"])
