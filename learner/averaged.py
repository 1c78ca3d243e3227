"""What acts: a slow average of the weights that learn.

At a learning rate high enough for a result within minutes, each update throws the policy about; the
average of the newest few hundred stands where they stand on average (Polyak and Juditsky, 1992).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

SHARE_OF_PAST = 0.1
"""Early on, the average reaches back over this share of all updates so far [ratio]."""


class Averaged(nn.Module):
    """A copy of some modules whose weights follow theirs.

    The loop that uses it::

        averaged = Averaged({"policy": policy}, rate=0.01)
        optimizer.step()
        averaged.follow(optimizer.steps)
        broadcast(averaged.modules_by_name())
    """

    def __init__(self, modules: dict[str, nn.Module], rate: float) -> None:
        """`rate` is the EMA rate per update, from the moment when a tenth of the past is longer."""
        super().__init__()
        self._rate = rate
        self.copies = nn.ModuleDict(copy.deepcopy(modules)).requires_grad_(False)
        self._fast = [p.detach() for module in modules.values() for p in module.parameters()]
        self._slow = [p.detach() for p in self.copies.parameters()]

    def modules_by_name(self) -> dict[str, nn.Module]:
        """The copies, under the names of what they follow."""
        return dict(self.copies.items())

    @torch.no_grad()
    def follow(self, count: Tensor) -> None:
        """Moves every weight a little towards its twin; `count` float64 [] is the update's, from 1.

        Nothing waits for the device: this is part of a CUDA graph (`graphed.py`).
        """
        rate = self.rate_at(count).to(torch.float32)
        for slow, fast in zip(self._slow, self._fast, strict=True):
            slow.lerp_(fast, rate)

    def rate_at(self, count: Tensor) -> Tensor:
        """The larger of `rate` and 1 / (1 + SHARE_OF_PAST * (count - 1)); 1 at the first update."""
        return (1.0 / (1.0 + SHARE_OF_PAST * (count - 1.0))).clamp(min=self._rate)
