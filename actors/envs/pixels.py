"""A simulator seen through a camera: pictures instead of its observation, or beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.config import PixelsConfig
from actors.envs.simulator import Advance, Limits, Simulator
from system.errors import ConfigError
from system.specs import ArraySpec

IMAGE_KEY = "image"


class Eye(Protocol):
    """Where pictures come from; `Camera` is one."""

    def look(self) -> NDArray[np.uint8]:
        """What is seen now, uint8 [S, S, 3]."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class SeenSimulator(Simulator, Protocol):
    """A simulator that can be looked at."""

    def eye(self, config: PixelsConfig) -> Eye:
        """A way to look at it. Raises ConfigError: there is none."""
        ...


class PixelSimulator:
    """See `Simulator`; shows `image`, uint8 [S, S, 3], once per agent step.

    Raises:
      ConfigError: there is nothing to look with, it does not work here, or a name is taken.
    """

    def __init__(self, simulator: SeenSimulator, config: PixelsConfig) -> None:
        self._simulator = simulator
        try:
            kept = simulator.observation if config.show == "with-state" else {}
            if IMAGE_KEY in kept:
                raise ConfigError(
                    f"the environment already shows {IMAGE_KEY!r}; leave it out (--set env.keys), "
                    "leave --pixels-with-state out, or use --pixels"
                )
            self._eye = simulator.eye(config)
            _try(simulator, self._eye)
        except BaseException:
            simulator.close()
            raise
        picture = ArraySpec(shape=(config.size, config.size, 3), dtype="uint8")
        self._keeps = bool(kept)
        self.observation = {**kept, IMAGE_KEY: picture}
        self.action = simulator.action
        self.limits: dict[str, Limits] = simulator.limits if kept else {}

    def reset(self, *, seed: int | None) -> None:
        """Starts an episode."""
        self._simulator.reset(seed=seed)

    def advance(self, action: NDArray[np.float32]) -> Advance:
        """One simulator step with an executed action, float32 [A]."""
        return self._simulator.advance(action)

    def observe(self) -> dict[str, NDArray[Any]]:
        """What is seen now, the picture freshly taken."""
        kept = self._simulator.observe() if self._keeps else {}
        return {**kept, IMAGE_KEY: self._eye.look()}

    def close(self) -> None:
        """Frees camera and simulator."""
        self._eye.close()
        self._simulator.close()


def _try(simulator: Simulator, eye: Eye) -> None:
    """One picture, before anything is built on it. Raises ConfigError: there is none."""
    simulator.reset(seed=0)
    try:
        eye.look()
    except ConfigError:
        raise
    except Exception as error:  # whatever is missing for `render`
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"no picture can be rendered: {why}; or leave --pixels out") from error


class Frames:
    """Pictures that an environment renders itself, made small by averaging areas."""

    def __init__(self, render: Callable[[], Any], size: int) -> None:
        self._render, self._size = render, size

    def look(self) -> NDArray[np.uint8]:
        """Its frame as uint8 [S, S, 3]. Raises ConfigError: it rendered something else."""
        frame = np.asarray(self._render())
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ConfigError(
                f"the environment renders {frame.dtype} of shape {frame.shape} instead of uint8 "
                "(height, width, 3); leave --pixels out, or fix its render_mode 'rgb_array'"
            )
        return shrink(frame, self._size)

    def close(self) -> None:
        """Nothing to free."""


def shrink(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 [H, W, C] -> uint8 [size, size, C]: the mean of the pixels that fall together."""
    total = frame.astype(np.uint32)
    area = np.ones((1, 1, 1), np.uint32)
    for axis in (0, 1):
        length = frame.shape[axis]
        edges = np.arange(size) * length // size
        total = np.add.reduceat(total, edges, axis)
        counts = np.maximum(np.diff(np.append(edges, length)), 1).astype(np.uint32)
        area = area * counts.reshape([-1 if each == axis else 1 for each in range(3)])
    return ((total + area // 2) // area).astype(np.uint8)
