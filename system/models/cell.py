"""The block GRU as the kernels read it, and the gradients of its weights.

The names are those of `dynamics.py`; `d` in front means the gradient of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from system.models import records
from system.models.packed import Pair, outer, passing, per_thread, summed


class CellWeights(NamedTuple):
    """Parameters of one step of the recurrence."""

    deter_in: Tensor
    """[hidden, D]."""
    stoch_in: Tensor
    """[hidden, S * K]."""
    action_in: Tensor
    """[hidden, A]."""
    in_bias: Tensor
    """[3, hidden], of deter, stoch and action."""
    in_scale: Tensor
    """[3, hidden]."""
    shared: Tensor
    """[3 * hidden, D]."""
    hidden: Tensor
    """[G, b, b]."""
    hidden_bias: Tensor
    """[D]."""
    hidden_scale: Tensor
    """[D]."""
    gates: Tensor
    """[G, b, 3 * b]."""
    gates_bias: Tensor
    """[G, 3, b]."""

    def packed(self, *, stoch: int, classes: int, unimix: float) -> records.Cell:
        """As the kernels read them."""
        products = {
            "deter_in": Pair.of(self.deter_in.T),
            "stoch_in": Pair.of(self.stoch_in.T),
            "action_in": Pair.of(self.action_in.T),
            "shared": Pair.of(self.shared),
            "hidden": Pair.of(self.hidden),
            "gates": Pair.of(self.gates),
        }
        found: records.Cell = records.Cell.of(
            **{name: pair.forward for name, pair in products.items()},
            **{f"{name}_turned": pair.back for name, pair in products.items()},
            in_bias=self.in_bias.detach(),
            in_scale=self.in_scale.detach(),
            hidden_bias=self.hidden_bias.detach(),
            hidden_scale=self.hidden_scale.detach(),
            gates_bias=self.gates_bias.detach(),
            S=stoch,
            K=classes,
            unimix=unimix,
        )
        return found


class CellTape(NamedTuple):
    """What every row and step leaves for its gradient, and what the way back adds."""

    before_in: Tensor
    """[N, T, 3 * hidden]."""
    in_inverse: Tensor
    """[N, T, 3]."""
    before_hidden: Tensor
    """[N, T, D]."""
    hidden_inverse: Tensor
    """[N, T, 1]."""
    gates: Tensor
    """[N, T, 3 * D]."""
    shared: Tensor
    """[N, T, 3 * hidden], filled on the way back, as all that follow."""
    hidden: Tensor
    """[N, T, D]."""
    dbefore_in: Tensor
    """[N, T, 3 * hidden]."""
    dbefore_hidden: Tensor
    """[N, T, D]."""
    dgates: Tensor
    """[N, T, 3 * D]."""
    din_scale: Tensor
    """[threads, 3, hidden], added to on the way back (`summing`), as the last."""
    dhidden_scale: Tensor
    """[threads, D]."""

    @classmethod
    def of(cls, weights: CellWeights, rows: int, time: int, *, kept: bool, dkept: bool) -> CellTape:
        """Room for all steps where `kept` (for gradients of weights: `dkept`), else for one."""
        hidden, D = weights.in_bias.shape[1], len(weights.hidden_bias)

        def there(width: int) -> Tensor:
            return (torch.empty if kept else passing)(rows, time, width)

        def back(width: int) -> Tensor:
            return (torch.empty if dkept else passing)(rows, time, width)

        before_in, before_hidden = there(3 * hidden), there(D)
        return cls(
            before_in=before_in,
            in_inverse=there(3),
            before_hidden=before_hidden,
            hidden_inverse=there(1),
            gates=there(3 * D),
            shared=back(3 * hidden),
            hidden=back(D),
            dbefore_in=back(3 * hidden),
            dbefore_hidden=back(D),
            dgates=back(3 * D),
            din_scale=before_in,
            dhidden_scale=before_hidden,
        )

    def summing(self) -> CellTape:
        """With sums of 0: every way back has its own, as there may be several."""
        hidden, D = self.before_in.shape[-1] // 3, self.before_hidden.shape[-1]
        return self._replace(din_scale=per_thread(3, hidden), dhidden_scale=per_thread(D))

    def record(self) -> records.CellTape:
        """As the kernels see it."""
        found: records.CellTape = records.CellTape.of(**self._asdict())
        return found


class Read(NamedTuple):
    """What the steps read, each [N, T, ...]."""

    deter: Tensor
    stoch: Tensor
    action: Tensor


def weight_gradients(tape: CellTape, read: Read, groups: int, *, rounded: bool) -> CellWeights:
    """All N * T rows at once."""
    n = tape.before_in.shape[-1] // 3

    def rows(x: Tensor) -> Tensor:
        return x.flatten(0, 1)

    def gradient(a: Tensor, b: Tensor, blocks: int | None = None) -> Tensor:
        return outer(a, b, blocks=blocks, rounded=rounded)

    din, dhidden, dgates = map(rows, (tape.dbefore_in, tape.dbefore_hidden, tape.dgates))
    return CellWeights(
        deter_in=gradient(din[:, :n], rows(read.deter)),
        stoch_in=gradient(din[:, n : 2 * n], rows(read.stoch)),
        action_in=gradient(din[:, 2 * n :], rows(read.action)),
        in_bias=din.sum(0).view(3, n),
        in_scale=summed(tape.din_scale),
        shared=gradient(rows(tape.shared), dhidden),
        hidden=gradient(rows(read.deter), dhidden, groups),
        hidden_bias=dhidden.sum(0),
        hidden_scale=summed(tape.dhidden_scale),
        gates=gradient(rows(tape.hidden), dgates, groups),
        gates_bias=dgates.sum(0).view(groups, 3, -1),
    )
