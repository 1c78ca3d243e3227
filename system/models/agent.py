"""What an actor runs: filter and policy behind one call. Implements `actors.agent.Agent`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.config import ModelConfig, digest
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.weights import load_bytes
from system.models.world_model import WorldModel
from system.specs import EnvSpec
from system.types import Array, Snapshot, TimeStep


@dataclass(frozen=True, slots=True)
class PolicyCarry:
    """Recurrent memory of N copies."""

    deter: Tensor
    """float32 [N, D]: the posterior after the latest observation."""
    stoch: Tensor
    """float32 [N, S, K], one-hot."""
    action: Tensor
    """float32 [N, A]: the action chosen after it."""

    def latent(self) -> dict[str, Array]:
        """As Chunks carry it: deter float16 [N, D], stoch uint8 [N, S] (class indices)."""
        return {
            "deter": self.deter.numpy().astype(np.float16),
            "stoch": self.stoch.argmax(-1).numpy().astype(np.uint8),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyDecision:
    """Actions float32 [N, A], in [-1, 1] or one-hot, and the carry to pass on."""

    action: NDArray[np.float32]
    carry: PolicyCarry


def model_digest(config: ModelConfig, spec: EnvSpec) -> str:
    """Names which parameters fit together: sizes, observation and action."""
    return digest(config, spec)


class PolicyAgent:
    """Encoder, dynamics and policy on the CPU."""

    def __init__(self, config: ModelConfig, spec: EnvSpec, *, seed: int = 0) -> None:
        generator_before = torch.get_rng_state()
        torch.manual_seed(seed)
        self.world_model = WorldModel(config, spec)
        self.policy = Policy(config, spec.action)
        torch.set_rng_state(generator_before)
        self.spec = spec
        self.digest = model_digest(config, spec)
        self.epoch = 0
        self.version = 0

    def initial_carry(self, num_copies: int) -> PolicyCarry:
        """Zeros for N copies."""
        latent = self.world_model.dynamics.initial(num_copies)
        return PolicyCarry(
            latent.deter.detach(),
            latent.stoch.detach(),
            torch.zeros(num_copies, self.spec.action.size),
        )

    @torch.inference_mode()
    def act(
        self, time_step: TimeStep, carry: PolicyCarry, *, deterministic: bool
    ) -> PolicyDecision:
        """Filters one observation per copy and chooses; `is_first` copies forget their carry."""
        observation = {k: torch.from_numpy(v) for k, v in time_step.observation.items()}
        embedding = self.world_model.encoder.encode(observation)
        # One step is a sequence with T = 1: [N, ...] -> [N, 1, ...]
        observed = self.world_model.dynamics.observe(
            Latent(carry.deter, carry.stoch),
            carry.action.unsqueeze(1),
            embedding.unsqueeze(1),
            torch.from_numpy(time_step.is_first).unsqueeze(1),
        )
        deter, stoch = observed.latent.deter[:, 0], observed.latent.stoch[:, 0]
        distribution = self.policy.distribution(Latent(deter, stoch).feature)
        action = distribution.mode() if deterministic else distribution.sample()
        action = action.clamp(-1.0, 1.0)
        return PolicyDecision(action=action.numpy().copy(), carry=PolicyCarry(deter, stoch, action))

    def load(self, snapshot: Snapshot) -> None:
        """Adopts a broadcast policy.

        Raises:
          ValueError: the snapshot belongs to another model or environment.
        """
        if snapshot.model_digest != self.digest:
            raise ValueError(
                f"policy {snapshot.version} is for model {snapshot.model_digest}, "
                f"this actor runs {self.digest}"
            )
        load_bytes(acting_modules(self.world_model, self.policy), snapshot.weights)
        self.epoch, self.version = snapshot.epoch, snapshot.version


def acting_bytes(config: ModelConfig, spec: EnvSpec) -> int:
    """What one broadcast of the acting subset weighs [bytes]; allocates nothing."""
    with torch.device("meta"):
        modules = acting_modules(WorldModel(config, spec), Policy(config, spec.action))
    parameters = [p for module in modules.values() for p in module.parameters()]
    return sum(p.numel() * p.element_size() for p in parameters)


def acting_modules(world_model: WorldModel, policy: Policy) -> dict[str, torch.nn.Module]:
    """The acting subset: what a broadcast holds."""
    return {"encoder": world_model.encoder, "dynamics": world_model.dynamics, "policy": policy}
