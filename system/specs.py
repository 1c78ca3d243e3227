"""What an environment shows and takes. The digest of an EnvSpec travels with data and policies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from system.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """Shape of one float32 observation array, without the batch axis."""

    shape: tuple[int, ...]
    dtype: str = "float32"

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

    def __post_init__(self) -> None:
        if not self.observation:
            raise ConfigError(f"environment {self.name!r} shows no observation")

    @property
    def digest(self) -> str:
        """16 hex digits over everything here: name, shapes, dtypes, action, repeat, arguments."""
        body = asdict(self)
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `config.json` and wire headers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Inverse of `to_json`."""
        return cls(
            name=data["name"],
            observation={
                key: ArraySpec(shape=tuple(spec["shape"]), dtype=spec["dtype"])
                for key, spec in data["observation"].items()
            },
            action=ActionSpec(**data["action"]),
            action_repeat=data["action_repeat"],
            env_args=data["env_args"],
        )
