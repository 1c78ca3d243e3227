"""What the learner is told. The numbers of `dreamer` are the authors' (DreamerV3, Nature 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from system.checks import (
    MOST_THREADS,
    require_at_most,
    require_not_negative,
    require_positive,
    require_share,
)
from system.errors import ConfigError

Gradient = Literal["auto", "reinforce", "analytic", "mixed"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerConfig:
    """One update, and what happens around it."""

    batch_size: int = 16
    """B: Sequences in a Batch."""
    batch_length: int = 64
    """T: Steps of each Sequence, its context Step not counted [agent steps]."""
    horizon: int = 15
    """H: imagined steps of each dream [agent steps]."""
    dream_starts: int = 0
    """Dreams per update, evenly spaced over the Batch; 0 starts one at every Step (B * T)."""
    gradient: Gradient = "reinforce"
    """How the policy learns: score function, back-propagation through the dream, or both. `auto` is
    analytic for continuous actions and reinforce for discrete ones."""
    mixed_share: float = 0.1
    """With `mixed`: share of the analytic gradient, the rest is reinforce [ratio]."""
    slope_limit: float = 0.0
    """With `analytic` and `mixed`: the most a unit of one action may add to the sum of its dream's
    scores, a score being a return by the range of returns; steeper slopes are cut. 0 cuts none."""
    learning_rate: float = 4e-5
    warmup_updates: int = 1000
    """Updates over which the learning rate grows linearly from 0."""
    clip: float = 0.3
    """AGC: largest gradient norm relative to the parameter norm, per tensor [ratio]."""
    discount_horizon: float = 333.0
    """The discount is 1 - 1 / discount_horizon [agent steps]."""
    return_lambda: float = 0.95
    """Lambda of the lambda-returns."""
    free_nats: float = 1.0
    """KL below this costs nothing [nats per Step]."""
    dynamics_scale: float = 1.0
    """Weight of KL(sg(posterior) || prior)."""
    representation_scale: float = 0.1
    """Weight of KL(posterior || sg(prior))."""
    replay_value_scale: float = 0.3
    """Weight of the value loss on replayed Steps."""
    entropy_scale: float = 3e-4
    """Weight of the policy's entropy."""
    slow_value_rate: float = 0.02
    """EMA rate of the slow value, per update."""
    slow_value_scale: float = 1.0
    """Weight of the value's pull to the slow value."""
    acting_rate: float = 1.0
    """EMA rate of the weights that act, are evaluated and broadcast, per update; 1 broadcasts those
    that learn, as the authors do."""
    return_rate: float = 0.01
    """EMA rate of the return percentiles, per update."""
    publish_s: float = 2.0
    """Least time between broadcasts of the policy [s]."""
    checkpoint_s: float = 60.0
    """Time between checkpoints [s]."""
    keep_checkpoints: int = 2
    """The newest so many are kept: if one is damaged, the one before is used."""
    commit_s: float = 0.25
    """Longest time a read Chunk waits to be synced to its segment [s]."""
    metrics_s: float = 2.0
    """Time between lines of metrics [s]."""
    dream_report_s: float = 10.0
    """Least time between dreams beside what was recorded, for people to look at; each costs about
    a hundredth of the time until the next. 0 makes none [s]."""
    precision: Precision = "fp32"
    """Of the factors of matrix products and convolutions; sums, and all between products, are fp32.
    `bf16` needs a CPU that multiplies it natively (AMX), and is fp32 elsewhere; `auto` is bf16
    where that pays: wide models, pictures. Not the default before learning curves stand behind
    it. On CUDA:
    `fp32` is exact, `auto` is TF32, and from size 12m on bf16 factors of all products."""
    torch_threads: int = 1
    """Threads of one update."""
    device: str = "auto"
    """`auto` takes CUDA if there is one, else the CPU; or a torch device name."""
    arena_device_share: float = 0.5
    """Of what a CUDA device has free besides weights and an update: an arena of at most that size
    lies there, a larger one on the host [ratio]."""
    graph: bool = True
    """On CUDA: replays the whole update as one captured graph instead of launching its kernels."""

    @property
    def discount(self) -> float:
        """Of rewards, per agent step."""
        return 1.0 - 1.0 / self.discount_horizon

    def __post_init__(self) -> None:
        for name in ("batch_size", "batch_length", "horizon", "learning_rate", "warmup_updates",
                     "clip", "discount_horizon", "publish_s", "checkpoint_s",
                     "keep_checkpoints", "commit_s", "metrics_s"):  # fmt: skip
            require_positive("learner", self, name)
        require_at_most("learner", self, "torch_threads", MOST_THREADS)
        for name in ("return_lambda", "mixed_share", "slow_value_rate", "return_rate",
                     "acting_rate", "arena_device_share"):  # fmt: skip
            require_share("learner", self, name)
        for name in ("free_nats", "dynamics_scale", "representation_scale", "replay_value_scale",
                     "entropy_scale", "slow_value_scale", "slope_limit",
                     "dream_report_s"):  # fmt: skip
            require_not_negative("learner", self, name)
        if self.batch_length < 2:
            raise ConfigError(f"learner.batch_length={self.batch_length} must be at least 2")
        if self.discount_horizon <= 1:
            raise ConfigError(
                f"learner.discount_horizon={self.discount_horizon} must be greater than 1"
            )
        starts = self.batch_size * self.batch_length
        if not 0 <= self.dream_starts <= starts:
            raise ConfigError(
                f"learner.dream_starts={self.dream_starts} must lie in 0..{starts} "
                "(batch_size * batch_length; 0 means all)"
            )

    def gradient_for(self, kind: str) -> str:
        """reinforce, analytic or mixed, for actions of this kind (continuous or discrete)."""
        if self.gradient == "auto":
            return "analytic" if kind == "continuous" else "reinforce"
        return self.gradient

    @property
    def replayed_steps(self) -> int:
        """Steps one update replays: B * T [agent steps]."""
        return self.batch_size * self.batch_length

    @property
    def imagined_steps(self) -> int:
        """Steps one update dreams: starts * H [agent steps]."""
        return (self.dream_starts or self.replayed_steps) * self.horizon
