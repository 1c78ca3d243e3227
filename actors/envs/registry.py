"""From a name to an environment: the only place that knows the families.

::

    dm_control/<domain>-<task>      the dm_control suite (extra `dmc`)
    Name-v0, namespace/Name-v0      any registered gymnasium id
    MiniGrid-..., BabyAI-...        likewise (extra `minigrid`)
    module:Name-v0                  imports the module first, which registers the id
"""

from __future__ import annotations

from actors.config import EnvConfig
from actors.envs.batched import FaultTolerantEnv, OnFault, ignore_fault
from actors.envs.copies import Copies, Waiting, keep_waiting
from actors.envs.dm_control import PREFIX, DmControlSimulator, suite_names
from actors.envs.gl import check_named
from actors.envs.gymnasium import GymnasiumSimulator, is_registered, registered_names
from actors.envs.isolated import ProcessCopies
from actors.envs.pixels import PixelSimulator, SeenSimulator
from actors.envs.simulator import SimulatorEnv
from actors.envs.threads import ThreadCopies
from system.errors import ConfigError, nearest
from system.specs import EnvSpec


def make_single(config: EnvConfig) -> SimulatorEnv:
    """One copy, as a SingleEnv.

    Raises:
      ConfigError: unknown name (nearest match named), unknown argument, unsupported space, or a
        missing extra.
    """
    check_named()
    if config.name.startswith(PREFIX):
        names = suite_names()
        if names and config.name not in names:
            raise _unknown(config.name)
        return _seen(DmControlSimulator(config), config)
    if not is_registered(config.name):
        raise _unknown(config.name)
    return _seen(GymnasiumSimulator(config), config)


def _seen(simulator: SeenSimulator, config: EnvConfig) -> SimulatorEnv:
    if config.pixels.show == "off":
        return SimulatorEnv(simulator, config)
    return SimulatorEnv(PixelSimulator(simulator, config.pixels), config)


def make_env(
    config: EnvConfig,
    *,
    num_copies: int,
    seed: int,
    slot: int = 0,
    on_fault: OnFault = ignore_fault,
    while_waiting: Waiting = keep_waiting,
) -> FaultTolerantEnv:
    """N copies behind one BatchedEnv that survives what a copy does.

    Args:
      config: which environment.
      num_copies: N.
      seed: with `slot`, the copy's number and how often it was rebuilt, seeds each copy.
      slot: the actor's place in the fleet.
      on_fault: called with (copy, fault) whenever a copy is rebuilt, by the stepping thread.
      while_waiting: called about once a second while a step takes long, so that a lease can be
        renewed.

    Raises:
      ConfigError: see `make_single`.
      EnvironmentFault: building a copy raised, hung or died.
    """
    return FaultTolerantEnv(
        _make_copies(config, num_copies, while_waiting),
        num_copies=num_copies,
        seed=(seed, slot),
        on_fault=on_fault,
    )


def env_spec(config: EnvConfig) -> EnvSpec:
    """What the environment shows and takes; builds and closes one copy.

    Raises:
      ConfigError: see `make_single`.
      EnvironmentFault: building it raised, hung or died.
    """
    copies = _make_copies(config, 1, keep_waiting)
    copies.close()
    return copies.spec


def _make_copies(config: EnvConfig, num_copies: int, while_waiting: Waiting) -> Copies:
    if config.isolate:
        return ProcessCopies(config, num_copies=num_copies, while_waiting=while_waiting)
    return ThreadCopies(
        lambda: make_single(config), config, num_copies=num_copies, while_waiting=while_waiting
    )


def _unknown(name: str) -> ConfigError:
    module, colon, _ = name.rpartition(":")
    known = [*suite_names(), *(module + colon + each for each in registered_names())]
    hint = "" if colon else "; one of another package is named with its module: package:Id-v0"
    return ConfigError(f"unknown environment {name!r}; {nearest(name, known)}{hint}")
