"""What the learner dreamed beside what happened: a DreamReport. Its bytes: `dream_codec.py`.

::

    t            0 .. C-1                      C .. C+H-1
    real         recorded                      recorded
    dreamed      posterior, decoded            the dream: recorded actions, nothing seen any more

`docs/decisions/0013-dreams-beside-reality.md` defines error, parting step and gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP_ALARM = 0.5
"""Above this gap ratio the dream is no guide [ratio]."""

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Band:
    """One number over the T Steps of an example; each array float32 [T], in its own unit."""

    name: str
    real: Floats
    mean: Floats
    """Of the dreams."""
    low: Floats
    high: Floats
    """Between them lie 80 % of the dreams."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Film:
    """One image over the T Steps of an example; each array uint8 [T, height, width, channels]."""

    name: str
    real: Pixels
    dreamed: Pixels
    """One dream: the mean of many would be blurred."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One start: T Steps, fewer than context and horizon if its episode ended."""

    vectors: list[Band]
    images: list[Film]
    reward: Band
    continues: Band
    """Whether the episode went on, 0 or 1, and the dreamed probability [ratio]."""

    @property
    def steps(self) -> int:
        """T [agent steps]."""
        return len(self.reward.real)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Discounted rewards of H Steps, recorded and dreamed from the same starts; means over them."""

    real_return: float
    dreamed_return: float
    """Under the recorded actions."""
    policy_return: float
    """Under the policy of now: more than recorded if it has become better, or hopes too much."""
    ratio: float
    """Mean distance between dreamed and real, relative to the real ones [ratio]."""
    policy_ratio: float
    """The same under the policy; no alarm, for it did not act then [ratio]."""

    @property
    def alarm(self) -> bool:
        """Whether the dream is no guide."""
        return self.ratio > GAP_ALARM


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DreamReport:
    """How well one update dreams."""

    update: int
    frames: int
    time_s: float
    """Unix time [s]."""
    elapsed_s: float
    """Training time so far [s]."""
    context_steps: int
    """C: Steps seen before each dream [agent steps]."""
    horizon: int
    """H [agent steps]."""
    starts: int
    """Recorded stretches behind the errors and the gap."""
    samples: int
    """Dreams from each of them."""
    model_error: Floats
    """float32 [H]: 1 is as bad as predicting the mean [ratio]."""
    repeat_error: Floats
    """float32 [H]: of whoever repeats what was seen last [ratio]."""
    parting_step: int | None
    """The first dreamed Step (1 .. H) whose error exceeds the threshold; None: to the end none."""
    gap: Gap
    examples: list[Example]
    earlier_update: int | None = None
    earlier_error: Floats | None = None
    """float32 [H]: `model_error` of that update, to see progress by; None: there is none."""
