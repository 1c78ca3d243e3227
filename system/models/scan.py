"""The recurrence over time with its gradient written by hand: the fast twin of `RSSM.observe`.

Autograd over a scan costs a graph node per operation and, at every step, one matrix product and one
addition per weight. Here one kernel runs all steps, keeping what its gradient needs in [B, T, ...];
another runs back; and a weight's gradient is one product over all B * T rows.

The names are those of `dynamics.py`; `d` in front means the gradient of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from system.models import records
from system.models.cell import CellTape, CellWeights, Read, weight_gradients
from system.models.kernels import call, rounds
from system.models.packed import LayerTape, LayerWeights, Pair, outer, summed


class PosteriorWeights(NamedTuple):
    """From deter and the embedding's part to the posterior's logits."""

    deter_in: Tensor
    """[hidden, D]."""
    scale: Tensor
    """[hidden]."""
    out: Tensor
    """[S * K, hidden]."""
    bias: Tensor
    """[S * K]."""


class Filtered(NamedTuple):
    """Each [B, T, ...], flat in S * K."""

    deter: Tensor
    stoch: Tensor
    """One-hot samples, straight-through."""
    probs: Tensor


class Seen(NamedTuple):
    """What a scan reads at every step."""

    keep: Tensor
    """float32 [B, T]: 0 where an episode begins."""
    action: Tensor
    """[B, T, A]: bounded, zero where an episode begins."""
    embedding_part: Tensor
    """[B, T, hidden]: what the embeddings add to the posterior's hidden layer."""
    noise: Tensor
    """[B, T, S] uniform."""


class Shape(NamedTuple):
    """Of the posterior's samples."""

    stoch: int
    classes: int
    unimix: float


class Packed(NamedTuple):
    """Weights as the kernels read them; they hold for as long as the parameters do not change."""

    cell: records.Cell
    posterior: records.Layer
    out: Pair
    bias: Tensor

    @classmethod
    def of(cls, cell: CellWeights, posterior: PosteriorWeights, shape: Shape) -> Packed:
        """Lays them out."""
        reads = LayerWeights(posterior.deter_in, posterior.scale, posterior.scale)
        return cls(
            cell.packed(**shape._asdict()), reads.packed(), Pair.of(posterior.out.T),
            posterior.bias.detach(),
        )  # fmt: skip


def observe(
    carry: tuple[Tensor, Tensor], seen: Seen, cell: CellWeights, posterior: PosteriorWeights,
    shape: Shape,
) -> Filtered:  # fmt: skip
    """Filters T observations from a carry [B, D] and [B, S * K]; all gradients."""
    found = _Observe.apply(*carry, *seen, shape, *cell, *posterior)  # type: ignore[no-untyped-call]
    return Filtered(*found)


class _Scan:
    """One scan there and back: its buffers, and the record the kernels read."""

    def __init__(
        self, carry: tuple[Tensor, Tensor], seen: Seen,
        weights: tuple[CellWeights, PosteriorWeights], packed: Packed, kept: bool,
    ) -> None:  # fmt: skip
        B, T = seen.keep.shape
        # The kernels step over rows and time, and read what is left side by side.
        seen = seen._replace(keep=seen.keep.contiguous(), action=seen.action.contiguous())
        self.weights, self._packed, self.seen = weights, packed, seen
        self.rounded = rounds()
        self.before = seen.embedding_part.clone(memory_format=torch.contiguous_format)
        deter, stoch = (part.shape[-1] for part in carry)
        self.filtered = Filtered(*[torch.empty(B, T, width) for width in (deter, stoch, stoch)])
        self.old = torch.empty(B, T, deter), torch.empty(B, T, stoch)
        for old, given in zip(self.old, carry, strict=True):
            old[:, 0] = given
        self.tape = CellTape.of(weights[0], B, T, kept=kept, dkept=kept)
        make = LayerTape.empty if kept else LayerTape.scratch
        self.posterior_tape = make(B, T, self.before.shape[-1])

    def record(self, dlogits: Tensor, ddeter: Tensor, dcarry: Sequence[Tensor]) -> Any:  # noqa: ANN401
        packed, (B, T) = self._packed, self.seen.keep.shape
        return records.Scan.of(
            cell=packed.cell, posterior=packed.posterior, out=packed.out.forward,
            out_turned=packed.out.back, out_bias=packed.bias, keep=self.seen.keep,
            action=self.seen.action, noise=self.seen.noise, seen=self.before,
            **self.filtered._asdict(), old_deter=self.old[0], old_stoch=self.old[1],
            tape=self.tape.record(), posterior_tape=self.posterior_tape.record(), dlogits=dlogits,
            ddeter=ddeter, dcarry_deter=dcarry[0], dcarry_stoch=dcarry[1], B=B, T=T,
        )  # fmt: skip

    def there(self) -> Filtered:
        """Fills the buffers."""
        unused = self.old[0]
        call("scan", self.record(unused, unused, self.old))
        return self.filtered

    def back(
        self, outer_gradients: tuple[Tensor, ...], *, actions: bool
    ) -> tuple[Tensor | None, ...]:
        """From the gradients of `Filtered` to those of carry, Seen (actions if wanted), weights."""
        cell, filtered = self.weights[0], self.filtered
        self.tape, self.posterior_tape = self.tape.summing(), self.posterior_tape.summing()
        ddeter, dstoch, dprobs = outer_gradients
        # Straight-through: a sample's gradient is that of its probabilities.
        dlogits = (dstoch + dprobs).contiguous()
        dcarry = [torch.empty_like(old[:, 0]) for old in self.old]
        call("scan_gradient", self.record(dlogits, ddeter.contiguous(), dcarry))
        dcell = weight_gradients(
            self.tape, Read(*self.old, self.seen.action), len(cell.gates), rounded=self.rounded
        )
        rows, dbefore = dlogits.flatten(0, 1), self.posterior_tape.gradient
        hidden = self.posterior_tape.after.flatten(0, 1)
        dposterior = PosteriorWeights(
            deter_in=outer(
                dbefore.flatten(0, 1), filtered.deter.flatten(0, 1), rounded=self.rounded
            ),
            scale=summed(self.posterior_tape.sums)[1],
            out=outer(rows, hidden, rounded=self.rounded),
            bias=rows.sum(0),
        )
        n = cell.in_bias.shape[1]
        daction = self.tape.dbefore_in[..., 2 * n :] @ cell.action_in if actions else None
        return (*dcarry, None, daction, dbefore, None, None, *dcell, *dposterior)


class _Observe(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, deter: Tensor, stoch: Tensor, keep: Tensor, action: Tensor,  # noqa: ANN401
        seen: Tensor, noise: Tensor, shape: Shape, *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        size = len(CellWeights._fields)
        cell, posterior = CellWeights(*weights[:size]), PosteriorWeights(*weights[size:])
        ctx.scan = _Scan(
            (deter, stoch), Seen(keep, action, seen, noise), (cell, posterior),
            Packed.of(cell, posterior, shape), kept=any(ctx.needs_input_grad),
        )  # fmt: skip
        # Other tensor objects than the scan keeps: an output that held itself would never be freed.
        deters, stochs, probs = (part.detach() for part in ctx.scan.there())
        return deters, stochs, probs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return ctx.scan.back(gradients, actions=ctx.needs_input_grad[3])  # type: ignore[no-any-return]
