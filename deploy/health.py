"""Is what runs here alive? For the health checks of containers; says in one line why not.

::

    python -m deploy.health                        a run of ./runs is driven
    python -m deploy.health actor --redis URL      a process of this role on this machine renews its
        [--secrets DIR] [--run NAME]               lease
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.acl import Role
from deploy.parser import Parser
from deploy.place import RedisUrls
from deploy.registry import Registry
from deploy.run_folder import RUNS, RunFolder, list_runs
from deploy.secrets import role_urls
from system.control.protocol import Lease
from system.errors import DreamfleetError, RunError

SPEAKS_AS: dict[str, Role] = {"actor": "actor", "learner": "learner", "supervisor": "learner"}


def check(options: argparse.Namespace, where: Path) -> None:
    """Returns if it is alive.

    Raises:
      RunError: it is not.
      Unavailable: Redis does not answer.
    """
    if options.redis is None:
        if not any(RunFolder(where / RUNS / name).in_use() for name in list_runs(where)):
            raise RunError(f"no run of {where / RUNS} is driven")
        return
    host = socket.gethostname()
    lives = any(
        lease.role == options.role and lease.who.split(":")[0] == host for lease in _leases(options)
    )
    if not lives:
        raise RunError(f"no {options.role} of {host} renews its lease")


def _leases(options: argparse.Namespace) -> Iterator[Lease]:
    plain = RedisUrls(control=options.redis)
    urls = role_urls(plain, SPEAKS_AS[options.role], options.secrets)
    with contextlib.closing(Registry(urls.control)) as registry:
        entries = [registry.find(options.run)] if options.run else registry.entries()
        for entry in entries:
            with contextlib.closing(registry.control(entry.run_id)) as control:
                yield from control.leases()


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 if it is alive, else 1."""
    parser = Parser(prog="python -m deploy.health", allow_abbrev=False)
    parser.add_argument("role", nargs="?", choices=SPEAKS_AS, default="supervisor")
    for name in ("--redis", "--secrets", "--run"):
        parser.add_argument(name)
    try:
        check(parser.parse_args(arguments), Path.cwd())
    except DreamfleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
