"""What a decoder under fuzz is to the runner; and the words its slow judges use."""

from __future__ import annotations

import math
from random import Random
from typing import Protocol

from tests.fuzz.trees import Invalid

MOST = 2**63 - 1


class Target(Protocol):
    """One decoder. `forge` knows its format; `judge` does not use it."""

    name: str
    refusals: tuple[type[Exception], ...]
    """What the decoder is documented to raise."""
    weight: int
    """Share of the messages: what comes over the network gets more than what comes from a file."""

    def valid(self, random: Random) -> bytes:
        """A message that must be accepted."""
        ...

    def forge(self, random: Random) -> bytes:
        """A message that was tampered with, and sealed again where it carries a seal."""
        ...

    def feed(self, data: bytes) -> object:
        """The product's decoder, as the product calls it."""
        ...

    def judge(self, data: bytes, value: object) -> None:
        """Reads an accepted message slowly; raises unless it is valid and `value` says the same."""
        ...


def need(truth: object, text: str) -> None:
    """The judges' assert: python -O must not silence them."""
    if not truth:
        raise Invalid(text)


def count(value: object, most: int = MOST) -> bool:
    return type(value) is int and 0 <= value <= most


def text(value: object, most: int = 1 << 18) -> bool:
    return type(value) is str and len(value) <= most


def finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)
