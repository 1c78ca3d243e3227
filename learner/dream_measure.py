"""Dreams beside recorded Steps: how far they are from them, and some of them to look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch import Batch
from learner.dream_examples import examples_of
from learner.dream_scores import error_by_horizon, gap_of, parting_step, windowed_return
from learner.open_loop import Models, bounded, changed, here, open_loop, shown
from system.dream import Example, Floats, Gap
from system.models.dynamics import Latent


@dataclass(frozen=True, kw_only=True, slots=True)
class Measuring:
    """How to dream beside a Batch [N, C + H]."""

    context: int
    """C, Steps that are seen first [agent steps]."""
    samples: int
    """K, dreams from each start."""
    discount: float
    """Of rewards, per agent step; the predicted continuation holds it too."""
    policy_acts: bool = False
    """The examples show dreams under the policy; the figures stay as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """See `system.dream.DreamReport`."""

    model_error: Floats
    repeat_error: Floats
    """float32 [H]."""
    parting_step: int | None
    gap: Gap
    examples: list[Example]


@torch.no_grad()
def measure(models: Models, batch: Batch, variance: dict[str, Tensor], how: Measuring) -> Measured:
    """Dreams beside a Batch [N, C + H], see `open_loop`.

    Dreamed Steps that no Sequence has in its episode any more are left out. `variance` is that of
    each element of each observation, by name.
    """
    context, samples = how.context, how.samples
    length = context + int(here(batch, context).sum(1).max())
    batch = changed(batch, lambda array: array[:, :length])
    recorded = open_loop(models, batch, context=context, samples=samples)
    free = open_loop(models, batch, context=context, samples=samples, recorded_actions=False)
    seen = shown(models.decoder, recorded)
    mean = {name: values.mean(1)[:, context:] for name, values in seen.items()}
    real = {name: batch.observation[name].float() for name in seen}
    ahead = {name: values[:, context:] for name, values in real.items()}
    last = {name: v[:, context - 1 : context].expand_as(ahead[name]) for name, v in real.items()}
    still = here(batch, context)
    error = error_by_horizon(mean, ahead, still, variance)
    looked = free if how.policy_acts else recorded
    alive = bounded(models.world_model.predict_continue(looked))
    return Measured(
        model_error=error.cpu().numpy(),
        repeat_error=error_by_horizon(last, ahead, still, variance).cpu().numpy(),
        parting_step=parting_step(error),
        gap=_gap(models, batch, recorded, free, how),
        examples=examples_of(
            batch,
            shown(models.decoder, free) if how.policy_acts else seen,
            bounded(models.world_model.predict_reward(looked)),
            (alive / how.discount).clamp(max=1.0),
            context + still.sum(1),
        ),
    )


def _gap(models: Models, batch: Batch, recorded: Latent, free: Latent, how: Measuring) -> Gap:
    """The returns of the dreamed Steps: real, under the same actions, and under the policy."""
    context, still = how.context, here(batch, how.context)
    terminal = batch.is_terminal[:, context:] & still
    # After a terminal Step nothing more is earned: that is known. After a cut nothing is.
    counts = still | (terminal.cumsum(1) > 0)

    def expected(dreamed: Latent) -> Tensor:
        ahead = Latent(dreamed.deter[:, :, context:], dreamed.stoch[:, :, context:])
        reward = bounded(models.world_model.predict_reward(ahead))
        alive = bounded(models.world_model.predict_continue(ahead))
        return windowed_return(reward, alive, counts.unsqueeze(1)).mean(1)

    return gap_of(
        windowed_return(batch.reward[:, context:], (~terminal).float() * how.discount, counts),
        expected(recorded),
        expected(free),
        horizon=still.shape[1],
        discount=how.discount,
    )
