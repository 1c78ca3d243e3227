"""`train`, `resume`, `evaluate`: the commands that build environments and models."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from deploy.compose_config import config_of
from deploy.config import RunConfig, check_config, check_fit
from deploy.run_folder import RUNS, RunFolder
from deploy.target import find_target
from system.clock import SystemClock
from system.config import to_json
from system.errors import CheckpointError, ConfigError, RunError
from system.redis_client import without_password


def train(options: argparse.Namespace) -> None:
    """`dreamfleet train`: makes the run and drives it."""
    where = Path.cwd()
    config = config_of(options, where)
    if options.print_config:
        print_config(config)
        return
    if options.seeds:
        if options.seed:
            raise ConfigError(f"--seed {options.seed} and --seeds do not fit: name the seeds as a "
                              f"list, --seeds {options.seed},{options.seed + 1}")  # fmt: skip
        from deploy.seeds import train_seeds

        _check_redis(config)
        train_seeds(config, options, where, lambda one: _create(one, where))
        return
    if options.parallel:
        raise ConfigError("--parallel needs --seeds: it says how many seeds run at a time")
    if options.detach and config.fleet.runner == "local":
        raise ConfigError("--detach needs --runner ray: --runner local is this very process")
    existing = RunFolder(where / RUNS / config.run)
    if options.resume and existing.exists():
        _go_on(existing, config, options)
        return
    existing.refuse_existing()
    _check_redis(config)
    _drive(_create(config, where), options, actors=config.fleet.actors)


def _create(config: RunConfig, where: Path) -> RunFolder:
    """Makes the folder of a run that can be trained here."""
    from actors.envs.registry import env_spec

    spec = env_spec(config.env)
    check_fit(config, spec)
    from deploy.memory import check_memory, free_memory
    from learner.device import choose_device

    # Learner and driver share a machine, and the folder.
    check_memory(config, spec, free_memory(choose_device(config.learner.device), where))
    return RunFolder.create(where, config, spec)


def resume(options: argparse.Namespace) -> None:
    """`dreamfleet resume`: goes on with a run that was stopped.

    Its folder is here; or, with `--redis` and `--address`, on the head of a Ray cluster.
    """
    where = Path.cwd()
    if options.redis and not RunFolder(where / RUNS / options.run).exists():
        from deploy.launch import resume_elsewhere

        resume_elsewhere(options)
        return
    folder = RunFolder.open(where, options.run)
    if folder.in_use():
        raise RunError(f"run {folder.name!r} is running; look with: dreamfleet status --run "
                       f"{folder.name}")  # fmt: skip
    before = folder.record().config
    config = _reconfigured(before, options)
    _check_redis(config)
    if has_finished(folder, config.frames):
        raise RunError(
            f"run {folder.name!r} has finished its {config.frames} frames; train on with: "
            f"dreamfleet resume --run {folder.name} --frames {2 * config.frames}"
        )
    if config != before:
        folder.reconfigure(config)
    _drive(folder, options, actors=options.actors)


def _reconfigured(config: RunConfig, options: argparse.Namespace) -> RunConfig:
    """With the frame limit and the servers that the options name."""
    if options.frames is not None:
        config = replace(config, frames=options.frames)
    servers = {
        name: getattr(options, name)
        for name in ("redis", "redis_data", "secrets")
        if getattr(options, name) is not None
    }
    config = replace(config, fleet=replace(config.fleet, **servers))
    check_config(config)
    return config


def evaluate_run(options: argparse.Namespace) -> None:
    """`dreamfleet evaluate`: plays episodes with the newest policy, here."""
    target = find_target(options, Path.cwd())
    record = target.record
    import torch

    from actors.envs.registry import make_env
    from actors.evaluate import evaluate
    from deploy.attended import told
    from deploy.evaluator import SEED_OFFSET
    from deploy.parts import new_agent

    config = record.config
    snapshot = target.policy()
    agent = new_agent(config)(record.spec)
    try:
        agent.load(snapshot)
    except ValueError as error:
        raise CheckpointError(f"policy of run {target.name!r}: {error}") from None
    seed = config.seed + 2 * SEED_OFFSET if options.seed is None else options.seed
    env = make_env(
        config.env, num_copies=min(options.episodes, config.evaluation.copies), seed=seed
    )
    # The filter samples its latent: a seed fixes this too.
    torch.manual_seed(seed)
    try:
        playing = told(env, SystemClock(), episodes=options.episodes)
        result = evaluate(agent, playing, episodes=options.episodes, seed=seed)
    finally:
        env.close()
    if options.json:
        write_json_line(
            {
                "return_mean": result.return_mean,
                "return_std": result.return_std,
                "episodes": result.episodes,
                "policy_version": result.policy_version,
            }
        )
        return
    sys.stdout.write(
        f"return {result.return_mean:.1f} +- {result.return_std:.1f} over {result.episodes} "
        f"episodes, policy version {result.policy_version} "
        f"({snapshot.agent_steps * config.env.action_repeat:,} frames)\n"
    )


def print_config(config: RunConfig) -> None:
    """The complete config as JSON, passwords in the Redis URLs left out."""
    redis, data = without_password(config.fleet.redis), without_password(config.fleet.redis_data)
    config = replace(config, fleet=replace(config.fleet, redis=redis, redis_data=data))
    sys.stdout.write(json.dumps(to_json(config), indent=2) + "\n")


def write_json_line(data: dict[str, object]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(data) + "\n")


def _check_redis(config: RunConfig) -> None:
    """Before anything is built: are the named servers there?"""
    fleet = config.fleet
    if fleet.redis and fleet.runner == "ray":
        from deploy.place import RedisUrls
        from deploy.secrets import role_urls
        from system.redis_client import ping

        plain = RedisUrls(control=fleet.redis, data=fleet.redis_data)
        urls = role_urls(plain, "learner", fleet.secrets)
        for url in {urls.control, urls.data}:
            ping(url)


def _go_on(folder: RunFolder, wished: RunConfig, options: argparse.Namespace) -> None:
    """With the run's own settings and the actors wished last, never to fewer frames than it has.

    One that goes on already is watched.
    """
    from deploy.same_settings import refuse_other_wishes

    refuse_other_wishes(folder, wished, [one.partition("=")[0] for one in options.settings])
    if folder.in_use():
        from deploy.drive import watch

        watch(folder, Console())
        return
    before = folder.record().config
    config = _reconfigured(before, options)
    if 0 < config.frames < before.frames or before.frames == 0:
        config = replace(config, frames=before.frames)  # moved by `resume` since this was written
    if has_finished(folder, config.frames):
        sys.stdout.write(f"run {folder.name} has finished its frames\n")
        return
    _check_redis(config)
    if config != before:
        folder.reconfigure(config)
    _drive(folder, options, actors=None)


def has_finished(folder: RunFolder, frames: int) -> bool:
    """Whether it was trained, and measured, to its frame limit."""
    return frames > 0 and any(line["frames"] >= frames for line in folder.evaluations())


def _drive(folder: RunFolder, options: argparse.Namespace, *, actors: int | None) -> None:
    from deploy.drive import drive

    drive(folder, Console(), actors=actors, detach=options.detach)
