"""What a number or a pattern of a config must be; each refusal names section, field and value."""

from __future__ import annotations

import math
import re
from typing import Any

from system.errors import ConfigError

MOST_WIDTH, MOST_LAYERS, MOST_THREADS = 2**16, 64, 1024
"""Of what is built or started at once: a slip of the hand is named before it takes the machine."""


def require_pattern(name: str, pattern: str) -> None:
    """Raises ConfigError unless it is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{name}={pattern!r} is no regular expression: {error}; use for example "
            "'position|velocity', or '.*' for all"
        ) from None


def require_positive(section: str, config: Any, name: str) -> None:  # noqa: ANN401
    """Raises ConfigError unless `config.name` is a finite number greater than 0."""
    value = getattr(config, name)
    if not math.isfinite(value):
        raise ConfigError(f"{section}.{name}={value} must be a finite number")
    if value <= 0:
        raise ConfigError(f"{section}.{name}={value} must be greater than 0")


def require_at_most(section: str, config: Any, name: str, most: int) -> None:  # noqa: ANN401
    """Raises ConfigError unless `config.name` is greater than 0 and at most `most`."""
    require_positive(section, config, name)
    if getattr(config, name) > most:
        raise ConfigError(f"{section}.{name}={getattr(config, name)} must be at most {most}")


def require_share(section: str, config: Any, name: str) -> None:  # noqa: ANN401
    """Raises ConfigError unless `config.name` lies in 0..1."""
    value = getattr(config, name)
    if not 0 <= value <= 1:
        raise ConfigError(f"{section}.{name}={value} must lie in 0..1")


def require_not_negative(section: str, config: Any, name: str) -> None:  # noqa: ANN401
    """Raises ConfigError unless `config.name` is a finite number, 0 or greater."""
    value = getattr(config, name)
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{section}.{name}={value} must be a finite number, 0 or greater")
