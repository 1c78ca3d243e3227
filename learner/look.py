"""Dreams from a checkpoint beside one recorded episode, for people who have only the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learner.batch import Batch
from learner.checkpoint import Checkpoint, list_checkpoints, load
from learner.config import LearnerConfig
from learner.dream_measure import Measuring, measure
from learner.episodes import Episode
from learner.epochs import Epochs
from learner.open_loop import Models, changed
from learner.update import Learning
from system.config import ModelConfig
from system.dream import DreamReport
from system.errors import CheckpointError
from system.models.agent import model_digest
from system.models.dynamics import Latent
from system.models.weights import load_tensors
from system.specs import EnvSpec

MOST_STARTS = 16
"""Of the stretches behind the errors, evenly spaced over the episode."""
SEED = 0
"""Two checkpoints are looked at with the same noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What to look at."""

    episode: Episode
    step: int
    """The last Step seen; the dream begins after it [agent steps]."""
    context: int
    """Steps seen that are shown, at most `step` + 1 [agent steps]."""
    horizon: int
    """Steps dreamed, all of them recorded [agent steps]."""
    samples: int
    policy_acts: bool
    """Shows dreams in which the policy acts; figures are those under the recorded actions."""
    variance: dict[str, Tensor]
    """Of each element of each observation."""


def find_checkpoint(run_folder: Path, update: int | None) -> Checkpoint:
    """The checkpoint of an update, or the newest.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    before = Epochs(run_folder).newest(lambda kind, text: None)
    paths = [p for p in list_checkpoints(run_folder / "checkpoints") if before.counts(p.name)]
    by_update = {int(path.name.split("-")[1]): path for path in paths}
    if not by_update:
        raise CheckpointError(f"{run_folder / 'checkpoints'} holds no checkpoint yet")
    if update is None:
        return load(paths[-1])
    if update not in by_update:
        kept = ", ".join(map(str, sorted(by_update)))
        raise CheckpointError(
            f"there is no checkpoint of update {update}; kept: {kept} (learner.keep_checkpoints)"
        )
    return load(by_update[update])


def models_of(
    checkpoint: Checkpoint, config: LearnerConfig, model: ModelConfig, spec: EnvSpec
) -> Models:
    """What a checkpoint dreams with, on the CPU. Raises CheckpointError: of another model."""
    if checkpoint.model_digest != model_digest(model, spec):
        raise CheckpointError(
            f"checkpoint {checkpoint.name} is for model {checkpoint.model_digest}, the run is "
            f"{model_digest(model, spec)}"
        )
    learning = Learning(config, model, spec, torch.device("cpu"))
    try:
        load_tensors({"": learning}, {f".{k}": v for k, v in checkpoint.tensors["weights"].items()})
    except ValueError as error:
        raise CheckpointError(f"checkpoint {checkpoint.name}: {error}") from None
    return Models(
        world_model=learning.world_model,
        decoder=learning.decoder,
        policy=learning.behavior.policy,
    )


def look(
    models: Models, checkpoint: Checkpoint, view: View, *, discount: float, action_repeat: int
) -> DreamReport:
    """Errors over starts all along the episode; its one example begins where the view says."""
    context, horizon = view.context, view.horizon
    last = len(view.episode) - 1 - horizon
    how = Measuring(context=context, samples=view.samples, discount=discount)
    others = np.unique(np.linspace(context - 1, last, MOST_STARTS).astype(int)).tolist()
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        batch = _stretches(models, view, [view.step, *others])
        chosen, rest = _part(batch, slice(0, 1)), _part(batch, slice(1, None))
        shown = measure(models, chosen, view.variance, replace(how, policy_acts=view.policy_acts))
        figures = measure(models, rest, view.variance, how)
    bookmark = checkpoint.bookmark
    return DreamReport(
        update=bookmark.update,
        frames=bookmark.agent_steps * action_repeat,
        time_s=bookmark.time_s,
        elapsed_s=bookmark.elapsed_s,
        context_steps=context,
        horizon=horizon,
        starts=len(others),
        samples=view.samples,
        model_error=figures.model_error,
        repeat_error=figures.repeat_error,
        parting_step=figures.parting_step,
        gap=figures.gap,
        examples=shown.examples,
    )


@torch.no_grad()
def _stretches(models: Models, view: View, steps: Sequence[int]) -> Batch:
    """Sequences [N, C + H] that see up to these Steps; carries are filtered from the start on."""
    dynamics, context = models.world_model.dynamics, view.context
    whole = view.episode.batch(dynamics.initial(1))
    embedding = models.world_model.encoder.encode(whole.observation)
    past = dynamics.observe(whole.context, whole.previous_action, embedding, whole.is_first).latent
    starts = torch.tensor([step - context + 1 for step in steps])
    places = starts[:, None] + torch.arange(context + view.horizon)
    # Before the first Step there is nothing: what is_first forgets may be anything.
    before = (starts - 1).clamp(min=0)
    return replace(
        changed(whole, lambda array: array[0, places]),
        context=Latent(past.deter[0, before], past.stoch[0, before]),
    )


def _part(batch: Batch, rows: slice) -> Batch:
    return replace(
        changed(batch, lambda array: array[rows]),
        context=Latent(batch.context.deter[rows], batch.context.stoch[rows]),
    )
