"""The heart: one Batch in, a better world model and a better behavior out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner.averaged import Averaged
from learner.batch import Batch
from learner.behavior import ActorCritic, BehaviorLoss
from learner.config import LearnerConfig
from learner.imagination import imagine
from learner.objectives import ReconstructionObjective
from learner.optimizer import LaProp
from learner.precision import image_dtype, products, rounds_products
from system.activity import Activity
from system.clock import SystemClock
from system.config import ModelConfig
from system.models import kernels
from system.models.agent import acting_modules
from system.models.decoder import Decoder
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.packed import Memory, remembering
from system.models.world_model import WorldModel
from system.specs import EnvSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateResult:
    """What one update leaves behind."""

    latents: Latent
    """[B, T, ...] fresh posteriors, to be written back to the arena."""
    metrics: dict[str, Tensor]
    """Scalars, float32 [], not yet read from the device."""


class Learning(nn.Module):
    """World model, decoder and behavior, and the one optimizer that trains them all.

    The loop that uses it::

        result = learning.update(arena.sample(B, T))
        arena.write_back(batch, result.latents)
    """

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        spec: EnvSpec,
        device: torch.device,
        activity: Activity | None = None,
    ) -> None:
        """`activity` is told what the time of an update goes to."""
        super().__init__()
        self._config, self._model = config, model
        self.activity = activity or Activity(SystemClock(), "learner")
        """What the time of this process goes to."""
        self.world_model = WorldModel(model, spec)
        self.decoder = Decoder(model, spec.observation)
        self.behavior = ActorCritic(config, model, Policy(model, spec.action))
        self.to(device)
        self._rounds = rounds_products(config, model)
        for images in (*self.world_model.encoder.images, *self.decoder.images):
            images.dtype = image_dtype(config, device)
        self.objective = ReconstructionObjective(config, self.world_model, self.decoder)
        self.optimizer = LaProp(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            learning_rate=config.learning_rate,
            warmup_updates=config.warmup_updates,
            clip=config.clip,
        )
        # After the optimizer, which moves every weight to a place of its own.
        self.acting = (
            Averaged(acting_modules(self.world_model, self.behavior.policy), config.acting_rate)
            if config.acting_rate < 1.0
            else None
        )

    def update(self, batch: Batch) -> UpdateResult:
        """One optimizer step on the sum of all losses."""
        with kernels.rounding(self._rounds), remembering(Memory()):
            with products(self._config, self._model, batch.reward.device):
                losses, result = self._losses(batch)
            total = torch.stack([self._scale(name) * loss for name, loss in losses.items()]).sum()
            self.activity.switch("backward")
            torch.autograd.backward(total)
        self.activity.switch("optimizer")
        result.metrics["gradient_norm"] = self.optimizer.step()
        self.behavior.follow()
        if self.acting is not None:
            self.acting.follow(self.optimizer.steps)
        return result

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], UpdateResult]:
        """Every loss, unscaled, float32 []; and the result but for what the optimizer adds."""
        self.activity.switch("world_model")
        world = self.objective.loss(batch)
        self.activity.switch("dream")
        starts = self._starts(world.latents.detach().flatten_time())
        dream = imagine(
            self.world_model,
            self.behavior.policy,
            starts,
            self._config.horizon,
            differentiable=self.behavior.gradient != "reinforce",
            readers=(self.behavior.value, self.behavior.slow_value),
        )
        self.activity.switch("behavior")
        behavior = self.behavior.loss(dream)
        replay_value = self.behavior.replay_loss(
            world.latents.feature, batch, self._worth(world.latents.detach(), behavior)
        )
        losses = {name: loss.mean() for name, loss in world.losses.items()}
        losses |= {"policy": behavior.policy.mean(), "value": behavior.value.mean()}
        losses |= {"replay_value": replay_value.mean()}
        metrics = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        metrics |= {
            "dream/return": behavior.returns.mean(),
            "dream/reward": dream.reward.detach().mean(),
            "policy/entropy": behavior.entropy,
        }
        return losses, UpdateResult(latents=world.latents.detach(), metrics=metrics)

    def acting_modules(self) -> dict[str, nn.Module]:
        """What a broadcast holds."""
        if self.acting is not None:
            return self.acting.modules_by_name()
        return acting_modules(self.world_model, self.behavior.policy)

    def _starts(self, latents: Latent) -> Latent:
        """[B * T, ...] -> the [N, ...] from which dreams start."""
        index = self._start_index(latents.deter.shape[0], latents.deter.device)
        return latents if index is None else Latent(latents.deter[index], latents.stoch[index])

    def _start_index(self, steps: int, device: torch.device) -> Tensor | None:
        """Evenly spaced over the Batch; None means every Step."""
        if self._config.dream_starts in (0, steps):
            return None
        return (
            torch.arange(self._config.dream_starts, device=device)
            * steps
            // (self._config.dream_starts)
        )

    def _worth(self, latents: Latent, behavior: BehaviorLoss) -> Tensor:
        """What each replayed Step is worth, [B, T]: its imagined return, else the value."""
        batch, time = latents.deter.shape[:2]
        index = self._start_index(batch * time, latents.deter.device)
        if index is None:
            return behavior.returns[:, 0].view(batch, time)
        worth = self.behavior.predict_value(latents.feature).flatten()
        worth[index] = behavior.returns[:, 0]
        return worth.view(batch, time)

    def _scale(self, name: str) -> float:
        scales = self.objective.scales | {
            "policy": 1.0,
            "value": 1.0,
            "replay_value": self._config.replay_value_scale,
        }
        return scales[name]
