"""What an environment shows and takes. The digest of an EnvSpec travels with data and policies."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from system.config import from_json
from system.errors import ConfigError

DTYPES = ("float32", "uint8")
"""Of observations."""
MAX_LENGTH = 2**31 - 1
MAX_AXES = 7
"""Of one observation; a Chunk puts time in front."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """Shape of one observation array, without the batch axis: numbers, or an image.

    An image is uint8 [height, width, channels].
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or len(self.shape) > MAX_AXES:
            shown = f"dtype {self.dtype!r:.40} in {len(self.shape)} axes"
            raise ConfigError(f"an observation of {shown}; these can be: {DTYPES}, {MAX_AXES} axes")
        if not all(type(length) is int and 0 < length <= MAX_LENGTH for length in self.shape):
            raise ConfigError(f"a length in an observation's shape is not in 1..{MAX_LENGTH}")

    @property
    def is_image(self) -> bool:
        """Whether it is seen by a CNN."""
        return self.dtype == "uint8" and len(self.shape) == 3

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionSpec:
    """Actions as replay stores them: float32 [A].

    `continuous`: each element in [-1, 1]; the environment adapter scales to the robot's bounds.
    `discrete`: a one-hot row; all zeros is the padding on the last Step of an episode.
    """

    kind: Literal["continuous", "discrete"]
    size: int
    """A: dimensions of a continuous action, or number of discrete choices."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"an action of size {self.size}; at least 1 is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvSpec:
    """The contract between one environment, its data and the models trained on it."""

    name: str
    observation: dict[str, ArraySpec]
    action: ActionSpec
    action_repeat: int = 1
    """Simulator steps per agent step."""
    env_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments the environment was built with."""
    digest: str = field(init=False, repr=False, compare=False)
    """16 hex digits over everything above. Made once: every Chunk is compared with it."""

    def __post_init__(self) -> None:
        if not self.observation:
            raise ConfigError(f"environment {self.name!r} shows no observation")
        if self.action_repeat < 1:
            raise ConfigError(f"env.action_repeat={self.action_repeat} must be at least 1")
        object.__setattr__(self, "digest", _digest(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Plain data for `config.json` and wire headers."""
        return {
            "name": self.name,
            "observation": {key: asdict(array) for key, array in self.observation.items()},
            "action": asdict(self.action),
            "action_repeat": self.action_repeat,
            "env_args": copy.deepcopy(self.env_args),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Inverse of `to_json`. Raises ConfigError naming the key that is missing or cannot be."""
        return from_json(cls, data, "spec.")


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
