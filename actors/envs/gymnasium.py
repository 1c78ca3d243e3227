"""Any registered gymnasium environment as a simulator.

Made as a single environment without vectorization: the reset is ours, never an autoreset.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.config import EnvConfig, PixelsConfig
from actors.envs.pixels import Eye, Frames
from actors.envs.protocol import Observation
from actors.envs.simulator import Advance
from actors.envs.spaces import ActionWriter, ObservationReader
from system.errors import ConfigError, nearest

FAMILIES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Ids whose module we know, and have an extra for."""


def is_registered(name: str) -> bool:
    """Whether gymnasium knows this id, after importing the module of `module:Id`.

    Raises:
      ConfigError: the module cannot be imported.
    """
    module, _, env_id = name.rpartition(":")
    extra = next((FAMILIES[start] for start in FAMILIES if env_id.startswith(start)), "")
    if module or extra:
        try:
            importlib.import_module(module or extra)
        except ImportError as error:
            fix = f"; install the extra: pip install 'dreamfleet[{extra}]'" if extra else ""
            what = f"cannot import {module or extra!r}: {error}{fix}"
            raise ConfigError(f"env {name!r}: {what}") from error
    return env_id in gymnasium.registry


def registered_names() -> list[str]:
    """Every id gymnasium knows now."""
    return list(gymnasium.registry)


class GymnasiumSimulator:
    """One gymnasium environment; see `Simulator`.

    Raises:
      ConfigError: it cannot be built with these arguments, or its spaces are not supported.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._env = _make(config)
        try:
            space = self._env.observation_space
            reader = ObservationReader(config.name, space, config.keys)
            writer = ActionWriter(config.name, self._env.action_space)
        except ConfigError:
            self._env.close()
            raise
        self._read, self.observation, self.limits = reader.read, reader.specs, reader.limits
        self._native, self.action = writer.native, writer.spec
        self._seen: Any = None

    def reset(self, *, seed: int | None) -> None:
        """Starts an episode."""
        self._seen, _ = self._env.reset(seed=seed)

    def advance(self, action: NDArray[np.float32]) -> Advance:
        """One simulator step with an executed action, float32 [A]."""
        self._seen, reward, terminated, truncated, _ = self._env.step(self._native(action))
        return Advance(reward=float(reward), terminated=bool(terminated), truncated=bool(truncated))

    def observe(self) -> Observation:
        """What is seen now: fresh arrays."""
        return self._read(self._seen)

    def eye(self, config: PixelsConfig) -> Eye:
        """A camera in its MuJoCo scene; of another environment, what it renders itself."""
        inner = self._env.unwrapped
        if not type(getattr(inner, "model", None)).__module__.startswith("mujoco"):
            return Frames(self._env.render, config.size)
        from actors.envs.camera import Camera, Scene

        view = getattr(getattr(inner, "mujoco_renderer", None), "default_cam_config", None)
        return Camera(lambda: Scene(model=inner.model, data=inner.data), config, free_view=view)

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()


def _make(config: EnvConfig) -> Any:  # noqa: ANN401
    env_id = config.name.rpartition(":")[2]
    # -1 removes the registered limit: a limit of ours replaces it instead of joining it.
    max_episode_steps = -1 if config.time_limit else None
    seen = {} if config.pixels.show == "off" else {"render_mode": "rgb_array"}
    try:
        return gymnasium.make(
            env_id,
            max_episode_steps=max_episode_steps,
            disable_env_checker=True,
            **{**seen, **config.args},
        )
    except (gymnasium.error.Error, TypeError, ValueError, ImportError, OSError) as error:
        raise _refused(config, error) from error


def _refused(config: EnvConfig, error: Exception) -> ConfigError:
    """Why it could not be built; an unknown keyword is named, with its nearest match."""
    match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if match and match[1] in config.args:
        hint = nearest(match[1], _keywords(config.name.rpartition(":")[2]))
        return ConfigError(f"env {config.name!r} takes no argument {match[1]!r}; {hint}")
    takes_none = config.pixels.show != "off" and "takes no arguments" in str(error)
    if takes_none or (match and match[1] == "render_mode"):
        return ConfigError(f"env {config.name!r} renders no pictures; leave --pixels out")
    built_with = f" with arguments {config.args}" if config.args else ""
    return ConfigError(f"env {config.name!r} cannot be built{built_with}: {error}")


def _keywords(env_id: str) -> list[str]:
    creator = gymnasium.spec(env_id).entry_point
    if isinstance(creator, str):
        creator = gymnasium.envs.registration.load_env_creator(creator)
    parameters = inspect.signature(creator).parameters.values()
    return [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
