"""What a stranger, or a web page in the user's browser, might try on the page of a run.

::

    python -m tests.security.attack 'http://127.0.0.1:8700/?token=...'

Prints a line for each attempt; exits with 1 if one of them was not refused. It changes nothing: the
requests that would name a run that does not exist.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

TIMEOUT_S = 60.0
BODY = json.dumps({"run": "nobody-00000000", "delta": 1}).encode()
JSON = {"Content-Type": "application/json"}
MUST_SAY = {
    "content-security-policy": "default-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""In every answer."""
MUST_NOT_SAY = ("access-control-allow-origin", "set-cookie", "server", "x-injected")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request, and how it must end."""

    what: str
    refusals: tuple[int, ...]
    """HTTP statuses that are right; 0: the connection was closed without an answer."""
    method: str = "GET"
    path: str = "/api/now"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] | None = None
    with_cookie: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Target:
    """One server."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.token = parse_qs(parts.query)["token"][0]
        self.authority = f"{self.host}:{self.port}"
        self.origin = f"http://{self.authority}"
        self.entered = self.ask(Attempt(
            what="", refusals=(), path=f"/?token={self.token}", with_cookie=False))  # fmt: skip
        self.cookie = self.entered.headers.get("set-cookie", "").partition(";")[0]

    def ask(self, attempt):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.putrequest(attempt.method, attempt.path, skip_host=True,
                                  skip_accept_encoding=True)  # fmt: skip
            headers = {"Host": self.authority, **attempt.headers}
            if attempt.with_cookie:
                headers.setdefault("Cookie", self.cookie)
            chunked = attempt.body is not None and not isinstance(attempt.body, bytes)
            if isinstance(attempt.body, bytes):
                headers.setdefault("Content-Length", str(len(attempt.body)))
            if chunked:
                headers["Transfer-Encoding"] = "chunked"
            for name, value in headers.items():
                connection.putheader(name, value)
            # Refused before all of it was sent: the answer may be there.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(attempt.body, encode_chunked=chunked)
            answer = connection.getresponse()
            said = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(status=answer.status, headers=said, body=answer.read(1_000_000))
        except (ConnectionError, http.client.HTTPException):
            return Answer(status=0, headers={}, body=b"")
        finally:
            connection.close()


def attempts(target):
    """Every one of them."""
    yield from _strangers(target)
    yield from _names(target)
    yield from _buttons(target)
    yield from _bodies(target)
    yield from _paths()


def _strangers(target):
    name = target.cookie.partition("=")[0]
    for path in ("/", "/static/main.js", "/stream", "/api/now", "/api/dream", "/api/dreams",
                 "/download/curve.csv", "/download/policy.safetensors", "/nothing"):  # fmt: skip
        yield Attempt(what="no cookie", path=path, refusals=(401,), with_cookie=False)
    for token in ("wrong", "", target.token[:-1], target.token + "x", "%00"):
        yield Attempt(what="wrong token", path=f"/?token={token}", refusals=(401,),
                      with_cookie=False)  # fmt: skip
    yield Attempt(what="token elsewhere than at the door", refusals=(401,), with_cookie=False,
                  path=f"/api/now?token={target.token}")  # fmt: skip
    for cookie in (f"{name}=", f"{name}=wrong", f"{name}={target.token}", f"token={target.token}",
                   f"{target.cookie}x", ";;;=\x01"):  # fmt: skip
        yield Attempt(what="wrong cookie", headers={"Cookie": cookie}, refusals=(400, 401))
    yield Attempt(what="button without cookie", method="POST", path="/api/scale", refusals=(401,),
                  headers={**JSON, "Origin": target.origin}, body=BODY,
                  with_cookie=False)  # fmt: skip


def _names(target):
    for host in ("evil.example", f"evil.example:{target.port}", f"{target.host}.evil.example",
                 f"evil.example@{target.host}", "", "localhost.evil.example"):  # fmt: skip
        yield Attempt(what="wrong Host", headers={"Host": host}, refusals=(400, 403))
        yield Attempt(what="wrong Host with token", headers={"Host": host},
                      path=f"/?token={target.token}", refusals=(400, 401, 403),
                      with_cookie=False)  # fmt: skip


def _buttons(target):
    evil = ("http://evil.example", "null", "", f"http://{target.host}:1",
            f"{target.origin}.evil.example", f"http://evil.example/{target.authority}",
            f"http://x@evil.example:{target.port}", f"file://{target.authority}")  # fmt: skip
    for path in ("/api/scale", "/api/slot"):
        for origin in evil:
            yield Attempt(what="foreign Origin", method="POST", path=path, refusals=(403,),
                          headers={**JSON, "Origin": origin}, body=BODY)  # fmt: skip
        yield Attempt(what="no Origin", method="POST", path=path, refusals=(403,), headers=JSON,
                      body=BODY)  # fmt: skip
        yield Attempt(what="asked across sites", method="POST", path=path, refusals=(403,),
                      headers={**JSON, "Origin": target.origin, "Sec-Fetch-Site": "cross-site"},
                      body=BODY)  # fmt: skip
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            yield Attempt(what="a form", method="POST", path=path, refusals=(415,), body=BODY,
                          headers={"Content-Type": kind, "Origin": target.origin})  # fmt: skip
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            yield Attempt(what=f"{method} for POST", method=method, refusals=(405,),
                          path=f"{path}?run=nobody-0&delta=1&slot=0&action=drain")  # fmt: skip
    yield Attempt(what="preflight", method="OPTIONS", path="/api/scale", refusals=(405,),
                  headers={"Origin": "http://evil.example",
                           "Access-Control-Request-Method": "POST"})  # fmt: skip


def _bodies(target):
    ours = {**JSON, "Origin": target.origin}

    def endless():
        for _ in range(2_000):
            yield b" " * 5_000

    for what, body in (
        ("a large body", b" " * 200_000 + BODY),
        ("an endless body", endless()),
    ):
        yield Attempt(what=what, method="POST", path="/api/scale", refusals=(0, 413), headers=ours,
                      body=body)  # fmt: skip
    for body in (b"", b"[]", b"1", b"null", b"{", b"[" * 4000, b"\xff\xfe", b'{"run": ' * 400,
                 b'{"run": "x", "delta": true}', b'{"run": "x", "delta": 1e9}',
                 b'{"run": "x", "delta": 123456789}'):  # fmt: skip
        yield Attempt(what="a body that means nothing", method="POST", path="/api/scale",
                      refusals=(400,), headers=ours, body=body)  # fmt: skip
    yield Attempt(what="large headers", headers={"X-Large": "x" * 300_000}, refusals=(0, 400, 431))


def _paths():
    up = ("..", "%2e%2e", "..%2f..", "....//..", "%252e%252e")
    for first in ("/static/", "/download/", "/api/"):
        for step in up:
            for name in ("app.py", "config.json", "etc/passwd"):
                yield Attempt(what="path traversal", path=f"{first}{step}/{name}", refusals=(404,))
        yield Attempt(what="path traversal", path=f"{first}%2fetc%2fpasswd", refusals=(404,))
        yield Attempt(what="path traversal", path=f"{first}main.js%00.html", refusals=(404,))
    for run in ("../../x", "%2e%2e%2f", "%3Cscript%3Ealert(1)%3C/script%3E", "*",
                "%0d%0aX-Injected:1", "x" * 5000):  # fmt: skip
        for path in ("/api/now", "/api/dream", "/api/dreams", "/stream", "/download/curve.csv"):
            yield Attempt(what="a run that is none", path=f"{path}?run={run}", refusals=(404,))


def wrong_with(attempt, answer):
    """Why the server did not do well; empty if it did."""
    if answer.status not in attempt.refusals:
        return f"answered {answer.status}, not {attempt.refusals}"
    if answer.status == 0:
        return ""
    for name, value in MUST_SAY.items():
        if answer.status != 400 and value not in answer.headers.get(name, ""):
            return f"header {name} is missing"
    for name in MUST_NOT_SAY:
        if name in answer.headers:
            return f"header {name} is there"
    if b"<script" in answer.body.lower() or b"Traceback" in answer.body:
        return f"says {answer.body[:80]!r}"
    return ""


def main() -> int:
    """Tries everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the page, with its token")
    target, failed = Target(parser.parse_args().url), 0
    for attempt in attempts(target):
        wrong = wrong_with(attempt, answer := target.ask(attempt))
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'refused'} {answer.status:3d} {attempt.what}: "
              f"{attempt.method} {attempt.path[:70]} {wrong}")  # fmt: skip
    print(f"{failed} attempts were not refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
