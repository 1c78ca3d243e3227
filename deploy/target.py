"""Which run a command is for: one of the folder it is given in, or one of a Redis.

::

    --redis URL    Registry(URL).find(name)    -> RemoteRun    works from any machine
    else           runs/NAME/ here             -> FolderRun    knows what metrics.jsonl remembers
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.acl import Role
from deploy.operated import FolderRun, RemoteRun, Target
from deploy.place import RedisUrls
from deploy.registry import Registry
from deploy.run_folder import RUNS, RunFolder, list_runs
from deploy.secrets import role_urls
from deploy.status import is_supervised
from system.errors import RunError, Unavailable
from system.redis_client import ReplyError, connect


def find_target(options: argparse.Namespace, where: Path) -> Target:
    """The run that `--run` and `--redis` name; without a name the only one there is.

    Raises:
      RunError: there is none of this name, or several to choose from.
    """
    if options.redis:
        registry = open_registry(options, "learner")
        name = options.run or _only(*_remote_names(registry), place=registry.shown_url)
        return RemoteRun(registry, registry.find(name))
    return FolderRun(RunFolder.open(where, options.run or only_folder(where)))


def server_urls(options: argparse.Namespace, role: Role) -> RedisUrls:
    """The servers that `--redis` names, with the passwords of `--secrets` for this role."""
    data = getattr(options, "redis_data", None) or ""
    return role_urls(RedisUrls(control=options.redis, data=data), role, options.secrets)


def must_not_refuse(url: str) -> None:
    """Redis may be away now, but a wrong password is told at once. Raises UserError."""
    connection = connect(url)
    with contextlib.suppress(Unavailable, ReplyError):
        connection.call("PING")
    connection.close()


def open_registry(options: argparse.Namespace, role: Role) -> Registry:
    """The registry of the server that `--redis` names."""
    urls = server_urls(options, role)
    return Registry(urls.control, data="" if urls.data == urls.control else urls.data)


def _remote_names(registry: Registry) -> tuple[list[str], list[str]]:
    entries = registry.entries()
    running = []
    for entry in entries:
        with contextlib.closing(registry.control(entry.run_id)) as control:
            if is_supervised(control.leases()):
                running.append(entry)
    return [entry.run_id for entry in running], [entry.run_id for entry in entries]


def only_folder(where: Path) -> str:
    """The run of this folder that runs, or else the only one there is. Raises RunError."""
    names = list_runs(where)
    running = [name for name in names if RunFolder(where / RUNS / name).in_use()]
    return _only(running, names, place=str(where / RUNS))


def _only(running: Sequence[str], known: Sequence[str], *, place: str) -> str:
    """The one that runs, or else the one there is; says which."""
    for names in (running, known):
        if len(names) == 1:
            sys.stderr.write(f"run {names[0]}\n")
            return names[0]
    if not known:
        raise RunError(f"no run in {place}; start one with: dreamfleet train --env ID")
    listing = ", ".join(running or known)
    raise RunError(f"{len(running or known)} runs in {place}: {listing}; name one with --run")
