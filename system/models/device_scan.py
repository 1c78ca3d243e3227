"""The recurrence over time for a GPU: few kernels a step, and a gradient written by hand.

A step is small there; what costs is the number of kernels. So whatever does not depend on the step
before is computed for all T at once: on the way back, the factors of every norm, gate and softmax,
and each weight's gradient as one product over T * B rows. The twin is `RSSM.observe`; the names are
its, `d` in front means the gradient of. Plain torch: it runs, and is tested, anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from system.models.device_cell import (
    GruFactors,
    NormFactors,
    Tape,
    Weights,
    add,
    by_block,
    from_blocks,
    gru_factors,
    norm_backward,
    norm_factors,
    norm_silu,
    recur,
)


class Seen(NamedTuple):
    """What every step reads, time first."""

    keep: Tensor
    """[T, B, 1]: 0 where an episode begins."""
    action_part: Tensor
    """[T, B, D]."""
    embedding_part: Tensor
    """[T, B, H], the posterior's bias included."""
    noise: Tensor
    """[T, B, S, 1] uniform."""


class Filtered(NamedTuple):
    """Each time first."""

    deter: Tensor
    """[T, B, D]."""
    stoch: Tensor
    """[T, B, S, K] one-hot samples, straight-through."""
    probs: Tensor
    """[T, B, S, K]."""


def observe(
    deter: Tensor, stoch: Tensor, seen: Seen, weights: Weights, unimix: float, dtype: torch.dtype
) -> Filtered:
    """Filters T observations from a carry [B, D] and [B, S, K].

    Args:
      deter: float32 [B, D].
      stoch: one-hot [B, S, K].
      seen: of all T.
      weights: of the dynamics, with gradients.
      unimix: share of the uniform in every distribution.
      dtype: of the factors of products; what is added, normed and sampled keeps that of `deter`.
    """
    found = _Observe.apply(deter, stoch, *seen, unimix, dtype, *weights)  # type: ignore[no-untyped-call]
    return Filtered(*found)


class _Observe(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any, deter: Tensor, stoch: Tensor, keep: Tensor, action_part: Tensor,  # noqa: ANN401
        embedding_part: Tensor, noise: Tensor, unimix: float, dtype: torch.dtype, *parts: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        with torch.autocast(deter.device.type, enabled=False):
            weights = Weights(*parts)
            rounded = weights.rounded(dtype)
            uniform = torch.full((), 1.0 / stoch.shape[-1], dtype=deter.dtype, device=deter.device)
            classes = torch.arange(stoch.shape[-1], device=deter.device)
            tapes, deters, stochs, probs = [], [], [], []
            steps = zip(keep, action_part, embedding_part, noise, strict=True)
            for kept, action, embedding, drawn in steps:
                tape, new = recur(rounded, deter * kept, stoch.flatten(-2) * kept, action)
                before = add(embedding, new.to(dtype), rounded.posterior_in)
                out = norm_silu(before, weights.posterior_scale).to(dtype)
                logits = add(weights.out_bias, out, rounded.posterior_out)
                share = F.softmax(logits.view(stoch.shape), -1)
                mixed = torch.lerp(share, uniform, unimix)
                index = (mixed[..., :-1].cumsum(-1) <= drawn).sum(-1, keepdim=True)
                deter, stoch = new, (classes == index).to(deter.dtype)
                tapes.append(tape._replace(before_out=before, out=out))
                deters.append(deter)
                stochs.append(stoch)
                probs.append(mixed)
            tape = Tape(*[torch.stack(each) for each in zip(*tapes, strict=True)])
            found = torch.stack(deters), torch.stack(stochs), torch.stack(probs)
            ctx.save_for_backward(keep, found[0], found[2], *tape, *parts)
            ctx.options = unimix, dtype
            return found

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        keep, deters, probs, *rest = ctx.saved_tensors
        tape, weights = Tape(*rest[: len(Tape._fields)]), Weights(*rest[len(Tape._fields) :])
        unimix, dtype = ctx.options
        with torch.autocast(deters.device.type, enabled=False):
            factors = _factors(tape, weights, probs, unimix)
            rounded = weights.rounded(dtype)
            ddeters, dprobs = outer[0], outer[1] + outer[2]  # straight-through
            ddeter, dstoch = torch.zeros_like(deters[0]), torch.zeros_like(probs[0])
            steps, kept = [], keep[-1]
            for t in reversed(range(len(deters))):
                dprob = torch.addcmul(dprobs[t], dstoch, kept.unsqueeze(-1))
                sampled = _sample_back(rounded, factors, t, dprob)
                dnew = torch.addcmul(ddeters[t], ddeter, kept)
                dnew = add(dnew, sampled[1].to(dtype), rounded.posterior_in.T)
                turned, ddeter, dflat = _recur_back(rounded, factors, t, dnew)
                dstoch, kept = dflat.view(dstoch.shape), keep[t]
                steps.append(_Gradients(*sampled, *turned))
            ddeter, dstoch = ddeter * kept, dstoch * kept.unsqueeze(-1)
            parts = zip(*reversed(steps), strict=True)
            gradients = _Gradients(*[torch.stack(part) for part in parts])
            dweights = _weight_gradients(tape, rounded, factors, deters, gradients)
            inputs = ddeter, dstoch, None, gradients.before_hidden, gradients.before_out
            return (*inputs, None, None, None, *dweights)


class _Gradients(NamedTuple):
    """Of one step, or stacked [T, ...]: before every product that has a weight."""

    logits: Tensor
    """[B, S * K]."""
    before_out: Tensor
    """[B, H]."""
    gates: Tensor
    """[G, B, 3 * b]."""
    before_hidden: Tensor
    """[B, D]."""
    before_in: Tensor
    """[B, 2, H]."""


class _Factors(NamedTuple):
    """What gradients are multiplied by, of all steps at once."""

    share: Tensor
    """[T, B, S, K]: softmax of the logits, and times the share that is not uniform."""
    kept: Tensor
    out: NormFactors
    gru: GruFactors
    hidden: NormFactors
    ins: NormFactors


def _factors(tape: Tape, weights: Weights, probs: Tensor, unimix: float) -> _Factors:
    kept = probs - unimix / probs.shape[-1]
    return _Factors(
        share=kept / (1.0 - unimix),
        kept=kept,
        out=norm_factors(tape.before_out, weights.posterior_scale),
        gru=gru_factors(tape.gates, tape.deter),
        hidden=norm_factors(tape.before_hidden, weights.hidden_scale),
        ins=norm_factors(tape.before_in, weights.in_scale),
    )


def _sample_back(
    weights: Weights, factors: _Factors, t: int, dprobs: Tensor
) -> tuple[Tensor, Tensor]:
    """From a sample's gradient [B, S, K] to those of its logits and of its hidden layer."""
    scaled = factors.kept[t] * dprobs
    dlogits = torch.addcmul(scaled, factors.share[t], scaled.sum(-1, keepdim=True), value=-1)
    dlogits = dlogits.flatten(-2)
    dout = dlogits.to(weights.posterior_out.dtype) @ weights.posterior_out.T
    return dlogits, norm_backward(dout, factors.out, t)


def _recur_back(
    weights: Weights, factors: _Factors, t: int, dnew: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """From the gradient of the next deter [B, D].

    Returns:
      Gradients of gates, hidden and input layer; then of deter [B, D] and stoch [B, S * K].
    """
    dtype, groups = weights.hidden.dtype, len(weights.hidden)
    dgates = (factors.gru.gates[t] * by_block(dnew, groups).unsqueeze(2)).flatten(2)
    dhidden = from_blocks(torch.bmm(dgates.to(dtype), weights.gates.mT))
    dbefore = norm_backward(dhidden, factors.hidden, t)
    small = dbefore.to(dtype)
    blocks = torch.bmm(by_block(small, groups), weights.hidden.mT)
    dshared = small @ weights.shared.T
    din = norm_backward(dshared.view(len(small), 2, -1), factors.ins, t)
    direct = factors.gru.deter[t] * dnew.view(len(dnew), groups, -1)
    ddeter = (direct + blocks.transpose(0, 1)).flatten(1)
    ddeter = add(ddeter, din[:, 0].to(dtype), weights.deter_in.T)
    return (dgates, dbefore, din), ddeter, din[:, 1].to(dtype) @ weights.stoch_in.T


def _weight_gradients(
    tape: Tape, weights: Weights, factors: _Factors, deters: Tensor, gradients: _Gradients
) -> Weights:
    """One product per weight, over all T * B rows; `weights` are rounded."""
    dlogits, dbefore_outs, dgates, dbefores, dins = gradients
    groups, dtype = len(weights.hidden), weights.hidden.dtype

    def product(x: Tensor, dy: Tensor) -> Tensor:
        x, dy = x.to(dtype).flatten(0, 1), dy.to(dtype).flatten(0, 1)
        return (x.T @ dy).to(dlogits.dtype)

    def block_product(x: Tensor, dy: Tensor) -> Tensor:
        return torch.bmm(x.to(dtype).mT, dy.to(dtype)).to(dlogits.dtype)

    def rows(x: Tensor) -> Tensor:
        """[T, B, D] -> [G, T * B, b]."""
        return by_block(x.flatten(0, 1), groups)

    gates = dgates.transpose(0, 1).flatten(1, 2)  # [T, G, B, 3 * b] -> [G, T * B, 3 * b]
    douts = dlogits.to(dtype) @ weights.posterior_out.T
    dhiddens = from_blocks(torch.bmm(gates.to(dtype), weights.gates.mT)).view_as(dbefores)
    dshareds = (dbefores.to(dtype) @ weights.shared.T).view_as(dins)
    return Weights(
        deter_in=product(tape.deter, dins[:, :, 0]),
        stoch_in=product(tape.stoch, dins[:, :, 1]),
        shared=product(tape.shared, dbefores),
        hidden=block_product(rows(tape.deter), rows(dbefores)),
        gates=block_product(rows(tape.hidden), gates),
        posterior_in=product(deters, dbefore_outs),
        posterior_out=product(tape.out, dlogits),
        in_bias=dins.sum((0, 1)),
        gates_bias=gates.sum(1, keepdim=True),
        out_bias=dlogits.sum((0, 1)),
        in_scale=(dshareds * factors.ins.scale).sum((0, 1)),
        hidden_scale=(dhiddens * factors.hidden.scale).sum((0, 1)),
        posterior_scale=(douts * factors.out.scale).sum((0, 1)),
    )
