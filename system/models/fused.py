"""The fused kernels as torch sees them: each function here equals a few lines of plain torch.

Gradients are written by hand; `tests/system/models/test_fused.py` compares both with the twins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from system.models.kernels import SUFFIX, call
from system.models.numerics import TwoHotTarget

TILE = 1024
"""Rows of logits that are held at once."""


def norm_silu(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """silu(rms_norm(x) * scale): float32 or bfloat16 [..., n], float32 [n] -> like x."""
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _NormSilu.apply(x, scale, eps)  # type: ignore[no-untyped-call, no-any-return]
    x = x.contiguous()
    return norm_silu_into(x, scale, torch.empty_like(x), None, eps)


def norm_silu_into(
    x: Tensor, scale: Tensor, out: Tensor, inverse: Tensor | None, eps: float
) -> Tensor:
    """The same into `out`; `inverse` float32 [rows] receives 1 / rms. All contiguous.

    scale is float32 [n] or [groups, n], then row r takes scale[r % groups].
    """
    n = scale.shape[-1]
    call(
        f"norm_silu_{SUFFIX[x.dtype]}", x, scale, out, inverse, x.numel() // n, n,
        scale.numel() // n, eps,
    )  # fmt: skip
    return out


def norm_silu_backward(
    gradient: Tensor, x: Tensor, scale: Tensor, inverse: Tensor, dx: Tensor, dscale: Tensor
) -> Tensor:
    """Fills `dx` (may be `gradient`) and adds to `dscale`."""
    n = scale.shape[-1]
    call(
        f"norm_silu_backward_{SUFFIX[x.dtype]}", gradient, x, scale, inverse, dx, dscale,
        x.numel() // n, n, scale.numel() // n,
    )  # fmt: skip
    return dx


def gru(
    gates: Tensor, bias: Tensor, deter: Tensor, following: Tensor, copy: Tensor | None = None
) -> Tensor:
    """Gates [B, G, 3, b] (reset, candidate, update) and bias [G, 3, b] move deter [B, G * b].

    The result goes to `following`, float32 [B, G * b]; rounded, to `copy`; rows of any stride.
    """
    groups, _, block = bias.shape
    stride = 0 if copy is None else copy.stride(0)
    call(
        f"gru_{SUFFIX[gates.dtype]}", gates, gates.stride(0), gates.stride(1), bias, deter,
        deter.stride(0), following, following.stride(0), copy, stride, len(deter), groups, block,
    )  # fmt: skip
    return following


def gru_backward(
    gradient: Tensor, gates: Tensor, bias: Tensor, deter: Tensor, dgates: Tensor, ddeter: Tensor
) -> None:
    """Fills `dgates` and `ddeter` (may be `gradient`); float32."""
    groups, _, block = bias.shape
    call(
        "gru_backward", gradient, gates, bias, deter, deter.stride(0), dgates, ddeter, len(deter),
        groups, block,
    )  # fmt: skip


def block_matmul(x: Tensor, weight: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Of x [B, G * in] and a block-diagonal weight [G, in, cols] -> out [B, G * cols]; float32.

    Rows of x and out may have any stride. Torch multiplies such small blocks one by one.
    """
    groups, width, cols = weight.shape
    call(
        "block_matmul", x, x.stride(0), weight, out, out.stride(0), len(x), groups, width, cols,
        int(add),
    )  # fmt: skip


def sample_into(
    logits: Tensor, noise: Tensor, probs: Tensor | None, hard: Tensor, classes: int, unimix: float
) -> None:
    """Logits [B, S * K], noise float32 [B, S, 1] -> probs float32 [B, S * K], hard (any stride)."""
    batch, width = logits.shape
    call(
        f"sample_{SUFFIX[logits.dtype]}", logits, noise, probs, hard, hard.stride(0), batch,
        width // classes, classes, unimix,
    )  # fmt: skip


def sample_backward(
    probs: Tensor, gradient: Tensor, dlogits: Tensor, classes: int, unimix: float
) -> Tensor:
    """From the gradient of sample and probabilities together, float32 [B, S * K]."""
    batch, width = probs.shape
    call(
        "sample_backward", probs, gradient, dlogits, batch, width // classes, classes, unimix
    )  # fmt: skip
    return dlogits


def sample(logits: Tensor, noise: Tensor, classes: int, unimix: float) -> tuple[Tensor, Tensor]:
    """Logits [B, S * K] -> one-hot sample and probabilities, with straight-through gradients."""
    return _Sample.apply(logits, noise, classes, unimix)  # type: ignore[no-untyped-call, no-any-return]


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expectation of softmax(logits [rows, V]) over mirrored bins [V] -> [rows]."""
    return _TwoHotMean.apply(logits, bins)  # type: ignore[no-untyped-call, no-any-return]


def two_hot_loss(
    hidden: Tensor, out: tuple[Tensor, Tensor], target: TwoHotTarget, other: TwoHotTarget | None,
    pull: float,
) -> Tensor:  # fmt: skip
    """Cross-entropy [rows] of logits `hidden @ weight.T + bias` (`out` is the two).

    Against one two-hot target, plus `pull` times that against another, if there is one.
    """
    pulled = (None, None) if other is None else (other.below, other.share_above)
    return _TwoHotLoss.apply(  # type: ignore[no-untyped-call, no-any-return]
        hidden, *out, target.below, target.share_above, *pulled, pull
    )


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:  # noqa: ANN401
        x = x.contiguous()
        inverse = torch.empty(x.numel() // x.shape[-1])
        ctx.save_for_backward(x, scale, inverse)
        return norm_silu_into(x, scale, torch.empty_like(x), inverse, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        x, scale, inverse = ctx.saved_tensors
        dscale = torch.zeros_like(scale)
        dx = torch.empty_like(x)
        norm_silu_backward(gradient.contiguous(), x, scale, inverse, dx, dscale)
        return dx, dscale, None


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, noise: Tensor, classes: int, unimix: float  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        hard, probs = torch.empty_like(logits), torch.empty_like(logits)
        sample_into(logits.contiguous(), noise, probs, hard, classes, unimix)
        ctx.save_for_backward(probs)
        ctx.options = classes, unimix
        return hard, probs

    @staticmethod
    def backward(ctx: Any, dhard: Tensor, dprobs: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (probs,) = ctx.saved_tensors
        gradient = (dhard + dprobs).contiguous()
        return sample_backward(probs, gradient, gradient, *ctx.options), None, None, None


class _TwoHotMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor) -> Tensor:  # noqa: ANN401
        mean = logits.new_empty(len(logits))
        call("two_hot_mean", logits, bins, mean, *logits.shape)
        ctx.save_for_backward(logits, bins, mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        logits, bins, mean = ctx.saved_tensors
        dlogits = torch.empty_like(logits)
        call(
            "two_hot_mean_backward", logits, bins, mean, gradient.contiguous(), dlogits,
            *logits.shape,
        )  # fmt: skip
        return dlogits, None


class _TwoHotLoss(torch.autograd.Function):
    """The logits [rows, V] are never held at once: the way back computes each tile again."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, below: Tensor,  # noqa: ANN401
        above: Tensor, pull_below: Tensor | None, pull_above: Tensor | None, pull: float,
    ) -> Tensor:  # fmt: skip
        loss, normalizer = torch.empty_like(above), torch.empty_like(above)
        targets = below, above, pull_below, pull_above
        turned = weight.T.contiguous()
        for rows in tiles(len(hidden)):
            logits = torch.addmm(bias, hidden[rows].to(weight.dtype), turned)
            each = [part if part is None else part[rows] for part in targets]
            call(
                "two_hot_loss", logits, *each, pull, loss[rows], normalizer[rows], *logits.shape
            )  # fmt: skip
        ctx.save_for_backward(hidden, weight, bias, normalizer, *targets)
        ctx.pull = pull
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, bias, normalizer, *targets = ctx.saved_tensors
        dhidden = torch.empty_like(hidden)
        dweight, dbias = torch.zeros_like(weight), torch.zeros_like(bias)
        turned, gradient = weight.T.contiguous(), gradient.contiguous()
        for rows in tiles(len(hidden)):
            x = hidden[rows].to(weight.dtype)
            logits = torch.addmm(bias, x, turned)
            each = [part if part is None else part[rows] for part in targets]
            call(
                "two_hot_loss_backward", logits, normalizer[rows], gradient[rows], *each, ctx.pull,
                logits, *logits.shape,
            )  # fmt: skip
            dhidden[rows] = logits @ weight
            dweight.addmm_(logits.T, x)
            dbias += logits.sum(0)
        return dhidden, dweight, dbias, None, None, None, None, None


def projected_two_hot_mean(hidden: Tensor, weight: Tensor, bias: Tensor, bins: Tensor) -> Tensor:
    """Expectation [rows] of logits `hidden @ weight.T + bias`, tile by tile; no gradient."""
    hidden, weight, bias = hidden.detach(), weight.detach(), bias.detach()
    mean, turned = weight.new_empty(len(hidden)), weight.T.contiguous()
    for rows in tiles(len(hidden)):
        logits = torch.addmm(bias, hidden[rows].to(weight.dtype), turned)
        call("two_hot_mean", logits, bins, mean[rows], *logits.shape)
    return mean


def tiles(rows: int) -> list[slice]:
    """Slices of rows whose logits stay in the cache of a core."""
    return [slice(first, first + TILE) for first in range(0, rows, TILE)]
