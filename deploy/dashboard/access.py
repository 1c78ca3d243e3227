"""Who may look at the page, and who may press its buttons. Pure.

::

    Host      a name of this machine          else a web page could point its own name here
    cookie    set by the URL with the token   else anybody on this machine could look
    Origin    of a POST: this very page       else another page could press the buttons

The cookie is not the token, and its name tells servers apart: browsers send the cookies of one
port of localhost to all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.exporter.http import LOCAL_NAMES, is_loopback

COOKIE_AGE_S = 30 * 24 * 3600
MOST_BODY_BYTES = 4096
"""Of a POST; a button says little."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    """HTTP status."""
    text: str
    """One line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a request shows of itself."""

    method: str
    headers: Mapping[str, str]
    """Lower-case names."""
    cookies: Mapping[str, str]


class Access:
    """The rules of one server.

    The calls that use it::

        if access.is_token(given): set access.cookie_name to access.cookie_value
        refused = access.refusal(asked)
    """

    def __init__(self, token: str, *, host: str, names: frozenset[str] = frozenset()) -> None:
        """Keeps no secret but the token.

        Args:
          token: whoever shows it may look and press.
          host: address listened on.
          names: of this machine, for a server that other machines reach.
        """
        self._token = token
        self._public = not is_loopback(host)
        self._names = frozenset(name.lower() for name in (*LOCAL_NAMES, _bracketed(host), *names))
        digest = hashlib.sha256(b"dreamfleet page\0" + token.encode()).hexdigest()
        self.cookie_name, self.cookie_value = f"dreamfleet_{digest[:8]}", digest[8:]

    def is_token(self, given: str) -> bool:
        """Whether this is the secret."""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def refusal(self, asked: Asked) -> Refusal | None:
        """Why this request is not answered; None if it is."""
        host = asked.headers.get("host", "")
        if not self.is_named(host):
            return Refusal(status=403, text="this server is not known by that name")
        shown = asked.cookies.get(self.cookie_name, "")
        if not hmac.compare_digest(shown.encode(), self.cookie_value.encode()):
            return Refusal(
                status=401, text="open the printed URL; with --token-file, append ?token=SECRET"
            )
        if asked.method == "POST":
            return _refused_post(asked.headers, host)
        return None

    def is_named(self, asked: str) -> bool:
        """Whether the Host header names this server.

        Nobody can point an address somewhere else, so a public server takes any.
        """
        name = asked if asked.endswith("]") else asked.rpartition(":")[0] or asked
        return name.lower() in self._names or (self._public and _is_address(name))


def _refused_post(headers: Mapping[str, str], host: str) -> Refusal | None:
    origin = urlsplit(headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc.lower() != host.lower():
        return Refusal(status=403, text="only the page itself may ask for this")
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return Refusal(status=403, text="only the page itself may ask for this")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(status=415, text="send application/json")
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
