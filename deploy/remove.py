"""`dreamfleet runs rm NAME`: frees what a run holds in Redis; its folder only with `--folder`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.config import FleetConfig
from deploy.place import RedisUrls
from deploy.redis_server import EmbeddedRedis
from deploy.registry import Registry
from deploy.run_folder import RunFolder
from deploy.secrets import role_urls
from deploy.target import open_registry
from system.control.protocol import Lease
from system.errors import ConfigError, RejectedChunk, RunError, UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is to be removed."""

    run_id: str
    name: str
    folder: RunFolder | None = None
    """Its folder, if this terminal works in it: nobody starts the run there meanwhile."""
    with_folder: bool = False
    """Whether the folder is to be deleted too."""


def remove(options: argparse.Namespace) -> None:
    """Frees a run that nobody drives any more.

    Raises:
      ConfigError: no name was given.
      RunError: there is no such run, it is running, or its folder cannot be reached.
    """
    if not options.name:
        raise ConfigError("`runs rm` needs the name of a run; list them with: dreamfleet runs")
    if options.redis:
        with contextlib.closing(open_registry(options, "admin")) as registry:
            _free(registry, _found(registry, options), options)
        return
    folder = RunFolder.open(Path.cwd(), options.name)
    record = folder.record()
    _refuse_in_use(folder)
    found = Found(run_id=record.run_id, name=folder.name, folder=folder, with_folder=options.folder)
    fleet = record.config.fleet
    if fleet.redis:
        with contextlib.closing(_registry_of(fleet, options)) as registry:
            _free(registry, found, options)
    else:
        _free_embedded(folder, fleet, found, options)


def _found(registry: Registry, options: argparse.Namespace) -> Found:
    if options.name in registry.listing().unreadable:
        if options.folder:
            raise RunError(f"run {options.name!r} is unreadable: where its folder is, is not known")
        return Found(run_id=options.name, name=options.name)
    entry = registry.find(options.name)
    folder = None
    if options.folder:
        folder = RunFolder(Path(entry.folder))
        if entry.host != socket.gethostname() or not _holds(folder, entry.run_id):
            raise RunError(
                f"the folder of run {entry.name!r} is {entry.folder} on {entry.host}; delete it "
                "there, or leave out --folder"
            )
        _refuse_in_use(folder)
    return Found(run_id=entry.run_id, name=entry.name, folder=folder, with_folder=options.folder)


def _holds(folder: RunFolder, run_id: str) -> bool:
    """Whether it is that run's: the path came from the registry, which others may write."""
    try:
        return folder.record().run_id == run_id
    except UserError:
        return False


def _free(registry: Registry, found: Found, options: argparse.Namespace) -> None:
    _refuse_alive(registry, found)
    _confirm(found, options)
    with _kept_still(found):
        _refuse_alive(registry, found)  # it may have been resumed while the question was open
        freed = registry.remove(found.run_id)
        _say(f"run {found.name} ({found.run_id}): freed {freed:,} bytes in {registry.shown_url}")
        _delete_folder(found)


def _refuse_alive(registry: Registry, found: Found) -> None:
    holders = _holders(registry, found.run_id)
    if holders:
        those = ", ".join(f"{lease.role} {lease.slot} ({lease.who})" for lease in holders[:4])
        raise RunError(
            f"run {found.name!r} still has living processes: {those}; end it with: dreamfleet stop "
            f"--run {found.name}, and actors started by hand with Ctrl-C"
        )


@contextlib.contextmanager
def _kept_still(found: Found) -> Iterator[None]:
    """Nobody starts the run meanwhile. Raises RunError if somebody has, or just does."""
    if found.folder is None:
        yield
        return
    end = found.folder.end()
    with found.folder.starting():
        if end is not None:  # a start would forget it
            found.folder.write_end(end)
        yield


def _free_embedded(
    folder: RunFolder, fleet: FleetConfig, found: Found, options: argparse.Namespace
) -> None:
    """Its server is its own: what a dead supervisor left running, and its files."""
    _confirm(found, options)
    with _kept_still(found):
        EmbeddedRedis(folder.redis_path, max_memory_bytes=fleet.redis_memory_bytes).stop()
        freed = num_bytes(folder.redis_path)
        shutil.rmtree(folder.redis_path, ignore_errors=True)
        _say(f"run {found.name} ({found.run_id}): freed {freed:,} bytes in {folder.redis_path}")
        _delete_folder(found)


def _delete_folder(found: Found) -> None:
    if found.folder is None or not found.with_folder:
        return
    freed = num_bytes(found.folder.path)
    shutil.rmtree(found.folder.path)
    _say(f"deleted {found.folder.path}: {freed:,} bytes")


def _holders(registry: Registry, run_id: str) -> list[Lease]:
    """Processes that would go on writing."""
    with contextlib.closing(registry.control(run_id)) as control:
        try:
            return control.leases()
        except RejectedChunk:
            return []  # no process of ours writes such a lease


def _registry_of(fleet: FleetConfig, options: argparse.Namespace) -> Registry:
    urls = RedisUrls(control=fleet.redis, data=options.redis_data or fleet.redis_data)
    urls = role_urls(urls, "admin", options.secrets or fleet.secrets)
    return Registry(urls.control, data=urls.data)


def _refuse_in_use(folder: RunFolder) -> None:
    if folder.in_use():
        raise RunError(
            f"run {folder.name!r} is running; end it with: dreamfleet stop --run {folder.name}"
        )


def _confirm(found: Found, options: argparse.Namespace) -> None:
    if options.yes:
        return
    what = "everything it holds in Redis"
    if found.folder is not None and found.with_folder:
        what += f" and its folder {found.folder.path}, checkpoints included"
    if not sys.stdin.isatty():
        raise RunError(f"`runs rm {found.name}` would delete {what}; say --yes to do so")
    sys.stdout.write(f"delete run {found.name} ({found.run_id}): {what}? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RunError("nothing was deleted")


def num_bytes(folder: Path) -> int:
    """Size of all files under a folder [bytes]."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it may be renamed or deleted meanwhile
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
