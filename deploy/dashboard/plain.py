"""Values that others wrote, perhaps with another version: taken if they are what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 1e100
"""A greater number is none of ours."""


def known(values: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None if it is not there, or is something else."""
    return finite(values.get(key))


def finite(value: object) -> float | None:
    """The number itself if it is one, and a float can hold it."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -MOST < value < MOST else None


def cut(text: str, most_chars: int = 300) -> str:
    """A text that others wrote, bounded."""
    return text if len(text) <= most_chars else text[:most_chars] + " ..."


def text_of(config: Mapping[str, Any], *path: str) -> str:
    """A text of a config; empty if it is not there."""
    value = _at(config, path)
    return cut(value) if isinstance(value, str) else ""


def number_of(config: Mapping[str, Any], *path: str) -> float | None:
    """A number of a config; None if it is not there."""
    return finite(_at(config, path))


def _at(config: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = config
    for word in path:
        value = value.get(word) if isinstance(value, dict) else None
    return value
