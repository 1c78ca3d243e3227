"""One step of the recurrence and its gradient, written by hand: the fast twin of `RSSM.recur`.

The names are those of `dynamics.py`; `d` in front means the gradient of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from system.models.fused import (
    block_matmul,
    gru_backward,
    norm_silu_backward,
    norm_silu_into,
)
from system.models.layers import NORM_EPS


class CellWeights(NamedTuple):
    """The block GRU's parameters, laid out for the products of one step."""

    deter_in: Tensor
    """[D, H]."""
    stoch_in: Tensor
    """[S * K, H]."""
    in_bias: Tensor
    """[2, H], of deter and stoch."""
    in_scale: Tensor
    """float32 [2, H]."""
    shared: Tensor
    """[2 * H, D]."""
    hidden: Tensor
    """[G, b, b]."""
    hidden_scale: Tensor
    """float32 [D]."""
    gates: Tensor
    """[G, b, 3 * b]."""
    gates_bias: Tensor
    """float32 [G, 3, b]."""

    def to(self, dtype: torch.dtype) -> CellWeights:
        """What matrix products read, rounded; norm scales and gate biases stay float32."""
        kept = {"in_scale": self.in_scale, "hidden_scale": self.hidden_scale,
                "gates_bias": self.gates_bias}  # fmt: skip
        return CellWeights(*[part.to(dtype) for part in self])._replace(**kept)


class CellTape(NamedTuple):
    """What one step (or all T of them, with a leading axis) leaves for its gradient."""

    before_in: Tensor
    """[B, 2, H]."""
    in_inverse: Tensor
    """float32 [B, 2]."""
    shared: Tensor
    """[B, 2 * H]."""
    before_hidden: Tensor
    """[B, D]."""
    hidden_inverse: Tensor
    """float32 [B]."""
    hidden: Tensor
    """[B, D]."""
    gates: Tensor
    """[B, G, 3, b]."""

    @classmethod
    def empty(cls, weights: CellWeights, *batch: int) -> CellTape:
        """Room for `batch` rows, in the dtype of the weights."""
        deter, hidden = weights.deter_in.shape
        groups, _, block = weights.gates_bias.shape
        sizes = [(2, hidden), (2,), (2 * hidden,), (deter,), (), (deter,), (groups, 3, block)]
        new = weights.gates.new_empty
        tape = cls(*[new(*batch, *size) for size in sizes])
        return tape._replace(
            in_inverse=tape.in_inverse.float(), hidden_inverse=tape.hidden_inverse.float()
        )

    def steps(self) -> list[CellTape]:
        """[T, B, ...] -> T times [B, ...]."""
        return [CellTape(*parts) for parts in zip(*[part.unbind(0) for part in self], strict=True)]


def by_block(x: Tensor, groups: int) -> Tensor:
    """[B, G * b] -> a view [G, B, b]."""
    return x.view(len(x), groups, -1).transpose(0, 1)


def cell(
    weights: CellWeights, deter: Tensor, stoch: Tensor, action_part: Tensor, tape: CellTape
) -> Tensor:
    """One step up to its gates, which it returns; inputs in the dtype of the weights."""
    groups = len(weights.gates)
    torch.addmm(weights.in_bias[0], deter, weights.deter_in, out=tape.before_in[:, 0])
    torch.addmm(weights.in_bias[1], stoch, weights.stoch_in, out=tape.before_in[:, 1])
    norm_silu_into(tape.before_in, weights.in_scale, tape.shared, tape.in_inverse, NORM_EPS)
    before = tape.before_hidden
    torch.addmm(action_part, tape.shared, weights.shared, out=before)
    if deter.dtype == torch.float32:
        block_matmul(deter, weights.hidden, before, add=True)
    else:
        by_block(before, groups).add_(torch.bmm(by_block(deter, groups), weights.hidden))
    norm_silu_into(before, weights.hidden_scale, tape.hidden, tape.hidden_inverse, NORM_EPS)
    if deter.dtype == torch.float32:
        block_matmul(tape.hidden, weights.gates, tape.gates.flatten(1))
        return tape.gates
    gates = torch.bmm(by_block(tape.hidden, groups), weights.gates)
    return gates.view(groups, len(deter), 3, -1).transpose(0, 1)


class CellGradients(NamedTuple):
    """Of one step, or of T: before every product that has a weight."""

    before_in: Tensor
    """[B, 2, H]."""
    before_hidden: Tensor
    """[B, D]; also the gradient of the action part."""
    gates: Tensor
    """[B, G, 3, b]."""

    @classmethod
    def like(cls, tape: CellTape) -> CellGradients:
        """Room for the gradients of a tape."""
        return cls(*map(torch.empty_like, (tape.before_in, tape.before_hidden, tape.gates)))

    def steps(self) -> list[CellGradients]:
        """[T, B, ...] -> T times [B, ...]."""
        parts = zip(*[part.unbind(0) for part in self], strict=True)
        return [CellGradients(*each) for each in parts]


class ScaleGradients(NamedTuple):
    """Of the norm scales, accumulated over steps."""

    in_scale: Tensor
    hidden_scale: Tensor


def cell_backward(  # noqa: PLR0913
    weights: CellWeights, transposed: CellWeights, tape: CellTape, deter: Tensor, dnext: Tensor,
    gradients: CellGradients, scales: ScaleGradients,
) -> Tensor:  # fmt: skip
    """From the gradient of the next deter [B, D], which becomes that of this one, in place.

    Returns:
      The gradient of stoch [B, S * K].
    """
    ddeter = dnext
    gru_backward(dnext, tape.gates, weights.gates_bias, deter, gradients.gates, ddeter)
    dbefore = gradients.before_hidden
    block_matmul(gradients.gates.flatten(1), transposed.gates, dbefore)
    norm_silu_backward(
        dbefore, tape.before_hidden, weights.hidden_scale, tape.hidden_inverse, dbefore,
        scales.hidden_scale,
    )  # fmt: skip
    block_matmul(dbefore, transposed.hidden, ddeter, add=True)
    din = gradients.before_in
    torch.mm(dbefore, transposed.shared, out=din.flatten(1))
    norm_silu_backward(din, tape.before_in, weights.in_scale, tape.in_inverse, din, scales.in_scale)
    ddeter.addmm_(din[:, 0], transposed.deter_in)
    return torch.mm(din[:, 1], transposed.stoch_in)


def transpose(weights: CellWeights) -> CellWeights:
    """Every matrix turned around, contiguous: small products read them much faster so."""
    return CellWeights(*[
        part.transpose(-1, -2).contiguous() if name in ("deter_in", "stoch_in", "shared", "hidden",
                                                        "gates") else part
        for name, part in zip(CellWeights._fields, weights, strict=True)
    ])  # fmt: skip


def weight_gradients(
    tape: CellTape, gradients: CellGradients, deter: Tensor, stoch: Tensor, scales: ScaleGradients
) -> CellWeights:
    """All T * B rows at once; deter and stoch are the inputs [T, B, ...] of the steps."""
    groups = tape.gates.shape[-3]
    deter, stoch, hidden = deter.flatten(0, 1), stoch.flatten(0, 1), tape.hidden.flatten(0, 1)
    din, dbefore, dgates = (part.flatten(0, 1) for part in gradients)
    return CellWeights(
        deter_in=deter.T @ din[:, 0],
        stoch_in=stoch.T @ din[:, 1],
        in_bias=din.sum(0),
        in_scale=scales.in_scale,
        shared=tape.shared.flatten(0, 1).T @ dbefore,
        hidden=torch.bmm(by_block(deter, groups).transpose(1, 2), by_block(dbefore, groups)),
        hidden_scale=scales.hidden_scale,
        gates=torch.bmm(
            by_block(hidden, groups).transpose(1, 2), by_block(dgates.flatten(1), groups)
        ),
        gates_bias=dgates.sum(0),
    )
