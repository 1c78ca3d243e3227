"""The one optimizer of DreamerV3: adaptive gradient clipping, then LaProp.

AGC (Brock et al., 2021): a tensor's gradient norm is at most `clip` times its parameter norm.
LaProp (Ziyin et al., 2020): the gradient is divided by its running RMS *before* the momentum.

All parameters live in one flat buffer and all gradients in another; every parameter is a view. So
one update is a handful of passes over two arrays, whatever the number of tensors. The number of
steps is a tensor beside them: a captured CUDA graph counts on by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETA_MOMENTUM, BETA_RMS = 0.9, 0.999
EPS = 1e-20
MIN_PARAMETER_NORM = 1e-3


class LaProp:
    """Owns the storage of the given parameters.

    The update that uses it::

        loss.backward()
        optimizer.step()          # clips, scales, moves, clears the gradients
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        warmup_updates: int,
        clip: float,
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._warmup_updates = warmup_updates
        self._clip = clip
        first = self._parameters[0]
        size = sum(parameter.numel() for parameter in self._parameters)
        self.flat = torch.empty(size, dtype=first.dtype, device=first.device)
        self.gradient, self.rms, self.momentum = (torch.zeros_like(self.flat) for _ in range(3))
        # float64: 1 - 0.999 in float32 is off by a few parts in 100,000.
        self.steps = torch.zeros((), dtype=torch.float64, device=first.device)
        """Steps taken, on the device."""
        self._values: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._adopt()

    def _adopt(self) -> None:
        """Moves every parameter and its gradient into the flat buffers."""
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            view = self.flat[start:end].view_as(parameter)
            view.copy_(parameter.data)
            parameter.data = view
            parameter.grad = self.gradient[start:end].view_as(parameter)
            self._values.append(view)
            self._gradients.append(parameter.grad)
            start = end

    @property
    def count(self) -> int:
        """Steps taken; waits for the device."""
        return int(self.steps)

    @property
    def learning_rate(self) -> float:
        """Of the next step: linear warm-up from 0, then constant; waits for the device."""
        return float(self._rate())

    def _rate(self) -> Tensor:
        """float64 []."""
        return self._learning_rate * (self.steps / self._warmup_updates).clamp(max=1.0)

    @torch.no_grad()
    def step(self) -> Tensor:
        """One update; returns the gradient norm before clipping, float32 []."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        self._clip_each_tensor()
        rate, dtype = self._rate(), self.flat.dtype
        self.steps += 1
        self.rms.mul_(BETA_RMS).addcmul_(self.gradient, self.gradient, value=1.0 - BETA_RMS)
        unbias_rms = 1.0 - BETA_RMS**self.steps
        scaled = self.gradient.div_((self.rms / unbias_rms.to(dtype)).sqrt_().add_(EPS))
        self.momentum.lerp_(scaled, 1.0 - BETA_MOMENTUM)
        stride = rate / (1.0 - BETA_MOMENTUM**self.steps)
        self.flat.addcmul_(self.momentum, stride.to(dtype), value=-1.0)
        self.gradient.zero_()
        return norm

    def _clip_each_tensor(self) -> None:
        gradient_norms = torch.stack(torch._foreach_norm(self._gradients))
        value_norms = torch.stack(torch._foreach_norm(self._values))
        limit = self._clip * value_norms.clamp(min=MIN_PARAMETER_NORM)
        shrink = 1.0 / (gradient_norms / limit).clamp(min=1.0)
        torch._foreach_mul_(self._gradients, list(shrink.unbind()))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the optimizer."""
        return {"rms": self.rms, "momentum": self.momentum}

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Inverse of `tensors`; `count` is the number of steps taken."""
        self.rms.copy_(tensors["rms"])
        self.momentum.copy_(tensors["momentum"])
        self.steps.fill_(count)
