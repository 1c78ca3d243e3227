"""Rolling the prior forward, weights laid out once: the fast twin of `RSSM.imagine_step`."""

from __future__ import annotations

import torch
from torch import Tensor

from system.models.cell import CellTape, cell, transpose
from system.models.dynamics import RSSM, Latent
from system.models.fused import gru, sample, sample_into
from system.models.scan import recur


class Imagination:
    """Steps of many dreams at once; the weights are constants.

    The dream that uses it::

        imagination = Imagination(dynamics, torch.bfloat16)
        for t in range(horizon):
            action = policy.distribution(feature[:, t]).sample()
            deter = imagination.step_into(deter, feature[:, t], action, feature[:, t + 1])
    """

    def __init__(self, dynamics: RSSM, dtype: torch.dtype) -> None:
        """`dtype` of the matrix products: float32, or bfloat16 where no gradient is wanted."""
        self._dynamics, self._dtype = dynamics, dtype
        with torch.no_grad():
            self._weights = dynamics.cell_weights().to(dtype)
            self._transposed = transpose(self._weights)
        self._tape: CellTape | None = None

    def step(self, carry: Latent, action: Tensor) -> Latent:
        """`RSSM.imagine_step`: gradients reach carry and action; float32."""
        dynamics, config = self._dynamics, self._dynamics.config
        deter = recur(
            carry.deter, carry.stoch.flatten(-2), dynamics.action_part(action), self._weights,
            self._transposed,
        )  # fmt: skip
        logits = dynamics.prior_logits(deter)
        noise = torch.rand(len(deter), config.stoch)
        hard, _ = sample(logits, noise, config.classes, config.unimix)
        return Latent(deter, hard.view(-1, config.stoch, config.classes))

    def step_into(
        self, deter: Tensor, feature: Tensor, action: Tensor, following: Tensor
    ) -> Tensor:
        """One step without gradients.

        Args:
          deter: float32 [N, D].
          feature: [N, F] of this dtype, rows of any stride: deter (rounded) and one-hot stoch.
          action: float32 [N, A].
          following: like feature; receives the next one.

        Returns:
          The next deter, float32 [N, D].
        """
        dynamics, weights = self._dynamics, self._weights
        config, rows = dynamics.config, len(deter)
        if self._tape is None or len(self._tape.shared) != rows:
            self._tape = CellTape.empty(weights, rows)
        action_part = dynamics.action_part(action.to(self._dtype))
        gates = cell(
            weights, feature[:, : config.deter], feature[:, config.deter :], action_part, self._tape
        )
        deter = gru(gates, weights.gates_bias, deter, torch.empty_like(deter), following)
        logits = dynamics.prior_logits(following[:, : config.deter])
        noise = torch.rand(rows, config.stoch)
        sample_into(
            logits, noise, None, following[:, config.deter :], config.classes, config.unimix
        )
        return deter
