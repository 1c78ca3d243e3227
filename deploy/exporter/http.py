"""One page over HTTP, `/metrics`, for Prometheus.

On loopback anybody of this machine may ask, but only under a name of this machine: a web page that
points its own name here is refused. Elsewhere whoever asks must show a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from system.errors import ConfigError

REQUEST_TIMEOUT_S = 10.0
LEAST_TOKEN_CHARS = 16
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class MetricsServer:
    """Serves one registry; threads of its own, ended by `close`.

    The calls that use it::

        server = MetricsServer(registry, host="127.0.0.1", port=9464, token="")
        server.url
        server.close()

    Raises:
      ConfigError: the address cannot be listened on, or is public and there is no token.
    """

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int, token: str) -> None:
        """Listens at once; `port` 0 takes a free one. An empty token asks for none."""
        if not (token or is_loopback(host)):
            raise ConfigError(
                f"--host {host} lets other machines read the metrics; give a secret with "
                "--token-file FILE, or leave --host out"
            )
        handler = _handler(registry, host, token)
        try:
            self._server = _Server((host, port), handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose --port") from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_token(path: str) -> str:
    """The secret in a file.

    Raises:
      ConfigError: it cannot be read, or is too short to be one.
    """
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path} cannot be read: {error}") from error
    if len(token) < LEAST_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"--token-file {path} must hold {LEAST_TOKEN_CHARS} or more characters: "
            f"openssl rand -hex 32 > {path}"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


def _handler(registry: CollectorRegistry, host: str, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S
        server_version, sys_version = "dreamfleet", ""

        def do_GET(self) -> None:
            refused = _refusal(self.headers, host, token)
            if refused is None and self.path.partition("?")[0] != "/metrics":
                refused = HTTPStatus.NOT_FOUND
            if refused is not None:
                self._answer(refused, f"{refused.phrase}; see /metrics\n".encode(), "text/plain")
                return
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encoder(registry), content_type)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: a scrape is no news."""

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if status is HTTPStatus.UNAUTHORIZED:
                self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _refusal(headers: Message, host: str, token: str) -> HTTPStatus | None:
    """Why this request is not answered; None if it is."""
    if not token:
        named = _is_named(headers.get("Host", ""), host)
        return None if named else HTTPStatus.FORBIDDEN
    given = headers.get("Authorization", "").encode()
    shown = hmac.compare_digest(given, f"Bearer {token}".encode())
    return None if shown else HTTPStatus.UNAUTHORIZED


def _is_named(asked: str, host: str) -> bool:
    """Whether the Host header names the address listened on, with or without a port."""
    name = asked if asked.endswith("]") else asked.rpartition(":")[0] or asked
    return name in (*LOCAL_NAMES, host)
