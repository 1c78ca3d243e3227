"""What an actor is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from system.checks import MOST_THREADS, require_at_most, require_pattern, require_positive
from system.errors import ConfigError

MOST_PIXELS = 256
"""Along one side of a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelsConfig:
    """Pictures of the environment, rendered without a display."""

    show: Literal["off", "only", "with-state"] = "off"
    """`only`: the picture, as `image`, replaces the observation; `with-state`: it joins it."""
    size: int = 64
    """Height and width [pixels]."""
    camera: str = ""
    """Name or number of a camera of the scene; empty takes the first, or a free one if it has
    none. For MuJoCo: others have one view."""
    quality: Literal["fast", "full"] = "full"
    """`fast` leaves out shadows, reflections and multisampling: on a machine without a graphics
    card 40 to 100 times as many pictures a second. For MuJoCo."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MOST_PIXELS:
            raise ConfigError(
                f"env.pixels.size={self.size} must lie in 8..{MOST_PIXELS} pixels; 64 is usual"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvConfig:
    """Which environment, and how it is stepped."""

    name: str
    """`dm_control/cartpole-swingup`, a registered gymnasium id, or `module:Id`."""
    args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the environment."""
    keys: str = ".*"
    """Which of its observations are read, stored and sent at all: a regular expression for their
    whole names. What text says, for instance, no network here can read."""
    action_repeat: int = 1
    """Simulator steps per agent step. Frames = agent steps x action repeat."""
    time_limit: int = 0
    """Truncate episodes after this many simulator steps; 0 keeps the environment's own limit."""
    step_deadline_s: float = 60.0
    """A step or reset longer than this is a hang: the copy is rebuilt [s]."""
    build_deadline_s: float = 120.0
    """The same for building a copy, imports included, and for its first reset [s]."""
    pixels: PixelsConfig = field(default_factory=PixelsConfig)
    """Whether it is seen through a camera."""
    isolate: bool = False
    """Each copy in a process of its own, which can be killed whatever it does. Its name must be
    one that a fresh process can find: `module:Id` for an environment of yours."""

    def __post_init__(self) -> None:
        require_pattern("env.keys", self.keys)
        require_positive("env", self, "action_repeat")
        require_positive("env", self, "step_deadline_s")
        require_positive("env", self, "build_deadline_s")
        if self.time_limit < 0:
            raise ConfigError(f"env.time_limit={self.time_limit} must be 0 or more simulator steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorConfig:
    """One acting process."""

    copies: int = 2
    """N: environment copies stepped together, one batched policy call."""
    refresh_s: float = 1.0
    """How often to look for a newer policy, at a step boundary [s]."""
    spool_chunks: int = 1
    """Sealed Chunks per copy that may wait to be received; acting pauses when all places are taken.
    What waits here was chosen by policies that are growing old: keep it short."""
    retain_bytes: int = 256 * 1024**2
    """Received Chunks kept until durable; acting pauses when they weigh more [bytes]."""
    heartbeat_s: float = 1.0
    """How often lease and metrics are written [s]."""
    torch_threads: int = 1
    """Threads of one policy call."""

    def __post_init__(self) -> None:
        for name in ("copies", "refresh_s", "spool_chunks", "retain_bytes", "heartbeat_s"):
            require_positive("actor", self, name)
        require_at_most("actor", self, "torch_threads", MOST_THREADS)
