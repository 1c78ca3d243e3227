"""How far something long is, in a few words for people. Pure."""

from __future__ import annotations

FEW_S = 5.0
"""Before so long nothing is foretold [s]."""


def left_s(share: float, elapsed_s: float) -> float | None:
    """For how long still, at the speed so far [s]; None while that is not known.

    Args:
      share: what is behind us [0 to 1].
      elapsed_s: how long that took [s].
    """
    if share <= 0 or elapsed_s < FEW_S:
        return None
    return elapsed_s * (1.0 - min(share, 1.0)) / share


def progress_text(word: str, share: float | None, elapsed_s: float) -> str:
    """`evaluating 40%, 12 s left`; with a share of None, `evaluating for 8 s`."""
    if share is None:
        return word if elapsed_s < FEW_S else f"{word} for {elapsed_s:.0f} s"
    text = f"{word} {min(share, 1.0):.0%}"
    rest_s = left_s(share, elapsed_s)
    return text if rest_s is None else f"{text}, {rest_s:.0f} s left"
