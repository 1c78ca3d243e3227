"""The recurrent state-space model of DreamerV3 with its block-diagonal GRU.

::

    carry z_{t-1}, action a_{t-1} --recur--> deter_t --prior--------------> stoch_t   (imagine)
                                      deter_t, embedding_t --posterior----> stoch_t   (observe)

One step of the recurrence, for every block g of G::

    shared = [norm(W deter), norm(W stoch), norm(W action)]       3 * hidden
    h_g    = norm(W_g [deter_g, shared])                          D / G
    reset, candidate, update = split(V_g h_g)
    deter_g' = update * tanh(reset * candidate) + (1 - update) * deter_g

`shared` enters every block, so its part of the block-linear layer is one dense matrix; and what
depends only on actions and embeddings is computed for all T at once, outside the recurrence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from system.config import ModelConfig
from system.models import device_cell, device_scan, kernels, scan
from system.models.cell import CellWeights
from system.models.distributions import OneHot
from system.models.layers import Block, BlockLinear, Linear, Norm, init_weight, through


class Latent(NamedTuple):
    """The world model's code of the present, one or many."""

    deter: Tensor
    """float32 [..., D]."""
    stoch: Tensor
    """float32 [..., S, K], one-hot rows."""

    @property
    def feature(self) -> Tensor:
        """What every head reads: float32 [..., D + S * K]."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)

    def detach(self) -> Latent:
        """The same numbers, no gradient."""
        return Latent(self.deter.detach(), self.stoch.detach())

    def flatten_time(self) -> Latent:
        """[B, T, ...] -> [B * T, ...]."""
        return Latent(self.deter.flatten(0, 1), self.stoch.flatten(0, 1))


@dataclass(frozen=True, slots=True)
class Observed:
    """Posteriors of a sequence and the two distributions their losses compare."""

    latent: Latent
    """[B, T, ...]."""
    posterior: OneHot
    """[B, T, S, K]."""
    prior: OneHot
    """[B, T, S, K]."""


class RSSM(nn.Module):
    """Deterministic memory plus categorical stochastic code."""

    def __init__(self, config: ModelConfig, *, embedding: int, action: int) -> None:
        super().__init__()
        self.config = config
        deter, hidden, groups = config.deter, config.hidden, config.blocks
        stoch = config.stoch * config.classes
        self.deter_in = Block(deter, hidden)
        self.stoch_in = Block(stoch, hidden)
        self.action_in = Block(action, hidden)
        block = deter // groups
        fan_in = groups * (block + 3 * hidden)  # of all blocks together, as the authors count
        self.hidden_deter = nn.Parameter(torch.empty(groups, block, block))
        self.hidden_shared = nn.Parameter(torch.empty(3 * hidden, deter))
        self.hidden_bias = nn.Parameter(torch.zeros(deter))
        init_weight(self.hidden_deter, fan_in)
        init_weight(self.hidden_shared, fan_in)
        self.hidden_norm = Norm(deter)
        self.gates = BlockLinear(3, groups, block, block)
        self.posterior_in = Linear(deter + embedding, hidden)
        self.posterior_norm = Norm(hidden)
        self.posterior_out = Linear(hidden, stoch)
        self.prior_in = nn.Sequential(Block(deter, hidden), Block(hidden, hidden))
        self.prior_out = Linear(hidden, stoch)

    def initial(self, batch: int) -> Latent:
        """Zeros: there is no learned initial latent. [batch, ...]."""
        config, like = self.config, self.hidden_bias
        return Latent(
            like.new_zeros(batch, config.deter),
            like.new_zeros(batch, config.stoch, config.classes),
        )

    def observe(
        self, carry: Latent, action: Tensor, embedding: Tensor, is_first: Tensor
    ) -> Observed:
        """Filters T observations.

        Args:
          carry: [B, ...] the posterior before the first of them.
          action: float32 [B, T, A], at t the action taken BEFORE observation t (a_{t-1}).
          embedding: float32 [B, T, E].
          is_first: bool [B, T]; there, carry and action of the old episode are forgotten.

        Returns:
          Posteriors and priors for all T.
        """
        keep = (~is_first).to(embedding.dtype)
        action = action * keep.unsqueeze(-1)
        embedding_weight = self.posterior_in.weight[:, self.config.deter :]
        seen = embedding @ embedding_weight.T + self.posterior_in.bias
        if kernels.usable(seen):
            return self._observe_fused(carry, keep, action, seen)
        action_part = self.action_part(action)
        if seen.is_cuda:
            return self.observe_on_device(carry, keep, action_part, seen)
        deter_weight = self.posterior_in.weight[:, : self.config.deter]
        # Time goes first so that each step is a contiguous slice.
        action_parts, seens = action_part.transpose(0, 1).unbind(0), seen.transpose(0, 1).unbind(0)
        keeps = keep.T.unsqueeze(-1).unbind(0)
        noises = self._noise(action.shape[1], action.shape[0])
        deter, stoch = carry.deter, carry.stoch.flatten(-2)
        deters, stochs, probs = [], [], []
        for t in range(action.shape[1]):
            deter = self.recur(deter * keeps[t], stoch * keeps[t], action_parts[t])
            hidden = self.posterior_norm(torch.addmm(seens[t], deter, deter_weight.T))
            posterior = self.distribution(self.posterior_out(hidden))
            sample = posterior.sample(noises[t].unsqueeze(-1))
            stoch = sample.flatten(-2)
            deters.append(deter)
            stochs.append(sample)
            probs.append(posterior.probs)
        latent = Latent(torch.stack(deters, 1), torch.stack(stochs, 1))
        return Observed(latent, OneHot(torch.stack(probs, 1)), self.prior(latent.deter))

    def _observe_fused(self, carry: Latent, keep: Tensor, action: Tensor, seen: Tensor) -> Observed:
        """The same scan with its gradient written by hand (`scan.py`)."""
        config, (B, T) = self.config, keep.shape
        noise = self._noise(T, B).transpose(0, 1)
        filtered = scan.observe(
            (carry.deter, carry.stoch.flatten(-2)),
            scan.Seen(keep=keep, action=bounded(action), embedding_part=seen, noise=noise),
            self.cell_weights(),
            self._posterior_weights(),
            self.shape,
        )
        # [B, T, S * K] -> [B, T, S, K]
        stochs, probs = (part.view(B, T, config.stoch, config.classes) for part in filtered[1:])
        return Observed(Latent(filtered.deter, stochs), OneHot(probs), self.prior(filtered.deter))

    @property
    def shape(self) -> scan.Shape:
        """Of the samples."""
        return scan.Shape(self.config.stoch, self.config.classes, self.config.unimix)

    def observe_on_device(
        self, carry: Latent, keep: Tensor, action_part: Tensor, seen: Tensor
    ) -> Observed:
        """The same scan with few kernels (`device_scan.py`); autocast says how products round."""
        kind = seen.device.type
        rounds = torch.is_autocast_enabled(kind)
        filtered = device_scan.observe(
            *carry,
            device_scan.Seen(
                keep=keep.T.unsqueeze(-1),
                action_part=action_part.transpose(0, 1),
                embedding_part=seen.transpose(0, 1),
                noise=self._noise(keep.shape[1], keep.shape[0]).unsqueeze(-1),
            ),
            device_cell.weights_of(self),
            self.config.unimix,
            torch.get_autocast_dtype(kind) if rounds else seen.dtype,
        )
        deters, stochs, probs = (part.transpose(0, 1) for part in filtered)
        return Observed(Latent(deters, stochs), OneHot(probs), self.prior(deters))

    def cell_weights(self) -> CellWeights:
        """The block GRU's parameters as the kernels read them, with their gradients."""
        ins = self.deter_in, self.stoch_in, self.action_in
        return CellWeights(
            deter_in=self.deter_in.linear.weight,
            stoch_in=self.stoch_in.linear.weight,
            action_in=self.action_in.linear.weight,
            in_bias=torch.stack([block.linear.bias for block in ins]),
            in_scale=torch.stack([block.norm.scale for block in ins]),
            shared=self.hidden_shared,
            hidden=self.hidden_deter,
            hidden_bias=self.hidden_bias,
            hidden_scale=self.hidden_norm.scale,
            # [3, G, b, b] -> [G, b, 3 * b]
            gates=self.gates.weight.permute(1, 2, 0, 3).flatten(2),
            gates_bias=self.gates.bias.squeeze(2).transpose(0, 1).contiguous(),
        )

    def _posterior_weights(self) -> scan.PosteriorWeights:
        return scan.PosteriorWeights(
            deter_in=self.posterior_in.weight[:, : self.config.deter],
            scale=self.posterior_norm.scale,
            out=self.posterior_out.weight,
            bias=self.posterior_out.bias,
        )

    def imagine_step(self, carry: Latent, action: Tensor) -> Latent:
        """One step without an observation: [B, ...] and float32 [B, A] -> the prior's sample."""
        deter = self.recur(carry.deter, carry.stoch.flatten(-2), self.action_part(action))
        return Latent(deter, self.prior(deter).sample())

    def action_part(self, action: Tensor) -> Tensor:
        """The action's share of the hidden layer, bias included: [..., A] -> [..., D]."""
        projected: Tensor = self.action_in(bounded(action))
        return projected @ self.hidden_shared[2 * self.config.hidden :] + self.hidden_bias

    def recur(self, deter: Tensor, stoch: Tensor, action_part: Tensor) -> Tensor:
        """The block GRU: deter [B, D], stoch [B, S * K], action part [B, D] -> deter [B, D]."""
        batch, groups = deter.shape[0], self.config.blocks
        shared = torch.cat([self.deter_in(deter), self.stoch_in(stoch)], -1)
        dense = torch.addmm(action_part, shared, self.hidden_shared[: 2 * self.config.hidden])
        # [B, D] -> [G, B, D / G]
        by_block = deter.view(batch, groups, -1).transpose(0, 1)
        hidden = torch.baddbmm(
            dense.view(batch, groups, -1).transpose(0, 1), by_block, self.hidden_deter
        )
        hidden = self.hidden_norm(hidden.transpose(0, 1).reshape(batch, -1))
        reset, candidate, update = self.gates(hidden.view(batch, groups, -1).transpose(0, 1))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        new = torch.lerp(by_block, candidate, torch.sigmoid(update - 1.0))
        return new.transpose(0, 1).reshape(batch, -1)

    def prior(self, deter: Tensor) -> OneHot:
        """What the model expects to see: [..., D] -> [..., S, K]."""
        return self.distribution(self.prior_logits(deter))

    def prior_logits(self, deter: Tensor) -> Tensor:
        """[..., D] -> [..., S * K]."""
        return self.prior_out(through(self.prior_in, deter))  # type: ignore[no-any-return]

    def distribution(self, logits: Tensor) -> OneHot:
        """Flat logits [..., S * K] -> categoricals [..., S, K]."""
        shaped = logits.view(*logits.shape[:-1], self.config.stoch, self.config.classes)
        return OneHot.from_logits(shaped, self.config.unimix)

    def _noise(self, time: int, batch: int) -> Tensor:
        """Uniform noise of all steps at once: [T, B, S]."""
        return torch.rand(time, batch, self.config.stoch, device=self.hidden_bias.device)


def bounded(action: Tensor) -> Tensor:
    """Actions [..., A] scaled back into [-1, 1], without a gradient through the scale."""
    return action / action.detach().abs().clamp(min=1.0)
