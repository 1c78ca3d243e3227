"""One step of the recurrence for a GPU, and the factors of its gradient, for `device_scan.py`.

The names are those of `dynamics.py`; `d` in front means the gradient of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from system.models.layers import NORM_EPS

if TYPE_CHECKING:
    from system.models.dynamics import RSSM


class Weights(NamedTuple):
    """As the products read them; G blocks of b, H hidden units."""

    deter_in: Tensor
    """[D, H]."""
    stoch_in: Tensor
    """[S * K, H]."""
    shared: Tensor
    """[2 * H, D]."""
    hidden: Tensor
    """[G, b, b]."""
    gates: Tensor
    """[G, b, 3 * b]: reset, update, candidate."""
    posterior_in: Tensor
    """[D, H]."""
    posterior_out: Tensor
    """[H, S * K]."""
    in_bias: Tensor
    """[2, H], of deter and stoch."""
    gates_bias: Tensor
    """[G, 1, 3 * b]; the update's is one less, as the GRU begins."""
    out_bias: Tensor
    """[S * K]."""
    in_scale: Tensor
    """[2, H]."""
    hidden_scale: Tensor
    """[D]."""
    posterior_scale: Tensor
    """[H]."""

    def rounded(self, dtype: torch.dtype) -> Weights:
        """The factors of products in this dtype."""
        return Weights(*[part.to(dtype) if at < 7 else part for at, part in enumerate(self)])


def weights_of(dynamics: RSSM) -> Weights:
    """Laid out, with gradients to the parameters."""
    config, ins = dynamics.config, (dynamics.deter_in, dynamics.stoch_in)
    reset, candidate, update = dynamics.gates.weight.unbind(0)
    reset_bias, candidate_bias, update_bias = dynamics.gates.bias.unbind(0)
    return Weights(
        deter_in=ins[0].linear.weight.T,
        stoch_in=ins[1].linear.weight.T,
        shared=dynamics.hidden_shared[: 2 * config.hidden],
        hidden=dynamics.hidden_deter,
        gates=torch.cat([reset, update, candidate], -1),
        posterior_in=dynamics.posterior_in.weight[:, : config.deter].T,
        posterior_out=dynamics.posterior_out.weight.T,
        in_bias=torch.stack([block.linear.bias for block in ins]),
        gates_bias=torch.cat([reset_bias, update_bias - 1.0, candidate_bias], -1),
        out_bias=dynamics.posterior_out.bias,
        in_scale=torch.stack([block.norm.scale for block in ins]),
        hidden_scale=dynamics.hidden_norm.scale,
        posterior_scale=dynamics.posterior_norm.scale,
    )


class Tape(NamedTuple):
    """What each step leaves for its gradient, [T, B, ...] once stacked."""

    deter: Tensor
    """Before the step, forgotten where an episode begins; so is stoch."""
    stoch: Tensor
    before_in: Tensor
    """[B, 2, H]: what the norms read."""
    shared: Tensor
    before_hidden: Tensor
    hidden: Tensor
    gates: Tensor
    """[G, B, 3 * b]."""
    before_out: Tensor
    out: Tensor


def recur(
    weights: Weights, deter: Tensor, stoch: Tensor, action_part: Tensor
) -> tuple[Tape, Tensor]:
    """One step of the block GRU, up to the next deter [B, D]."""
    dtype, groups = weights.shared.dtype, len(weights.hidden)
    small = deter.to(dtype)
    before_in = torch.stack([
        add(weights.in_bias[0], small, weights.deter_in),
        add(weights.in_bias[1], stoch.to(dtype), weights.stoch_in),
    ], 1)  # fmt: skip
    normed = F.rms_norm(before_in, before_in.shape[-1:], None, NORM_EPS)
    shared = F.silu(normed * weights.in_scale).flatten(1).to(dtype)
    dense = add(action_part, shared, weights.shared)
    blocks = torch.bmm(by_block(small, groups), weights.hidden)
    before = (dense.view(len(dense), groups, -1) + blocks.transpose(0, 1)).flatten(1)
    hidden = norm_silu(before, weights.hidden_scale).to(dtype)
    gates = add(weights.gates_bias, by_block(hidden, groups), weights.gates)
    size = gates.shape[-1] // 3
    opened = gates[..., : 2 * size].sigmoid()
    candidate = torch.tanh(opened[..., :size] * gates[..., 2 * size :])
    candidate, opened = candidate.transpose(0, 1), opened[..., size:].transpose(0, 1)
    # Results are laid out as the first factor is: [B, G, b], so that they flatten in place.
    new = torch.lerp(deter.view(len(deter), groups, -1), candidate, opened)
    nothing = small  # replaced by the caller
    tape = Tape(deter, stoch, before_in, shared, before, hidden, gates, nothing, nothing)
    return tape, new.flatten(1)


def add(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`bias` + x @ weight, [B, ...] or [G, B, ...], in the dtype of the bias."""
    if x.dtype != bias.dtype:
        return bias + x @ weight
    return torch.addmm(bias, x, weight) if x.ndim == 2 else torch.baddbmm(bias, x, weight)


def norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """silu(rms_norm(x) * scale), over the last axis."""
    return F.silu(F.rms_norm(x, scale.shape, scale, NORM_EPS))


class NormFactors(NamedTuple):
    """dx = dy * direct - normal * mean(dy * along), for silu(rms_norm(x) * scale)."""

    direct: Tensor
    along: Tensor
    normal: Tensor
    scale: Tensor
    """dscale = sum(dy * scale)."""


def norm_factors(x: Tensor, scale: Tensor) -> NormFactors:
    """Of all steps at once."""
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
    normed = x * inverse
    scaled = normed * scale
    opened = scaled.sigmoid()
    slope = opened * (1.0 + scaled * (1.0 - opened))
    along = slope * scale * normed
    return NormFactors(slope * scale * inverse, along, normed * inverse, slope * normed)


def norm_backward(dy: Tensor, factors: NormFactors, t: int) -> Tensor:
    """Gradient of x at step t."""
    mean = (dy * factors.along[t]).mean(-1, keepdim=True)
    return torch.addcmul(dy * factors.direct[t], factors.normal[t], mean, value=-1)


class GruFactors(NamedTuple):
    """What the gradient of the next deter is multiplied by."""

    gates: Tensor
    """[T, G, B, 3, b]: for reset, update and candidate."""
    deter: Tensor
    """[T, B, G, b]: for the deter before."""


def gru_factors(gates: Tensor, deter: Tensor) -> GruFactors:
    """Of all steps at once."""
    reset, update, candidate = gates.chunk(3, -1)
    reset, update = reset.sigmoid(), update.sigmoid()
    proposed = torch.tanh(reset * candidate)
    before = deter.view(*deter.shape[:2], gates.shape[1], -1).transpose(1, 2)
    inner = update * (1.0 - proposed.square())
    factors = torch.stack([
        inner * candidate * reset * (1.0 - reset),
        (proposed - before) * update * (1.0 - update),
        inner * reset,
    ], -2)  # fmt: skip
    return GruFactors(factors, (1.0 - update).transpose(1, 2).contiguous())


def by_block(x: Tensor, groups: int) -> Tensor:
    """[B, G * b] -> a view [G, B, b]."""
    return x.view(len(x), groups, -1).transpose(0, 1)


def from_blocks(x: Tensor) -> Tensor:
    """[G, B, b] -> [B, G * b]."""
    return x.transpose(0, 1).flatten(1)
