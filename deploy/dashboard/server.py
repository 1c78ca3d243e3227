"""The page as a server: uvicorn in a thread, one hub."""

from __future__ import annotations

import secrets
import socket
import threading

import uvicorn

from deploy.dashboard.access import Access
from deploy.dashboard.app import make_app
from deploy.dashboard.hub import Hub
from deploy.dashboard.source import Runs
from deploy.exporter.http import is_loopback
from system.clock import Clock
from system.errors import ConfigError

FIRST_PORT = 8700
TRIED_PORTS = 100
MOST_CONNECTIONS = 256
END_S = 5.0
"""Longest wait for open answers at the end [s]."""


class PageServer:
    """Listens at once; threads of its own, ended by `close`.

    The calls that use it::

        server = PageServer(runs, clock)
        server.url                          # with the token
        server.close()

    Raises:
      ConfigError: the address cannot be listened on, or is public and there is no token.
    """

    def __init__(
        self,
        runs: Runs,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str = "",
        first_run: str = "",
    ) -> None:
        """Starts.

        Args:
          runs: whose page it is; closed with the server.
          clock: for pauses and timestamps.
          host: address to listen on.
          port: 0 takes a free one, None the first free one from 8700 on.
          token: the secret; empty makes one, which only a loopback address may have.
          first_run: name of the run that a tab sees which asks for none.
        """
        if not (token or is_loopback(host)):
            raise ConfigError(
                f"--host {host} lets other machines see the runs and scale them; give a secret "
                "with --token-file FILE, or leave --host out"
            )
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])
        self.token = token or secrets.token_urlsafe(24)
        names = frozenset() if is_loopback(host) else _machine_names()
        access = Access(self.token, host=host, names=names)
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
        self.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"
        self.url = f"{self.address}?token={self.token}"
        self._hub = Hub(runs, clock, first_run=first_run)
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(self._hub, access), access_log=False, log_level="error", lifespan="off",
                ws="none", http="h11", loop="asyncio", server_header=False, proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="page", daemon=True
        )
        self._hub.start()
        self._thread.start()

    def close(self) -> None:
        """Stops listening and reading."""
        self._server.should_exit = True
        self._hub.close()
        self._thread.join(END_S)
        self._socket.close()


def _listening(host: str, port: int | None) -> socket.socket:
    """A socket on the first port that can be had."""
    ports = range(FIRST_PORT, FIRST_PORT + TRIED_PORTS) if port is None else [port]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in ports:
        try:
            return socket.create_server((host, tried), family=family, backlog=128)
        except (OSError, OverflowError) as error:
            last = error
    shown = f"{ports[0]}" if len(ports) == 1 else f"{ports[0]}..{ports[-1]}"
    raise ConfigError(f"cannot listen on {host}:{shown}: {last}; choose --port") from last


def _machine_names() -> frozenset[str]:
    return frozenset({socket.gethostname(), socket.getfqdn()})
