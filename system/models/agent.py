"""What an actor runs: filter and policy behind one call. Implements `actors.agent.Agent`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.config import ModelConfig, digest
from system.models import acting
from system.models.acting import Acted, Acting
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.weights import load_bytes
from system.models.world_model import WorldModel
from system.specs import EnvSpec
from system.types import Array, Snapshot, TimeStep


@dataclass(frozen=True, slots=True)
class PolicyCarry:
    """Recurrent memory of N copies."""

    feature: NDArray[np.float32]
    """[N, D + S * K]: the posterior after the latest observation, as heads read it."""
    action: NDArray[np.float32]
    """[N, A]: the action chosen after it."""
    classes: tuple[int, int]
    """S and K."""

    @property
    def deter(self) -> Tensor:
        """float32 [N, D]."""
        return torch.from_numpy(self.feature)[:, : -math.prod(self.classes)]

    @property
    def stoch(self) -> Tensor:
        """float32 [N, S, K], one-hot."""
        flat = torch.from_numpy(self.feature)[:, -math.prod(self.classes) :]
        return flat.view(len(flat), *self.classes)

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
        self._laid_out: dict[int, Acting | None] = {}
        """By number of copies, since the last policy was adopted."""

    def initial_carry(self, num_copies: int) -> PolicyCarry:
        """Zeros for N copies."""
        config = self.world_model.config
        return PolicyCarry(
            np.zeros((num_copies, config.feature), np.float32),
            np.zeros((num_copies, self.spec.action.size), np.float32),
            (config.stoch, config.classes),
        )

    def act(
        self, time_step: TimeStep, carry: PolicyCarry, *, deterministic: bool
    ) -> PolicyDecision:
        """Filters one observation per copy and chooses; `is_first` copies forget their carry."""
        laid_out = self._acting(len(time_step.is_first))
        act = self._act if laid_out is None else laid_out.step
        feature, action = act(
            time_step.observation, time_step.is_first, carry.feature, carry.action,
            deterministic=deterministic,
        )  # fmt: skip
        return PolicyDecision(action=action, carry=PolicyCarry(feature, action, carry.classes))

    @torch.inference_mode()
    def _act(
        self, observation: dict[str, Array], is_first: NDArray[np.bool_],
        feature: NDArray[np.float32], action: NDArray[np.float32], *, deterministic: bool,
    ) -> Acted:  # fmt: skip
        """The readable twin of `Acting.step`."""
        config, dynamics = self.world_model.config, self.world_model.dynamics
        seen = {name: torch.from_numpy(each) for name, each in observation.items()}
        embedding = self.world_model.encoder.encode(seen)
        carry = torch.from_numpy(feature)
        deter, stoch = carry[:, : config.deter], carry[:, config.deter :]
        # One step is a sequence with T = 1: [N, ...] -> [N, 1, ...]
        observed = dynamics.observe(
            Latent(deter, stoch.view(len(stoch), config.stoch, config.classes)),
            torch.from_numpy(action).unsqueeze(1),
            embedding.unsqueeze(1),
            torch.from_numpy(is_first).unsqueeze(1),
        )
        posterior = observed.latent.feature[:, 0]
        distribution = self.policy.distribution(posterior)
        chosen = distribution.mode() if deterministic else distribution.sample()
        return Acted(posterior.numpy().copy(), chosen.clamp(-1.0, 1.0).numpy())

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
        self._laid_out.clear()
        self.epoch, self.version = snapshot.epoch, snapshot.version

    def _acting(self, num_copies: int) -> Acting | None:
        """What the kernels need for so many copies; None where they cannot."""
        if num_copies not in self._laid_out:
            fits = acting.usable(self.world_model, self.policy)
            self._laid_out[num_copies] = (
                Acting(self.world_model, self.policy, num_copies) if fits else None
            )
        return self._laid_out[num_copies]


def acting_bytes(config: ModelConfig, spec: EnvSpec) -> int:
    """What one broadcast of the acting subset weighs [bytes]; allocates nothing."""
    with torch.device("meta"):
        modules = acting_modules(WorldModel(config, spec), Policy(config, spec.action))
    parameters = [p for module in modules.values() for p in module.parameters()]
    return sum(p.numel() * p.element_size() for p in parameters)


def acting_modules(world_model: WorldModel, policy: Policy) -> dict[str, torch.nn.Module]:
    """The acting subset: what a broadcast holds."""
    return {"encoder": world_model.encoder, "dynamics": world_model.dynamics, "policy": policy}
