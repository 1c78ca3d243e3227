"""A Batch: B Sequences of T Steps, with the latent and action just before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from system.models.dynamics import Latent


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one update reads; [B, T, ...] on the learner's device."""

    observation: dict[str, Tensor]
    """Each float32 [B, T, ...], images uint8 [B, T, H, W, C]."""
    action: Tensor
    """float32 [B, T, A]: chosen AFTER observation t."""
    previous_action: Tensor
    """float32 [B, T, A]: the same shifted by one, the context Step's action in front."""
    reward: Tensor
    """float32 [B, T]: arrived WITH observation t."""
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    """bool [B, T]. `is_last` is also set where the next Step `is_first` (a cut episode)."""
    context: Latent
    """[B, ...]: the stored posterior of the Step before each Sequence."""
    ordinals: NDArray[np.int64]
    """int64 [B, T]: place of each Step in the order of insertion. It never repeats, so it names the
    Step for ever: fresh posteriors are written back by it, and any Batch can be rebuilt from it."""
