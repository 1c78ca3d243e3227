"""`dreamfleet dashboard`: the page of a folder's runs, or of a Redis's, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.dashboard.folders import FolderRuns
from deploy.dashboard.remote import RemoteRuns
from deploy.dashboard.server import PageServer
from deploy.dashboard.source import Runs
from deploy.exporter.http import read_token
from deploy.run_folder import RunFolder
from deploy.signals import Interrupts
from deploy.target import must_not_refuse, server_urls
from system.clock import Clock, SystemClock
from system.errors import ConfigError

LOOK_S = 0.2


def dashboard(options: argparse.Namespace) -> None:
    """Serves until it is told to stop; also while Redis is away.

    Raises:
      ConfigError: an address or a token that cannot be used.
      RunError: there is no such run in this folder.
      UserError: Redis refuses our password.
    """
    token = read_token(options.token_file) if options.token_file else ""
    clock = SystemClock()
    server = PageServer(
        _runs(options, clock), clock, host=options.host, port=options.port, token=token
    )
    # Whoever gave a token knows it; it need not be in a log.
    sys.stderr.write(f"the page is at {server.address if token else server.url}\n")
    with Interrupts(lambda: None) as interrupts:
        while not interrupts.stopping:
            clock.sleep(LOOK_S)
    server.close()


def _runs(options: argparse.Namespace, clock: Clock) -> Runs:
    if options.redis:
        urls = server_urls(options, "learner")
        must_not_refuse(urls.control)
        return RemoteRuns(urls, clock, only=options.run)
    for name in ("redis_data", "secrets"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} is of a Redis server: name it with "
                              "--redis URL")  # fmt: skip
    where = Path.cwd()
    if options.run:
        RunFolder.open(where, options.run)
    return FolderRuns(where, only=options.run)
