"""Tasks of the dm_control suite as simulators, without shimmy.

Needs the `dmc` extra. An episode that ends with discount 0 is terminated; any other end is the
time limit, so truncated.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.config import EnvConfig, PixelsConfig
from actors.envs.pixels import Eye
from actors.envs.protocol import Observation
from actors.envs.simulator import Advance, Limits
from actors.envs.spaces import action_scale, kept
from system.errors import ConfigError, nearest
from system.specs import ActionSpec, ArraySpec

PREFIX = "dm_control/"
DEFAULT_CAMERAS = {"quadruped": 2}
"""As in the authors' DreamerV3; 0 elsewhere."""


def suite_names() -> list[str]:
    """Every `dm_control/<domain>-<task>`; empty if the extra is not installed."""
    try:
        suite = _suite()
    except ConfigError:
        return []
    return [f"{PREFIX}{domain}-{task}" for domain, task in suite.ALL_TASKS]


class DmControlSimulator:
    """One suite task; see `Simulator`.

    Raises:
      ConfigError: the extra is missing, or the arguments are wrong.
    """

    limits: dict[str, Limits] = {}

    def __init__(self, config: EnvConfig) -> None:
        self._env = _load(config)
        self._domain = config.name.removeprefix(PREFIX).partition("-")[0]
        shown = self._env.observation_spec()
        wanted = kept(config.name, shown, config.keys)
        self.observation = {key: _array_spec(shown[key]) for key in shown if key in wanted}
        action = self._env.action_spec()
        self._scale = action_scale(config.name, action.minimum, action.maximum)
        self.action = ActionSpec(kind="continuous", size=int(np.prod(action.shape)))
        self._seen: dict[str, NDArray[Any]] = {}

    def reset(self, *, seed: int | None) -> None:
        """Starts an episode."""
        if seed is not None:
            self._env.task.random.seed(seed)
        self._seen = self._env.reset().observation

    def advance(self, action: NDArray[np.float32]) -> Advance:
        """One simulator step (control step) with an executed action, float32 [A]."""
        step = self._env.step(self._scale(action))
        self._seen = step.observation
        terminated = step.last() and step.discount == 0
        return Advance(
            reward=float(step.reward),
            terminated=terminated,
            truncated=step.last() and not terminated,
        )

    def observe(self) -> Observation:
        """What is seen now: fresh arrays; scalars are [1]."""
        return {
            key: np.array(self._seen[key], dtype=spec.dtype, ndmin=1)
            for key, spec in self.observation.items()
        }

    def eye(self, config: PixelsConfig) -> Eye:
        """A camera in its scene."""
        from actors.envs.camera import Camera, Scene

        def scene() -> Scene:
            physics = self._env.physics
            return Scene(model=physics.model.ptr, data=physics.data.ptr)

        return Camera(scene, config, default=DEFAULT_CAMERAS.get(self._domain, 0))

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()


def _load(config: EnvConfig) -> Any:  # noqa: ANN401
    _suite()
    domain, _, task = config.name.removeprefix(PREFIX).partition("-")
    build = importlib.import_module(f"dm_control.suite.{domain}").SUITE[task]
    known = list(inspect.signature(build).parameters)
    for key in config.args:
        if key not in known:
            raise ConfigError(
                f"env {config.name!r} takes no argument {key!r}; {nearest(key, known)}"
            )
    args = {"random": 0, **config.args}
    if config.time_limit and "time_limit" in known:
        # A limit of ours replaces the task's own instead of joining it.
        args.setdefault("time_limit", math.inf)
    try:
        return build(**args)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"env {config.name!r} cannot be built with arguments {config.args}: {error}"
        ) from error


def _suite() -> Any:  # noqa: ANN401
    try:
        with warnings.catch_warnings():
            # Without a display its renderer warns; nothing is rendered here.
            warnings.simplefilter("ignore")
            return importlib.import_module("dm_control.suite")
    except ImportError as error:
        raise ConfigError(
            "dm_control is not installed; install the extra: pip install 'dreamfleet[dmc]'"
        ) from error


def _array_spec(spec: Any) -> ArraySpec:  # noqa: ANN401
    is_image = spec.dtype == np.uint8 and len(spec.shape) == 3
    return ArraySpec(shape=tuple(spec.shape) or (1,), dtype="uint8" if is_image else "float32")
