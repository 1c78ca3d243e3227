"""A dream with its gradient written by hand: `imagine` where the policy learns through the dream.

The world model is a constant here; gradients reach the policy alone, through every feature. Buffers
are [H, N, ...]; a policy weight's gradient is one matrix product over all H * N rows.
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
)
from system.models.distributions import MAX_STD, MIN_STD
from system.models.dynamics import RSSM, Latent
from system.models.fused import (
    gru,
    norm_silu_backward,
    norm_silu_into,
    sample_backward,
    sample_into,
)
from system.models.heads import Policy
from system.models.layers import NORM_EPS, Block


class Layer(NamedTuple):
    """One Block: its parameters, laid out for products both ways."""

    weight: Tensor
    """[in, out]."""
    transposed: Tensor
    """[out, in]."""
    bias: Tensor
    scale: Tensor

    @classmethod
    def of(cls, block: Block) -> Layer:
        """A Block's parameters, without gradient."""
        weight = block.linear.weight.detach()
        return cls(weight.T.contiguous(), weight.contiguous(), block.linear.bias.detach(),
                   block.norm.scale.detach())  # fmt: skip


class LayerTape(NamedTuple):
    """What a Block leaves behind at every step."""

    before: Tensor
    """[H, N, out]: linear output; on the way back its gradient is written to `gradient`."""
    inverse: Tensor
    """[H, N]."""
    after: Tensor
    """[H, N, out]."""
    gradient: Tensor
    """[H, N, out]."""

    @classmethod
    def empty(cls, layer: Layer, *rows: int) -> LayerTape:
        """Room for `rows`."""
        new, size = layer.bias.new_empty, len(layer.bias)
        return cls(new(*rows, size), new(rows), new(*rows, size), new(*rows, size))


def forward(layers: list[Layer], tapes: list[LayerTape], t: int, x: Tensor) -> Tensor:
    """A stack of Blocks, step t."""
    for layer, tape in zip(layers, tapes, strict=True):
        before = torch.addmm(layer.bias, x, layer.weight, out=tape.before[t])
        x = norm_silu_into(before, layer.scale, tape.after[t], tape.inverse[t], NORM_EPS)
    return x


def backward(
    layers: list[Layer], tapes: list[LayerTape], dscales: list[Tensor], t: int, gradient: Tensor
) -> Tensor:
    """From the gradient of the stack's output to that of its first linear output."""
    for i in reversed(range(len(layers))):
        tape, dx = tapes[i], tapes[i].gradient[t]
        norm_silu_backward(
            gradient, tape.before[t], layers[i].scale, tape.inverse[t], dx, dscales[i]
        )
        gradient = torch.mm(dx, layers[i].transposed) if i else dx
    return gradient


class World(NamedTuple):
    """The constants of a dream."""

    cell: CellWeights
    transposed: CellWeights
    prior: list[Layer]
    prior_out: Tensor
    """[hidden, S * K]."""
    prior_bias: Tensor
    action: Layer
    action_shared: Tensor
    """[hidden, D]: the action's part of the hidden layer."""
    hidden_bias: Tensor
    classes: int
    unimix: float

    @classmethod
    @torch.no_grad()
    def of(cls, dynamics: RSSM) -> World:
        """Of an RSSM as it is now."""
        weights = dynamics.cell_weights()
        return cls(
            cell=weights,
            transposed=transpose(weights),
            prior=[Layer.of(block) for block in dynamics.prior_in],  # type: ignore[arg-type]
            prior_out=dynamics.prior_out.weight.T.contiguous(),
            prior_bias=dynamics.prior_out.bias,
            action=Layer.of(dynamics.action_in),
            action_shared=dynamics.hidden_shared[2 * dynamics.config.hidden :],
            hidden_bias=dynamics.hidden_bias,
            classes=dynamics.config.classes,
            unimix=dynamics.config.unimix,
        )


class FusedDream:
    """One dream of a continuous policy, there and back.

    The dream that uses it::

        dream = FusedDream(dynamics, policy)
        feature, action = dream.roll(start, horizon)      # feature with gradient
    """

    def __init__(self, dynamics: RSSM, policy: Policy) -> None:
        blocks = [block for block in policy.mlp.blocks if isinstance(block, Block)]
        self.world, self.layers = World.of(dynamics), [Layer.of(block) for block in blocks]
        self._out, self._out_bias = policy.out.weight.detach(), policy.out.bias.detach()
        self._parameters = [
            parameter
            for block in blocks
            for parameter in (block.linear.weight, block.linear.bias, block.norm.scale)
        ] + [policy.out.weight, policy.out.bias]

    def roll(self, start: Latent, horizon: int) -> tuple[Tensor, Tensor]:
        """From [N, ...]: features float32 [H + 1, N, F], and actions [H + 1, N, A], no gradient."""
        feature = _Roll.apply(self, start, horizon, *self._parameters)  # type: ignore[no-untyped-call]
        return feature, self.action

    def forward(self, start: Latent, horizon: int) -> Tensor:  # noqa: PLR0915
        """Fills the tapes; returns the features."""
        world, layers = self.world, self.layers
        N, D = start.deter.shape
        H, A = horizon, len(self._out_bias) // 2
        new = start.deter.new_empty
        self.feature = feature = new(H + 1, N, start.feature.shape[-1])
        feature[0] = start.feature
        self.policy_tapes = [LayerTape.empty(layer, H + 1, N) for layer in layers]
        self.prior_tapes = [LayerTape.empty(layer, H, N) for layer in world.prior]
        self.action_tape = LayerTape.empty(world.action, H, N)
        self.cell_tape = CellTape.empty(world.cell, H, N)
        self.probs = new(H, N, feature.shape[-1] - D)
        self.mean, self.slope, self.action = (new(H + 1, N, A) for _ in range(3))
        self.reach = new(H, N, A)
        eps, noise = (
            torch.randn(H + 1, N, A),
            torch.rand(H, N, self.probs.shape[-1] // world.classes),
        )
        out, steps = self._out.T.contiguous(), self.cell_tape.steps()
        for t in range(H + 1):
            x = forward(layers, self.policy_tapes, t, feature[t])
            mean, std = torch.addmm(self._out_bias, x, out).chunk(2, -1)
            torch.tanh(mean, out=self.mean[t])
            share = torch.sigmoid(std + 2.0)
            std = share * (MAX_STD - MIN_STD) + MIN_STD
            action = torch.addcmul(self.mean[t], std, eps[t], out=self.action[t])
            torch.mul(eps[t] * (MAX_STD - MIN_STD), share * (1.0 - share), out=self.slope[t])
            if t == H:
                break
            torch.reciprocal(action.abs().clamp_(min=1.0), out=self.reach[t])
            x = forward([world.action], [self.action_tape], t, action * self.reach[t])
            part = torch.addmm(world.hidden_bias, x, world.action_shared)
            deter, stoch = feature[t, :, :D], feature[t, :, D:]
            gates = cell(world.cell, deter, stoch, part, steps[t])
            deter = gru(gates, world.cell.gates_bias, deter, feature[t + 1, :, :D])
            x = forward(world.prior, self.prior_tapes, t, deter)
            logits = torch.addmm(world.prior_bias, x, world.prior_out)
            sample_into(
                logits, noise[t], self.probs[t], feature[t + 1, :, D:], world.classes, world.unimix
            )
        return feature

    def backward(self, gradient: Tensor) -> list[Tensor]:  # noqa: PLR0915
        """From the gradient of the features [H + 1, N, F] to those of the policy's parameters."""
        world, layers = self.world, self.layers
        H = len(self.probs)
        D = self.feature.shape[-1] - self.probs.shape[-1]
        ddeters, dstochs = gradient[..., :D].contiguous(), gradient[..., D:].contiguous()
        ddeter, dstoch = ddeters[H], dstochs[H]
        douts = torch.cat([self.mean[:H], self.mean[:H]], -1)
        dscales = [torch.zeros_like(layer.scale) for layer in layers]
        unread = [torch.zeros_like(layer.scale) for layer in (*world.prior, world.action)]
        scales = ScaleGradients(
            torch.zeros_like(world.cell.in_scale), torch.zeros_like(world.cell.hidden_scale)
        )
        gradients = CellGradients.like(CellTape(*[part[0] for part in self.cell_tape]))
        prior_out = world.prior_out.T.contiguous()
        action_shared = world.action_shared.T.contiguous()
        prior_in, action_in = world.prior[0].transposed, world.action.transposed
        to_deter = layers[0].transposed[:, :D].contiguous()
        to_stoch = layers[0].transposed[:, D:].contiguous()
        steps = self.cell_tape.steps()
        mean_slope = 1.0 - self.mean.square()
        for t in reversed(range(H)):
            sample_backward(self.probs[t], dstoch, dstoch, world.classes, world.unimix)
            dx = backward(world.prior, self.prior_tapes, unread, t, torch.mm(dstoch, prior_out))
            ddeter.addmm_(dx, prior_in)
            deter = self.feature[t, :, :D]
            dstoch = cell_backward(
                world.cell, world.transposed, steps[t], deter, ddeter, gradients, scales
            )
            dx = torch.mm(gradients.before_hidden, action_shared)
            dx = backward([world.action], [self.action_tape], unread[-1:], t, dx)
            daction = torch.mm(dx, action_in).mul_(self.reach[t])
            dmean, dstd = douts[t].chunk(2, -1)
            torch.mul(daction, mean_slope[t], out=dmean)
            torch.mul(daction, self.slope[t], out=dstd)
            dx = backward(layers, self.policy_tapes, dscales, t, torch.mm(douts[t], self._out))
            ddeter.add_(ddeters[t]).addmm_(dx, to_deter)
            dstoch.add_(dstochs[t]).addmm_(dx, to_stoch)
        return self._parameter_gradients(H, douts.flatten(0, 1), dscales)

    def _parameter_gradients(self, H: int, douts: Tensor, dscales: list[Tensor]) -> list[Tensor]:
        """All H * N rows at once, in the order of the parameters."""
        found, x = [], self.feature[:H].flatten(0, 1)
        for tape, dscale in zip(self.policy_tapes, dscales, strict=True):
            rows = tape.gradient[:H].flatten(0, 1)
            found += [rows.T @ x, rows.sum(0), dscale]
            x = tape.after[:H].flatten(0, 1)
        return [*found, douts.T @ x, douts.sum(0)]


class _Roll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dream: FusedDream, start: Latent, horizon: int, *parameters: Tensor  # noqa: ANN401
    ) -> Tensor:  # fmt: skip
        ctx.dream = dream
        return dream.forward(start, horizon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return (None, None, None, *ctx.dream.backward(gradient))
