"""Recorded episodes, read from a run's segments as they were written; no learner is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.batch import Batch
from learner.epochs import Epochs
from learner.segment_format import Record
from learner.segments import SegmentStore
from system.codec import decode_chunk
from system.errors import RejectedChunk, RunError
from system.models.dynamics import Latent
from system.specs import EnvSpec
from system.types import (
    ACTION,
    IS_FIRST,
    IS_LAST,
    IS_TERMINAL,
    OBSERVATION_PREFIX,
    REWARD,
    Array,
    Chunk,
)

LEAST_STEPS = 3
"""Of an episode worth looking at: one seen, one dreamed, and the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One episode from its first Step on; the newest ones may still go on."""

    slot: int
    copy: int
    fields: dict[str, Array]
    """Columns as in a Chunk, each [L, ...]."""

    def __len__(self) -> int:
        return len(self.fields[IS_FIRST])

    def batch(self, model_carry: Latent) -> Batch:
        """All of it as one Sequence, Batch [1, L]; `model_carry` is that before its first Step."""
        columns = {name: torch.from_numpy(column)[None] for name, column in self.fields.items()}
        action = columns[ACTION]
        return Batch(
            observation={
                name.removeprefix(OBSERVATION_PREFIX): column
                for name, column in columns.items()
                if name.startswith(OBSERVATION_PREFIX)
            },
            action=action,
            previous_action=torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1),
            reward=columns[REWARD],
            is_first=columns[IS_FIRST],
            is_last=columns[IS_LAST],
            is_terminal=columns[IS_TERMINAL],
            context=model_carry,
            ordinals=np.arange(len(self))[None],
        )


@dataclass(slots=True)
class Moments:
    """The variance of each element of each observation, Chunk by Chunk."""

    count: int = 0
    total: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        """Takes in all Steps of a Chunk."""
        self.count += chunk.num_steps
        for key, column in chunk.fields.items():
            if key.startswith(OBSERVATION_PREFIX):
                name, values = key.removeprefix(OBSERVATION_PREFIX), column.astype(np.float64)
                nothing = np.zeros(values.shape[1:])
                self.total[name] = self.total.get(name, nothing) + values.sum(0)
                self.squares[name] = self.squares.get(name, nothing) + np.square(values).sum(0)

    def variances(self) -> dict[str, Tensor]:
        """By observation, float32 [...]."""
        found = {}
        for name, squares in self.squares.items():
            variance = squares / self.count - np.square(self.total[name] / self.count)
            found[name] = torch.from_numpy(np.asarray(variance.clip(min=0.0))).float()
        return found


def read_episodes(run_folder: Path, spec: EnvSpec, moments: Moments) -> Iterator[Episode]:
    """Every episode that can be read from its first Step on, in the order in which they ended.

    Those that had not ended come last. `moments` takes in every Step on the way.
    """
    growing: dict[tuple[int, int], _Growing] = {}
    for chunk in _chunks(run_folder, spec):
        moments.add(chunk)
        key = (chunk.slot, chunk.copy)
        track = growing.get(key)
        if track is None or not track.continues_with(chunk):
            if track is not None:
                yield from track.closed()
            track = growing[key] = _Growing(incarnation=chunk.incarnation)
        yield from track.take(chunk)
    for track in growing.values():
        yield from track.closed()


def pick_episode(episodes: Iterator[Episode], index: int, least_steps: int) -> Episode:
    """The episode with this index among those of `least_steps`; -1 is the newest.

    Reads all of `episodes`, keeps few.

    Raises:
      RunError: there are not so many.
    """
    count, kept = 0, deque[Episode](maxlen=1 if index >= 0 else -index)
    for episode in episodes:
        if len(episode) >= least_steps:
            if index < 0 or count == index:
                kept.append(episode)
            count += 1
    if not kept or (index < 0 and count < -index):
        raise RunError(
            f"--episode {index}: the run holds {count} episodes of at least {least_steps} agent "
            f"steps; choose {-count} .. {count - 1}" if count else
            f"the run holds no episode of at least {least_steps} agent steps yet; train on, or ask "
            "for a smaller --step or --horizon"
        )  # fmt: skip
    return kept[0]


def _chunks(run_folder: Path, spec: EnvSpec) -> Iterator[Chunk]:
    before = Epochs(run_folder).newest(lambda kind, text: None)
    for item in SegmentStore(run_folder / "replay", segment_bytes=1).restore(before):
        if isinstance(item, Record) and item.entry_id.sequence:
            try:
                yield decode_chunk(item.payload, spec=spec)
            except RejectedChunk as error:
                raise RunError(
                    f"segments in {run_folder / 'replay'}: slot {item.slot} {item.entry_id} is not "
                    f"of this run: {error}"
                ) from None


@dataclass(slots=True)
class _Growing:
    """The newest episode of one Track."""

    incarnation: int
    slot: int = 0
    copy: int = 0
    next_step: int = 0
    pieces: list[dict[str, Array]] = field(default_factory=list)
    """Since its first Step; empty as long as that was not seen."""

    def continues_with(self, chunk: Chunk) -> bool:
        return (self.incarnation, self.next_step) == (chunk.incarnation, chunk.first_step)

    def take(self, chunk: Chunk) -> Iterator[Episode]:
        """Every episode that a Chunk shows to have ended."""
        self.slot, self.copy = chunk.slot, chunk.copy
        self.next_step = chunk.first_step + chunk.num_steps
        begins = np.flatnonzero(chunk.fields[IS_FIRST]).tolist()
        edges = [0, *begins, chunk.num_steps]
        for place, (start, end) in enumerate(pairwise(edges)):
            if place > 0:
                yield from self.closed()
            if end > start and (place > 0 or self.pieces):
                self.pieces.append({k: column[start:end] for k, column in chunk.fields.items()})
            if self.pieces and self.pieces[-1][IS_LAST][-1]:
                yield from self.closed()

    def closed(self) -> Iterator[Episode]:
        """The episode so far, if it is one; nothing of it is left here."""
        if sum(len(piece[IS_FIRST]) for piece in self.pieces) >= LEAST_STEPS:
            fields = {
                name: np.concatenate([piece[name] for piece in self.pieces])
                for name in self.pieces[0]
            }
            yield Episode(slot=self.slot, copy=self.copy, fields=fields)
        self.pieces.clear()
