"""Distributions as DreamerV3 uses them. All are records over tensors; sampling takes a generator.

Shapes: `[...]` stands for any batch axes, S x K are stochastic groups x classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from system.models import fused
from system.models.fused import Projection
from system.models.numerics import two_hot, two_hot_mean, unrounded

MIN_STD, MAX_STD = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class OneHot:
    """Independent categoricals, mixed with a share of the uniform; samples are one-hot rows."""

    probs: Tensor
    """float32 [..., K], rows sum to 1, each at least unimix / K."""

    @classmethod
    def from_logits(cls, logits: Tensor, unimix: float) -> OneHot:
        """(1 - unimix) * softmax(logits) + unimix / K.

        Spelled out: for a handful of classes torch's softmax is ten times slower on a CPU.
        """
        logits = unrounded(logits)
        raised = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
        share = (1.0 - unimix) / raised.sum(-1, keepdim=True)
        return cls(raised * share + unimix / logits.shape[-1])

    @property
    def log_probs(self) -> Tensor:
        """float32 [..., K]."""
        return torch.log(self.probs)

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """One-hot float32 [..., K] with straight-through gradients to `probs`.

        Args:
          noise: float32 [..., 1] uniform in [0, 1), if drawn beforehand. The sample is the first
            class whose cumulative probability exceeds it.
        """
        probs = self.probs.detach()
        if noise is None:
            noise = torch.rand_like(probs[..., :1])
        # The last class is what remains, so a sum of 0.9999999 cannot fall off the end.
        index = (probs[..., :-1].cumsum(-1) <= noise).sum(-1, keepdim=True)
        hard = torch.zeros_like(probs).scatter_(-1, index, 1.0)
        if not self.probs.requires_grad:
            return hard
        return hard + (self.probs - self.probs.detach())

    def drawn(self, value: Tensor) -> Tensor:
        """A sample from before, one-hot [..., K], as `sample` would have made it with gradient."""
        return value + (self.probs - self.probs.detach())

    def mode(self) -> Tensor:
        """One-hot float32 [..., K] of the likeliest class."""
        index = torch.argmax(self.probs, -1, keepdim=True)
        return torch.zeros_like(self.probs).scatter_(-1, index, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of one-hot rows, [..., K] -> [...]."""
        return (self.log_probs * value).sum(-1)

    def entropy(self) -> Tensor:
        """[..., K] -> [...] in nats."""
        return -(self.probs * self.log_probs).sum(-1)


def kl_divergence(p: OneHot, q: OneHot) -> Tensor:
    """KL(p || q) summed over the S groups, [..., S, K] -> [...] in nats."""
    return (p.probs * (p.log_probs - q.log_probs)).sum((-2, -1))


@dataclass(frozen=True, slots=True)
class BoundedNormal:
    """Normal with mean in (-1, 1) and standard deviation in (0.1, 1); samples are not squashed."""

    mean: Tensor
    std: Tensor
    """Both float32 [..., A]."""

    @classmethod
    def from_outputs(cls, mean: Tensor, std: Tensor) -> BoundedNormal:
        """tanh(mean) and 0.9 * sigmoid(std + 2) + 0.1 of two linear outputs [..., A]."""
        mean, std = unrounded(mean), unrounded(std)
        spread = (MAX_STD - MIN_STD) * torch.sigmoid(std + 2.0) + MIN_STD
        return cls(torch.tanh(mean), spread)

    def sample(self) -> Tensor:
        """float32 [..., A], reparametrized: gradients reach mean and std."""
        return torch.addcmul(self.mean, self.std, torch.randn_like(self.mean))

    def drawn(self, value: Tensor) -> Tensor:
        """A sample from before, [..., A], as `sample` would have made it with gradient."""
        return torch.addcmul(self.mean, self.std, ((value - self.mean) / self.std).detach())

    def mode(self) -> Tensor:
        """float32 [..., A]."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Summed over A, [..., A] -> [...]."""
        scaled = (value - self.mean) / self.std
        return (-0.5 * scaled.square() - torch.log(self.std) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Summed over A, [..., A] -> [...] in nats."""
        return (torch.log(self.std) + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


ActionDistribution = OneHot | BoundedNormal


class ScalarDistribution(Protocol):
    """A distribution over exponentially spaced bins that stands for a scalar."""

    def mean(self) -> Tensor:
        """[...], with gradient."""
        ...

    def cross_entropy(
        self, target: Tensor, other: Tensor | None = None, pull: float = 0.0
    ) -> Tensor:
        """Loss against scalar targets, plus `pull` times that against others: [...] -> [...].

        There is no gradient to the targets.
        """
        ...


@dataclass(frozen=True, slots=True)
class TwoHot:
    """Spelled out from its logits."""

    logits: Tensor
    """float32 [..., V]."""
    bins: Tensor
    """float32 [V], mirrored around 0."""

    @property
    def log_probs(self) -> Tensor:
        """float32 [..., V], normalized."""
        return F.log_softmax(self.logits, -1)

    def mean(self) -> Tensor:
        """[..., V] -> [...]."""
        return two_hot_mean(self.log_probs.exp(), self.bins)

    def cross_entropy(
        self, target: Tensor, other: Tensor | None = None, pull: float = 0.0
    ) -> Tensor:
        """See `ScalarDistribution`."""
        loss = self._cross_entropy(target)
        return loss if other is None else loss + pull * self._cross_entropy(other)

    def _cross_entropy(self, target: Tensor) -> Tensor:
        split = two_hot(target.detach(), self.bins)
        neighbors = torch.stack([split.below, split.below + 1], -1)
        low, high = self.log_probs.gather(-1, neighbors).unbind(-1)
        return -torch.lerp(low, high, split.share_above)


@dataclass(frozen=True, slots=True)
class FusedTwoHot:
    """The same from the last hidden layer: its logits are never held all at once."""

    hidden: Tensor
    """float32 [..., U]."""
    out: Projection

    def mean(self) -> Tensor:
        """[...]."""
        return fused.two_hot_mean(self.hidden.flatten(0, -2), self.out).view(self.hidden.shape[:-1])

    def cross_entropy(
        self, target: Tensor, other: Tensor | None = None, pull: float = 0.0
    ) -> Tensor:
        """See `ScalarDistribution`."""
        split = two_hot(target.detach().flatten(), self.out.bins)
        pulled = None if other is None else two_hot(other.detach().flatten(), self.out.bins)
        rows = self.hidden.flatten(0, -2)
        return fused.two_hot_loss(rows, self.out, split, pulled, pull).view(target.shape)
