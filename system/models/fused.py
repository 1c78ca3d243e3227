"""The fused kernels as torch sees them: each function here equals a few lines of plain torch.

Gradients are written by hand; `tests/system/models/test_fused.py` compares both with the twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from system.models import records
from system.models.kernels import call, rounding, rounds
from system.models.numerics import TwoHotTarget
from system.models.packed import (
    LayerTape,
    LayerWeights,
    Pair,
    outer,
    per_thread,
    recall,
    stack,
    summed,
    tapes,
)


def norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """silu(rms_norm(x) * scale): float32 [..., n] and [n] -> [..., n]."""
    return _NormSilu.apply(x, scale)  # type: ignore[no-untyped-call, no-any-return]


def blocks(x: Tensor, layers: Sequence[LayerWeights]) -> Tensor:
    """Linear -> RMSNorm -> SiLU, several times: float32 [..., in] -> [..., out].

    All layers are of one width.
    """
    parameters = [part for layer in layers for part in layer]
    rows = x.flatten(0, -2)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    out: Tensor = _Blocks.apply(rows, *parameters)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class Projection(NamedTuple):
    """The output layer of a two-hot head."""

    weight: Tensor
    """float32 [V, in]."""
    bias: Tensor
    """[V]."""
    bins: Tensor
    """[V], mirrored around 0."""

    def record(self, back: bool, gradients: tuple[Tensor, Tensor] | None = None) -> Any:  # noqa: ANN401
        """As the kernels read it; `gradients` [threads, V, in] and [threads, V] are added to."""
        weight = self.weight.detach().T
        pair = Pair.of(weight)
        dweight, dbias = gradients or (None, None)
        return records.TwoHot.of(
            out=pair.forward, turned=pair.back if back else pair.forward, bias=self.bias.detach(),
            bins=self.bins, dweight=dweight, dbias=dbias,
        )  # fmt: skip


def two_hot_mean(hidden: Tensor, out: Projection) -> Tensor:
    """Expectation [rows] of the logits that `out` gives for hidden [rows, in]."""
    return _TwoHotMean.apply(hidden.contiguous(), *out)  # type: ignore[no-untyped-call, no-any-return]


def two_hot_loss(
    hidden: Tensor, out: Projection, target: TwoHotTarget, other: TwoHotTarget | None, pull: float
) -> Tensor:
    """Cross-entropy [rows] of the logits that `out` gives for hidden [rows, in].

    Against one two-hot target, plus `pull` times that against another, if there is one.
    """
    targets = records.array([_target(target), _target(other)])
    return _TwoHotLoss.apply(hidden.contiguous(), *out, targets, pull)  # type: ignore[no-untyped-call, no-any-return]


def _target(target: TwoHotTarget | None) -> records.Target:
    below, above = (None, None) if target is None else (target.below, target.share_above)
    found: records.Target = records.Target.of(below=below, above=above)
    return found


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        x = x.contiguous()
        out, inverse = torch.empty_like(x), torch.empty(x.numel() // x.shape[-1])
        call("norm_silu", x, scale.detach(), out, inverse, len(inverse), x.shape[-1])
        ctx.save_for_backward(x, scale, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        x, scale, inverse = ctx.saved_tensors
        n = x.shape[-1]
        dx, dscale = torch.empty_like(x), per_thread(n)
        call(
            "norm_silu_gradient", gradient.contiguous(), x, scale, inverse, dx, dscale,
            len(inverse), n,
        )  # fmt: skip
        return dx, summed(dscale)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        layers = [LayerWeights(*parameters[i : i + 3]) for i in range(0, len(parameters), 3)]
        ctx.save_for_backward(x)
        ctx.packed, ctx.rounded = stack(layers), rounds()
        made = recall(x, layers[0].weight)
        if made is not None:
            ctx.kept = made.tapes
            # Another tensor than is remembered: an output that held itself would never be freed.
            return made.out.detach()
        rows, width = len(x), len(layers[-1].bias)
        make = LayerTape.empty if any(ctx.needs_input_grad) else LayerTape.scratch
        ctx.kept, out = [make(rows, 1, width) for _ in layers], torch.empty(rows, width)
        call("stack", ctx.packed, tapes(ctx.kept), x, x.stride(0), out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        # A copy: it is overwritten layer by layer.
        dout = gradient.clone(memory_format=torch.contiguous_format)
        dx = torch.empty(x.shape) if ctx.needs_input_grad[0] else None
        kept = [tape.summing() for tape in ctx.kept]
        call("stack_gradient", ctx.packed, tapes(kept), dout, dx, x.shape[1], len(x))
        if not any(ctx.needs_input_grad[1:]):
            return (dx, *[None] * (3 * len(kept)))
        return (dx, *_block_gradients(x, kept, rounded=ctx.rounded))


def _block_gradients(x: Tensor, kept: Sequence[LayerTape], *, rounded: bool) -> list[Tensor]:
    """Of weight, bias and scale of every Block; x [rows, in] is what the first one read."""
    found: list[Tensor] = []
    for tape in kept:
        found += [outer(tape.gradient.flatten(0, 1), x, rounded=rounded), *summed(tape.sums)]
        x = tape.after.flatten(0, 1)
    return found


class _TwoHotMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, bins: Tensor  # noqa: ANN401
    ) -> Tensor:  # fmt: skip
        out, mean = Projection(weight, bias, bins), torch.empty(len(hidden))
        call("two_hot_mean", out.record(back=False), hidden, mean, len(hidden))
        ctx.save_for_backward(hidden, *out, mean)
        ctx.rounded = rounds()
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, *parts, mean = ctx.saved_tensors
        gradients, dhidden = _gradients(ctx, parts[0]), torch.empty_like(hidden)
        with rounding(ctx.rounded):
            record = Projection(*parts).record(back=True, gradients=gradients)
        call(
            "two_hot_mean_gradient", record, hidden, mean, gradient.contiguous(), dhidden,
            len(hidden),
        )  # fmt: skip
        return (dhidden, *_summed(gradients), None)


class _TwoHotLoss(torch.autograd.Function):
    """The logits [rows, V] are never held at once: the way back computes them again."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, bins: Tensor,  # noqa: ANN401
        targets: Any, pull: float,  # noqa: ANN401
    ) -> Tensor:  # fmt: skip
        out = Projection(weight, bias, bins)
        loss, normalizer = torch.empty(len(hidden)), torch.empty(len(hidden))
        call(
            "two_hot_loss", out.record(back=False), hidden, *targets, pull, loss, normalizer,
            len(hidden),
        )  # fmt: skip
        ctx.save_for_backward(hidden, *out, normalizer)
        ctx.targets, ctx.pull, ctx.rounded = targets, pull, rounds()
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, *parts, normalizer = ctx.saved_tensors
        gradients, dhidden = _gradients(ctx, parts[0]), torch.empty_like(hidden)
        with rounding(ctx.rounded):
            record = Projection(*parts).record(back=True, gradients=gradients)
        call(
            "two_hot_loss_gradient", record, hidden, *ctx.targets, ctx.pull, normalizer,
            gradient.contiguous(), dhidden, len(hidden),
        )  # fmt: skip
        return (dhidden, *_summed(gradients), None, None, None)


def _gradients(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor] | None:  # noqa: ANN401
    """Room for those of an output layer, for every thread, if they are wanted."""
    if not ctx.needs_input_grad[1]:
        return None
    return per_thread(*weight.shape), per_thread(len(weight))


def _summed(gradients: tuple[Tensor, Tensor] | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if gradients is None else (summed(gradients[0]), summed(gradients[1]))
