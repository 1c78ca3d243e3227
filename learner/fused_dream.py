"""A dream in one kernel, and back in another: what `imagine` runs on a CPU.

World model and policy are constants here; where the policy learns through the dream, gradients
reach the actions, through every feature. Buffers are [N, H, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from system.models import records
from system.models.cell import CellTape
from system.models.dynamics import RSSM, Latent
from system.models.heads import BinaryHead, Policy, TwoHotHead
from system.models.kernels import call
from system.models.layers import MLP, weights_of
from system.models.packed import (
    LayerTape,
    LayerWeights,
    Made,
    Pair,
    passing,
    remember,
    stack,
    tapes,
)


class _Reader(NamedTuple):
    """A stack, and what it makes of every feature."""

    layers: list[LayerWeights]
    packed: records.Stack
    tapes: list[LayerTape]
    kept: bool
    """Whether there will be gradients."""
    out: Tensor

    def record(self) -> records.Reader:
        found: records.Reader = records.Reader.of(
            stack=self.packed, tapes=tapes(self.tapes), out=self.out
        )
        return found

    def remember(self, feature: Tensor) -> None:
        made = [tape.as_rows() for tape in self.tapes if self.kept]
        rows = feature.flatten(0, 1)
        remember(rows, self.layers[0].weight, Made(made, self.out.flatten(0, 1)))


class Rolled(NamedTuple):
    """Features [N, H + 1, F] and actions [N, H + 1, A]; an action has no gradient."""

    feature: Tensor
    action: Tensor


class FusedDream:
    """One dream.

    The dream that uses it::

        rolled = FusedDream(dynamics, policy).roll(start, horizon)
        rolled = FusedDream(dynamics, policy).roll_with_gradient(start, nudge)  # if continuous
    """

    def __init__(
        self, dynamics: RSSM, policy: Policy, readers: Sequence[TwoHotHead | BinaryHead] = ()
    ) -> None:
        """What `readers` make of the features is remembered (`packed.remembering`)."""
        self._dynamics, self._policy = dynamics, policy
        self._readers = [policy.mlp, *[head.mlp for head in readers]]

    def roll(self, start: Latent, horizon: int) -> Rolled:
        """From [N, ...], without gradient."""
        self._there(start, horizon, kept=False)
        return Rolled(self.feature, self.action)

    def roll_with_gradient(self, start: Latent, nudge: Tensor) -> Rolled:
        """The same with features whose gradients reach `nudge`, zeros [N, H + 1, A] on actions."""
        feature = _Roll.apply(self, start, nudge)  # type: ignore[no-untyped-call]
        return Rolled(feature, self.action)

    @torch.no_grad()
    def _there(self, start: Latent, horizon: int, *, kept: bool) -> None:
        """Makes the buffers and fills them."""
        dynamics, policy = self._dynamics, self._policy
        N, H, F = len(start.deter), horizon, start.feature.shape[-1]
        A, S = dynamics.action_in.linear.in_features, dynamics.config.stoch
        weights = dynamics.cell_weights()
        hidden = dynamics.config.hidden
        self._prior_tapes = [
            LayerTape.scratch(N, H, hidden)._replace(**_kept_before(N, H, hidden, kept=kept))
            for _ in dynamics.prior_in
        ]
        self.feature = torch.empty(N, H + 1, F)
        self.feature[:, 0] = start.feature
        self.action = torch.empty(N, H + 1, A)
        readers = [self._reader(mlp, kept=kept) for mlp in self._readers]
        self._read_by_policy = readers[0]
        self._tape = CellTape.of(weights, N, H, kept=kept, dkept=False)
        discrete = policy.kind == "discrete"
        noise = torch.rand(N, H + 1, 1) if discrete else torch.randn(N, H + 1, A)
        slopes = torch.empty(3, N, H + 1, A)
        probs = torch.empty(N, H, F - dynamics.config.deter) if kept \
            else passing(N, H, F - dynamics.config.deter)  # fmt: skip
        prior_out, policy_out = Pair.of(dynamics.prior_out.weight.T), Pair.of(policy.out.weight.T)
        self._fields = {
            "cell": weights.packed(**dynamics.shape._asdict()),
            "prior": stack(weights_of(dynamics.prior_in)),
            "prior_tapes": tapes(self._prior_tapes),
            "readers": records.array([reader.record() for reader in readers]),
            "reader_count": len(readers),
            "prior_out": prior_out.forward, "prior_out_turned": prior_out.back,
            "policy_out": policy_out.forward, "policy_out_turned": policy_out.back,
            "prior_bias": dynamics.prior_out.bias, "policy_bias": policy.out.bias,
            "feature": self.feature, "action": self.action, "action_noise": noise,
            "noise": torch.rand(N, H, S), "probs": probs, "mean": slopes[0], "slope": slopes[1],
            "reach": slopes[2], "N": N, "H": H, "discrete": int(discrete),
            "tape": self._tape.record(),
        }  # fmt: skip
        call("roll", records.Roll.of(**self._fields, dfeature=self.feature, dnudge=self.action))
        for reader in readers:
            reader.remember(self.feature)

    def _reader(self, mlp: MLP, *, kept: bool) -> _Reader:
        """Room for what a stack makes of the features; for its gradients, if there will be any."""
        N, steps = self.feature.shape[:2]
        kept = kept or any(parameter.requires_grad for parameter in mlp.parameters())
        make = LayerTape.empty if kept else LayerTape.scratch
        width = mlp.out_features
        room = [make(N, steps, width) for _ in mlp.blocks]
        layers = weights_of(mlp.blocks)
        return _Reader(layers, stack(layers), room, kept, torch.empty(N, steps, width))

    def back(self, gradient: Tensor) -> Tensor:
        """From the gradient of the features [N, H + 1, F] to that of every action [N, H + 1, A]."""
        # The last action changes no feature.
        found = torch.zeros_like(self.action)
        policy = self._read_by_policy._replace(
            tapes=[tape.summing() for tape in self._read_by_policy.tapes]
        )
        fields = self._fields | {
            "readers": records.array([policy.record()]),
            "prior_tapes": tapes([tape.summing() for tape in self._prior_tapes]),
            "tape": self._tape.summing().record(),
        }
        record = records.Roll.of(**fields, dfeature=gradient.contiguous(), dnudge=found)
        call("roll_gradient", record)
        return found


def _kept_before(rows: int, time: int, width: int, *, kept: bool) -> dict[str, Tensor]:
    """What the way back through a constant Block needs: its gradients go nowhere else."""
    if not kept:
        return {}
    return {
        "before": torch.empty(rows, time, width),
        "inverse": torch.empty(rows, time, 1),
        "after": passing(rows, time, width),
        "gradient": passing(rows, time, width),
    }


class _Roll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dream: FusedDream, start: Latent, nudge: Tensor) -> Tensor:  # noqa: ANN401
        ctx.dream = dream
        dream._there(start, nudge.shape[1] - 1, kept=True)
        # Another tensor than the dream keeps: an output that held itself would never be freed.
        return dream.feature.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:  # noqa: ANN401
        return None, None, ctx.dream.back(gradient)
