"""Open loop: see C Steps, then dream H more without looking, beside what was recorded.

::

    t         0 .. C-1                       C .. C+H-1
    observe   posterior of each Step
    dream                                    K times: action, prior, action, prior, ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from learner.batch import Batch
from system.models.decoder import Decoder
from system.models.dynamics import Latent
from system.models.heads import Policy
from system.models.numerics import symexp
from system.models.world_model import WorldModel

MAX_VALUE = 1e30
"""A model that has gone wild shows no more than this [unit of what is shown]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """What dreams, and what can be seen of it."""

    world_model: WorldModel
    decoder: Decoder
    policy: Policy


@torch.no_grad()
def open_loop(
    models: Models, batch: Batch, *, context: int, samples: int, recorded_actions: bool = True
) -> Latent:
    """Dreams beside a Batch [N, C + H].

    Args:
      models: nothing in them changes.
      batch: each Sequence in one episode up to its Step C at least; beyond, see `here`.
      context: C, Steps that are seen [agent steps].
      samples: K, dreams from each start.
      recorded_actions: else the policy chooses those of the dream.

    Returns:
      [N, K, C + H, ...]: posteriors of the Steps seen, the same for all K, then priors.
    """
    dynamics = models.world_model.dynamics
    seen = {name: array[:, :context] for name, array in batch.observation.items()}
    embedding = models.world_model.encoder.encode(seen)
    past = dynamics.observe(
        batch.context, batch.previous_action[:, :context], embedding, batch.is_first[:, :context]
    ).latent
    latent = Latent(*(part[:, -1].repeat_interleave(samples, 0) for part in past))
    actions = batch.previous_action[:, context:].repeat_interleave(samples, 0)
    dreamed = []
    for step in range(actions.shape[1]):
        action = actions[:, step]
        if not recorded_actions:
            action = models.policy.distribution(latent.feature).sample()
        latent = dynamics.imagine_step(latent, action)
        dreamed.append(latent)

    def join(before: Tensor, after: list[Tensor]) -> Tensor:
        """[N, C, ...] and H times [N * K, ...] -> [N, K, C + H, ...]."""
        shown = before.unsqueeze(1).expand(-1, samples, *before.shape[1:])
        ahead = torch.stack(after, 1)
        return torch.cat([shown, ahead.view(-1, samples, *ahead.shape[1:])], 2)

    return Latent(
        join(past.deter, [latent.deter for latent in dreamed]),
        join(past.stoch, [latent.stoch for latent in dreamed]),
    )


@torch.no_grad()
def shown(decoder: Decoder, latent: Latent) -> dict[str, Tensor]:
    """Latents [..., ...] -> observations float32 [..., ...] in their own units; images 0..255."""
    return {
        name: bounded(symexp(value) if name in decoder.vectors else 255.0 * value)
        for name, value in decoder.decode(latent.feature).items()
    }


def bounded(values: Tensor) -> Tensor:
    """Finite, whatever the model says."""
    return values.float().nan_to_num().clamp(-MAX_VALUE, MAX_VALUE)


def here(batch: Batch, context: int) -> Tensor:
    """Which dreamed Steps are still of the episode that the context is of, bool [N, H]."""
    begun = batch.is_first.clone()
    begun[:, 0] = False
    return begun.cumsum(1)[:, context:] == 0


def changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """With every array [B, T, ...] changed: cut, or other rows; `context` stays."""
    columns = {
        name: change(getattr(batch, name))
        for name in ("action", "previous_action", "reward", "is_first", "is_last", "is_terminal")
    }
    return replace(
        batch,
        observation={name: change(array) for name, array in batch.observation.items()},
        ordinals=change(torch.from_numpy(batch.ordinals)).numpy(),
        context=batch.context,
        **columns,
    )
