"""What the values of options may be."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleWish:
    """What `scale` was asked for: a number, or a change of it."""

    actors: int | None = None
    """How many actors; None keeps what was wished last."""
    delta: int = 0
    """How many more; fewer if negative."""


def scale_wish(text: str) -> ScaleWish:
    """`4`, `+1` or `-2`."""
    if text[:1] not in ("+", "-"):
        return ScaleWish(actors=count(text))
    return ScaleWish(delta=(1 if text[0] == "+" else -1) * count(text[1:]))


def seconds(text: str) -> float:
    """0 or more seconds [s]."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more seconds")
    return value


def count(text: str) -> int:
    """A whole number, 0 or more; `1e5` and `100_000` are some."""
    try:
        value = int(float(text)) if "e" in text.lower() else int(text.replace("_", ""))
        if "e" in text.lower() and float(text) != value:
            raise ValueError
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must be 0 or more")
    return value


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    value = count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 must be 1 or more")
    return value
