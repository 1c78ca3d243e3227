"""Which run an actor started by hand joins, and what it is told otherwise."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from deploy.compose_config import env_args
from deploy.config import step_bytes
from deploy.place import Place, RedisUrls, redis_place
from deploy.registry import Registry, RunEntry
from deploy.run_folder import RunRecord
from deploy.target import server_urls
from system.errors import ConfigError, RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The run, and where it meets."""

    entry: RunEntry
    record: RunRecord
    place: Place
    registry: Registry


def find_site(options: argparse.Namespace) -> Site:
    """Looks the run up in the registry of `--redis`.

    Raises:
      UserError: no such run, or one that this actor cannot join.
      Unavailable: Redis does not answer.
    """
    urls = server_urls(options, "actor")
    registry = Registry(urls.control)
    entry = find_entry(registry, options.run)
    if not options.redis_data and entry.redis_data:
        # Without a password: others may write the registry.
        urls = RedisUrls(control=urls.control, data=entry.redis_data)
    record = adapted(entry.record(), options)
    place = redis_place(urls, entry.run_id)
    return Site(entry=entry, record=record, place=place, registry=registry)


def find_entry(registry: Registry, name: str | None) -> RunEntry:
    """The run of this name; without one the only one there is.

    Raises:
      RunError: there is none, or several to choose from.
    """
    if name:
        return registry.find(name)
    entries = registry.entries()
    entries = [entry for entry in entries if not entry.ended] or entries
    if len(entries) == 1:
        return entries[0]
    names = ", ".join(entry.name for entry in entries) or "none"
    raise RunError(f"runs in {registry.shown_url}: {names}; name one with --run")


def adapted(record: RunRecord, options: argparse.Namespace) -> RunRecord:
    """The run's record with what this actor was told otherwise. Raises ConfigError."""
    config = record.config
    env = config.env
    if options.env:
        env = replace(env, name=options.env)
    if options.env_arg:
        env = replace(env, args={**env.args, **env_args(options.env_arg)})
    actor = replace(config.actor, copies=options.copies)
    seed = config.seed if options.seed is None else options.seed
    least = 4 * options.copies * config.replay.chunk_length * step_bytes(record.spec)
    if options.spool_bytes < least:
        raise ConfigError(f"--spool-bytes {options.spool_bytes} is too small; use {least} or more")
    return replace(record, config=replace(config, env=env, actor=actor, seed=seed))
