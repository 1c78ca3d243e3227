"""One step of N copies in three kernels, weights laid out once: the fast twin of `PolicyAgent.act`.

::

    observation -> encoder's stack -> scan of one step -> dream of no steps: its policy alone
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.models import kernels, records
from system.models.cell import CellTape
from system.models.distributions import OneHot
from system.models.heads import Policy
from system.models.layers import weights_of
from system.models.packed import LayerTape, matrix, stack, tapes
from system.models.scan import Packed
from system.models.world_model import WorldModel
from system.types import Array

LEAST, MOST = np.float32(-1), np.float32(1)


class Acted(NamedTuple):
    """What is remembered, and what is done: fresh arrays."""

    feature: NDArray[np.float32]
    """[N, F]: the posterior, as heads read it."""
    action: NDArray[np.float32]
    """[N, A] in [-1, 1]: as drawn, or the likeliest."""


class Acting:
    """Filter and policy of N copies; holds for as long as the parameters do not change.

    The loop that uses it::

        acting = Acting(world_model, policy, num_copies)
        acted = acting.step(time_step.observation, time_step.is_first, feature, action,
                            deterministic=False)
    """

    def __init__(self, world_model: WorldModel, policy: Policy, num_copies: int) -> None:
        """Lays the weights out; `usable` must say yes."""
        encoder, self._dynamics, self._policy = world_model.encoder, world_model.dynamics, policy
        N, D, config = num_copies, world_model.config.deter, world_model.config
        A, stoch = self._dynamics.action_in.linear.in_features, config.stoch * config.classes
        self._kept: list[Tensor] = []
        self._slots, width = [], 0
        for name in encoder.names:
            first, width = width, width + encoder.size_of(name)
            self._slots.append((name, slice(first, width)))
        seen, part = self._buffer(N, width), self._buffer(N, 1, config.hidden)
        self._embedding = self._buffer(N, encoder.out_features)
        self._part = part[:, 0]
        projection = self._dynamics.posterior_in
        self._projection = projection.weight.detach()[:, D:].T.contiguous()
        self._projection_bias = projection.bias.detach()
        keep, before = self._buffer(N, 1), self._buffer(N, 1, A)
        old, feature = self._buffer(N, 1, D + stoch), self._buffer(N, 1, D + stoch)
        noise, action, mean = (self._buffer(N, 1, size) for size in (config.stoch, A, A))
        self._draws = self._buffer(N, 1, 1 if policy.kind == "discrete" else A)
        self._noise = noise[:, 0]
        # What is no torch operation is cheap: numpy writes and reads the same memory.
        self._seen, self._scratch = seen.numpy(), np.zeros((N, width), np.float32)
        self._keep, self._before, self._old, self._feature, self._action, self._mean = (
            each.numpy().reshape(N, -1) for each in (keep, before, old, feature, action, mean)
        )
        layers = weights_of(encoder.mlp.blocks)
        kept = tapes([LayerTape.scratch(N, 1, len(each.bias)) for each in layers])
        self._encode = ready(
            "stack", stack(layers), kept, seen, seen.stride(0), self._embedding, N
        )  # fmt: skip
        filtering = self._filter(
            N, D, keep=keep, action=before, noise=noise, seen=part, old=old, feature=feature
        )
        self._scan = ready("scan", filtering)
        self._choose = ready("roll", self._choice(
            N, filtering, feature=feature, action=action, action_noise=self._draws, mean=mean
        ))  # fmt: skip

    def step(
        self, observation: dict[str, Array], is_first: NDArray[np.bool_],
        feature: NDArray[np.float32], action: NDArray[np.float32], *, deterministic: bool,
    ) -> Acted:  # fmt: skip
        """Filters one observation [N, ...] and chooses.

        Args:
          observation: float32, as the encoder reads it.
          is_first: bool [N]; there, feature and action are forgotten.
          feature: float32 [N, F], the posterior before.
          action: float32 [N, A] in [-1, 1], chosen after it.
          deterministic: the likeliest action instead of a draw.
        """
        # A thread's first call takes over how many threads torch may use, also for the kernels.
        torch.get_num_threads()
        self._read(observation)
        self._encode()
        torch.addmm(self._projection_bias, self._embedding, self._projection, out=self._part)
        self._keep[:, 0] = ~is_first
        np.multiply(action, self._keep, out=self._before)
        self._old[:] = feature
        self._noise.copy_(self._dynamics._noise(1, len(is_first))[0])
        self._scan()
        if not deterministic:
            self._draw()
        self._choose()
        chosen = self._likeliest() if deterministic else self._action
        return Acted(self._feature.copy(), np.minimum(np.maximum(chosen, LEAST), MOST))

    def _likeliest(self) -> NDArray[np.float32]:
        if self._policy.kind == "continuous":
            return self._mean
        return OneHot(torch.from_numpy(self._mean)).mode().numpy()

    def _draw(self) -> None:
        """As the distributions draw, in the same order."""
        if self._policy.kind == "discrete":
            self._draws.uniform_()
        else:
            self._draws.normal_()

    def _buffer(self, *shape: int) -> Tensor:
        """Zeros, kept for as long as the kernels have their address."""
        self._kept.append(torch.zeros(*shape))
        return self._kept[-1]

    def _read(self, observation: dict[str, Array]) -> None:
        """Lays all vectors side by side and takes their symlog, in place."""
        seen, scratch = self._seen, self._scratch
        for name, where in self._slots:
            seen[:, where] = observation[name].reshape(len(seen), -1)
        np.log1p(np.abs(seen, out=scratch), out=scratch)
        np.copysign(scratch, seen, out=seen)

    def _filter(
        self, N: int, D: int, *, old: Tensor, feature: Tensor, **buffers: Tensor
    ) -> records.Scan:  # fmt: skip
        """The scan of one step; nothing is kept for a gradient, whose fields are never read."""
        dynamics, hidden = self._dynamics, buffers["seen"].shape[-1]
        weights = dynamics.cell_weights()
        packed = Packed.of(weights, dynamics._posterior_weights(), dynamics.shape)
        found: records.Scan = records.Scan.of(
            cell=packed.cell, posterior=packed.posterior, out=packed.out.forward,
            out_turned=packed.out.back, out_bias=packed.bias, **buffers, deter=feature[..., :D],
            stoch=feature[..., D:], probs=torch.empty_like(feature[..., D:]),
            old_deter=old[..., :D], old_stoch=old[..., D:],
            tape=CellTape.of(weights, N, 1, kept=False, dkept=False).record(),
            posterior_tape=LayerTape.scratch(N, 1, hidden).record(), dlogits=old, ddeter=old,
            dcarry_deter=old, dcarry_stoch=old, B=N, T=1,
        )  # fmt: skip
        return found

    def _choice(self, N: int, filtering: records.Scan, **buffers: Tensor) -> records.Roll:
        """A dream of no steps, which ends with the policy's first action."""
        layers, out = weights_of(self._policy.mlp.blocks), self._policy.out
        kept = [LayerTape.scratch(N, 1, len(each.bias)) for each in layers]
        last, unused, blocks = matrix(out.weight.T), buffers["feature"], stack(layers)
        hidden = self._buffer(N, 1, len(layers[-1].bias))
        policy = records.Reader.of(stack=blocks, tapes=tapes(kept), out=hidden)
        found: records.Roll = records.Roll.of(
            cell=filtering.cell, readers=records.array([policy]), reader_count=1, prior=blocks,
            prior_tapes=tapes(kept), policy_out=last, prior_out=last, policy_out_turned=last,
            prior_out_turned=last, policy_bias=out.bias.detach(), prior_bias=out.bias.detach(),
            **buffers, noise=unused, tape=filtering.tape, probs=unused,
            slope=torch.empty_like(buffers["mean"]), reach=unused, dfeature=unused, dnudge=unused,
            N=N, H=0, discrete=int(self._policy.kind == "discrete"),
        )  # fmt: skip
        return found


def ready(name: str, *arguments: object) -> Callable[[], None]:
    """A kernel with its arguments, which the caller keeps alive."""
    given = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
    return functools.partial(getattr(kernels.library(), name), *given)


def usable(world_model: WorldModel, policy: Policy) -> bool:
    """Whether the kernels can do it: vectors alone, on a CPU that has them."""
    encoder, config = world_model.encoder, world_model.config
    layered = config.encoder_layers > 0 and config.policy_layers > 0
    vectors = bool(encoder.names) and len(encoder.images) == 0
    return layered and vectors and kernels.usable(policy.out.weight)
