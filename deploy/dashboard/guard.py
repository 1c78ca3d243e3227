"""Stands before every route: asks `Access`, sets the cookie, adds the headers."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.dashboard.access import COOKIE_AGE_S, HEADERS, Access, Asked
from deploy.dashboard.answers import of_error, to_response


class Guard:
    """An ASGI application around another one."""

    def __init__(self, inner: ASGIApp, access: Access) -> None:
        self._inner, self._access = inner, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; websockets are closed."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._answer(scope)
        await (answer or self._inner)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """What needs no route; None lets the request pass."""
        headers = Headers(scope=scope)
        access = self._access
        asked = Asked(
            method=scope["method"], headers=headers, cookies=_cookies(headers.get("cookie", ""))
        )
        given = _query(scope) if scope["path"] == "/" and scope["method"] == "GET" else {}
        named = access.is_named(headers.get("host", ""))
        if named and access.is_token(given.get("token", "")):
            return self._enter(given.get("run", ""))
        refusal = access.refusal(asked)
        if refusal is None:
            return None
        return to_response(of_error(refusal.text, refusal.status))

    def _enter(self, run_id: str) -> Response:
        """Away from the URL with the token: it would stay in the address bar and the history."""
        answer = RedirectResponse(f"/?{urlencode({'run': run_id})}" if run_id else "/", 303)
        answer.set_cookie(
            self._access.cookie_name, self._access.cookie_value,
            max_age=COOKIE_AGE_S, path="/", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer


def _query(scope: Scope) -> dict[str, str]:
    """The first value of each name."""
    query: bytes = scope.get("query_string", b"")
    return {name: values[0] for name, values in parse_qs(query.decode("latin-1")).items()}


def _cookies(text: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    except CookieError:
        return {}
