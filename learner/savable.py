"""What a checkpoint takes from a learner, and gives back to the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learner.arena import DETER, STOCH, Arena
from learner.bookmark import Bookmark, FreshCursor
from learner.checkpoint import Checkpoint
from learner.publisher import Standing
from learner.samplers import FreshThenUniform
from learner.update import Learning
from system.errors import CheckpointError
from system.limiter import ReplayLimiter
from system.models.weights import load_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Savable:
    """The parts of a learner that a resumed one must have bit for bit."""

    learning: Learning
    arena: Arena
    sampler: FreshThenUniform
    limiter: ReplayLimiter

    def checkpoint(
        self, standing: Standing, *, version: int, resets: int, time_s: float, model_digest: str
    ) -> Checkpoint:
        """Everything as it is now; `version` counts broadcasts, `resets` the episodes begun."""
        return Checkpoint(
            model_digest=model_digest,
            bookmark=Bookmark(
                epoch=standing.epoch,
                update=standing.update,
                version=version,
                agent_steps=standing.agent_steps,
                elapsed_s=standing.elapsed_s,
                time_s=time_s,
                replayed=self.limiter.replayed,
                resets=resets,
                optimizer_steps=self.learning.optimizer.count,
                torch_generator=torch.get_rng_state().numpy().tobytes(),
                sampler_generator=dict(self.sampler.uniform.generator.bit_generator.state),
                fresh=[
                    FreshCursor(slot=slot, copy=copy, ordinal=track.fresh)
                    for (slot, copy), track in self.arena.tracks.items()
                ],
            ),
            tensors={
                "weights": {k: v.cpu().contiguous() for k, v in self.learning.state_dict().items()},
                "optimizer": {k: v.cpu() for k, v in self.learning.optimizer.tensors().items()},
                "latents": latent_tensors(self.arena),
            },
        )

    def restore(self, checkpoint: Checkpoint, *, known_steps: int) -> None:
        """Into an arena that the segments have filled; ordinals from `known_steps` on mean nothing.

        Raises:
          CheckpointError: it does not fit this run.
        """
        bookmark, tensors = checkpoint.bookmark, checkpoint.tensors
        owed = max(0.0, (bookmark.agent_steps - self.limiter.min_steps) * self.limiter.ratio)
        if bookmark.replayed > owed:
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: replayed={bookmark.replayed} cannot be after "
                f"agent_steps={bookmark.agent_steps}: replay.ratio={self.limiter.ratio} and "
                f"replay.min_steps={self.limiter.min_steps} allow {owed:g}"
            )
        try:
            load_tensors({"": self.learning}, {f".{k}": v for k, v in tensors["weights"].items()})
            self.learning.optimizer.load(tensors["optimizer"], bookmark.optimizer_steps)
            load_latents(self.arena, tensors["latents"], below=known_steps)
            self.sampler.uniform.generator.bit_generator.state = bookmark.sampler_generator
            raw = np.frombuffer(bookmark.torch_generator, np.uint8)
            torch.set_rng_state(torch.from_numpy(raw.copy()))
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.name} does not fit this run: {str(error).splitlines()[0]}"
            ) from None
        self.limiter.replayed = bookmark.replayed
        for cursor in bookmark.fresh:
            resume_fresh(self.arena, cursor, below=known_steps)


def latent_tensors(arena: Arena) -> dict[str, Tensor]:
    """Posteriors of all Steps in the arena, oldest first."""
    rows = np.arange(arena.oldest, arena.end) % arena.capacity
    return {
        "oldest": torch.tensor(arena.oldest),
        "deter": torch.from_numpy(arena.storage.read(DETER, rows)),
        "stoch": torch.from_numpy(arena.storage.read(STOCH, rows)),
        "known": torch.from_numpy(arena.columns.known[rows]),
    }


def load_latents(arena: Arena, tensors: dict[str, Tensor], *, below: int) -> None:
    """Inverse of `latent_tensors`, for the Steps there with an ordinal less than `below`.

    Raises:
      ValueError: their shapes are not those of this model.
    """
    count, model = len(tensors["known"]), arena.model
    for name, width in (("deter", model.deter), ("stoch", model.stoch)):
        if tensors[name].shape != (count, width):
            raise ValueError(f"latents: {name!r} has shape {tuple(tensors[name].shape)}")
    if count and tensors["stoch"].max() >= model.classes:
        raise ValueError(f"latents: 'stoch' holds a class beyond {model.classes - 1}")
    ordinals = int(tensors["oldest"]) + np.arange(count)
    kept = (ordinals >= arena.oldest) & (ordinals < min(arena.end, below))
    rows = ordinals[kept] % arena.capacity
    latents = {DETER: tensors["deter"].numpy()[kept], STOCH: tensors["stoch"].numpy()[kept]}
    arena.storage.write(rows, latents)
    arena.columns.known[rows] = tensors["known"].numpy()[kept]


def resume_fresh(arena: Arena, cursor: FreshCursor, *, below: int) -> None:
    """Goes on with a Track's fresh Sequences where a checkpoint says.

    If that Step, or what the checkpoint knew, was lost (`below` is the first such ordinal), it goes
    on at the Track's growing end: no Step is trained as fresh twice.
    """
    track = arena.tracks.get((cursor.slot, cursor.copy))
    if track is None:
        return
    context = cursor.ordinal if cursor.ordinal < below else int(track.open[0])
    # The Track may have begun anew since the checkpoint: never back before that.
    if context >= track.began:
        track.fresh = context
