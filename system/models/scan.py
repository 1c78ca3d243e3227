"""The recurrence over time with its gradient written by hand: the fast twin of `RSSM.observe`.

Autograd over a scan costs a graph node per operation and, at every step, one matrix product and one
addition per weight. Here each step keeps what its gradient needs in buffers [T, B, ...], the way
back is one loop, and a weight's gradient is one matrix product over all T * B rows.

The names are those of `dynamics.py`; `d` in front means the gradient of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from system.models.cell import (
    CellGradients,
    CellTape,
    CellWeights,
    ScaleGradients,
    cell,
    cell_backward,
    transpose,
    weight_gradients,
)
from system.models.fused import (
    gru,
    norm_silu_backward,
    norm_silu_into,
    sample_backward,
    sample_into,
)
from system.models.layers import NORM_EPS


class PosteriorWeights(NamedTuple):
    """From deter and the embedding's part to the posterior's logits."""

    deter_in: Tensor
    """[D, H]."""
    scale: Tensor
    """[H]."""
    out: Tensor
    """[H, S * K]."""
    bias: Tensor
    """[S * K]."""


class Filtered(NamedTuple):
    """Each [T, B, ...], flat in S * K."""

    deter: Tensor
    stoch: Tensor
    """One-hot samples, straight-through."""
    probs: Tensor


class Seen(NamedTuple):
    """What a scan reads at every step, time first."""

    keep: Tensor
    """float32 [T, B, 1]: 0 where an episode begins."""
    action_part: Tensor
    """[T, B, D]."""
    embedding_part: Tensor
    """[T, B, H]: what the embeddings add to the posterior's hidden layer."""
    noise: Tensor
    """[T, B, S, 1] uniform."""


def observe(
    carry: tuple[Tensor, Tensor], seen: Seen, weights: CellWeights, posterior: PosteriorWeights,
    *, classes: int, unimix: float,
) -> Filtered:  # fmt: skip
    """Filters T observations from a carry [B, D] and [B, S * K]; all gradients."""
    found = _Observe.apply(*carry, *seen, classes, unimix, *weights, *posterior)  # type: ignore[no-untyped-call]
    return Filtered(*found)


def recur(
    deter: Tensor, stoch: Tensor, action_part: Tensor, weights: CellWeights,
    transposed: CellWeights,
) -> Tensor:  # fmt: skip
    """One step with gradients for its inputs, none for the weights: what a dream needs."""
    return _Recur.apply(deter, stoch, action_part, weights, transposed)  # type: ignore[no-untyped-call, no-any-return]


class _Recur(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, deter: Tensor, stoch: Tensor, action_part: Tensor,  # noqa: ANN401
        weights: CellWeights, transposed: CellWeights,
    ) -> Tensor:  # fmt: skip
        tape = CellTape.empty(weights, len(deter))
        gates = cell(weights, deter, stoch, action_part, tape)
        ctx.save_for_backward(deter, *tape)
        ctx.weights = weights, transposed
        return gru(gates, weights.gates_bias, deter, torch.empty_like(deter))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # noqa: ANN401
        deter, *parts = ctx.saved_tensors
        tape, (weights, transposed) = CellTape(*parts), ctx.weights
        ddeter, gradients = (
            gradient.clone(memory_format=torch.contiguous_format),
            CellGradients.like(tape),
        )
        unread = ScaleGradients(*map(torch.zeros_like, (weights.in_scale, weights.hidden_scale)))
        dstoch = cell_backward(weights, transposed, tape, deter, ddeter, gradients, unread)
        return ddeter, dstoch, gradients.before_hidden, None, None


class _Observe(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, deter: Tensor, stoch: Tensor, keep: Tensor, action_part: Tensor,  # noqa: ANN401
        seen: Tensor, noise: Tensor, classes: int, unimix: float, *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        cell_weights, posterior = _split(weights)
        T, B = seen.shape[:2]
        tape = CellTape.empty(cell_weights, T, B)
        before, inverse, hidden = seen.clone(), seen.new_empty(T, B), torch.empty_like(seen)
        deters = seen.new_empty(T, B, deter.shape[-1])
        stochs, probs = (seen.new_empty(T, B, stoch.shape[-1]) for _ in range(2))
        forgets = (keep == 0).flatten(1).any(1).tolist()
        steps = zip(
            tape.steps(), action_part.unbind(0), keep.unbind(0), before.unbind(0),
            inverse.unbind(0), hidden.unbind(0), noise.unbind(0), deters.unbind(0),
            stochs.unbind(0), probs.unbind(0), forgets, strict=True,
        )  # fmt: skip
        carry = deter, stoch
        for step, action, kept, pre, inv, out, drawn, new, hard, prob, forget in steps:
            if forget:
                deter, stoch = deter * kept, stoch * kept
            gates = cell(cell_weights, deter, stoch, action, step)
            gru(gates, cell_weights.gates_bias, deter, new)
            torch.addmm(pre, new, posterior.deter_in, out=pre)
            norm_silu_into(pre, posterior.scale, out, inv, NORM_EPS)
            logits = torch.addmm(posterior.bias, out, posterior.out)
            sample_into(logits, drawn, prob, hard, classes, unimix)
            deter, stoch = new, hard
        ctx.save_for_backward(
            *carry, keep, *tape, before, inverse, hidden, deters, stochs, probs, *weights
        )
        ctx.options = classes, unimix, forgets
        return deters, stochs, probs

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        carry_deter, carry_stoch, keep, *rest = ctx.saved_tensors
        tape, rest = CellTape(*rest[:7]), rest[7:]
        before, inverse, hidden, deters, stochs, probs, *weights = rest
        cell_weights, posterior = _split(weights)
        classes, unimix, forgets = ctx.options
        # Inputs of every step: the posterior before it, forgotten where an episode begins.
        deter_in = torch.cat([carry_deter.unsqueeze(0), deters[:-1]]) * keep
        stoch_in = torch.cat([carry_stoch.unsqueeze(0), stochs[:-1]]) * keep
        transposed = transpose(cell_weights)
        out_t, deter_t = posterior.out.T.contiguous(), posterior.deter_in.T.contiguous()
        ddeters, dstochs, dprobs = outer
        # Straight-through: a sample's gradient is that of its probabilities.
        dlogits, dbefore = (dstochs + dprobs).contiguous(), torch.empty_like(before)
        gradients = CellGradients.like(tape)
        scales = ScaleGradients(
            torch.zeros_like(cell_weights.in_scale), torch.zeros_like(cell_weights.hidden_scale)
        )
        dscale = torch.zeros_like(posterior.scale)
        ddeter, dstoch = torch.zeros_like(carry_deter), torch.zeros_like(carry_stoch)
        steps = zip(
            tape.steps(), gradients.steps(), deter_in.unbind(0), keep.unbind(0), before.unbind(0),
            inverse.unbind(0), probs.unbind(0), ddeters.unbind(0), dlogits.unbind(0),
            dbefore.unbind(0), forgets, strict=True,
        )  # fmt: skip
        for step, grads, old, kept, pre, inv, prob, dnew, dlogit, dpre, forget in reversed(
            list(steps)
        ):
            dlogit.add_(dstoch)
            sample_backward(prob, dlogit, dlogit, classes, unimix)
            torch.mm(dlogit, out_t, out=dpre)
            norm_silu_backward(dpre, pre, posterior.scale, inv, dpre, dscale)
            ddeter.add_(dnew).addmm_(dpre, deter_t)
            dstoch = cell_backward(cell_weights, transposed, step, old, ddeter, grads, scales)
            if forget:
                ddeter, dstoch = ddeter * kept, dstoch * kept
        dcell = weight_gradients(tape, gradients, deter_in, stoch_in, scales)
        rows = dlogits.flatten(0, 1)
        dposterior = PosteriorWeights(
            deter_in=deters.flatten(0, 1).T @ dbefore.flatten(0, 1),
            scale=dscale,
            out=hidden.flatten(0, 1).T @ rows,
            bias=rows.sum(0),
        )
        inputs = (ddeter, dstoch, None, gradients.before_hidden, dbefore, None, None, None)
        return (*inputs, *dcell, *dposterior)


def _split(weights: Any) -> tuple[CellWeights, PosteriorWeights]:  # noqa: ANN401
    size = len(CellWeights._fields)
    return CellWeights(*weights[:size]), PosteriorWeights(*weights[size:])
