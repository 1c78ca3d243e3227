"""The arena: the learner's own copy of the replay, from which every Batch is gathered.

Which Steps are here and what follows them is known on the host; what they hold lies in a `Storage`,
perhaps on the learner's device.

A ring of rows. Each inserted Step gets the next *ordinal*, and lives in row ``ordinal % capacity``
until the ring comes round; ``ordinal >= oldest`` says whether it is still there. Chunks of many
tracks interleave in insertion order, so `successor` links each Step to the next one of its Track::

    ordinal     0 1 2 3 | 4 5 6 7 | 8 9 10 11 | ...
    track       A A A A | B B B B | A A A  A  | ...
    successor   1 2 3 8 | 5 6 7 - | 9 10 11 - | ...

A Sequence is a *context* Step, whose stored posterior seeds the world model, and the T Steps after
it. A Step can be a context when T successors exist and its posterior is known: from the actor (row
0 of a Chunk) or written back by the update that trained on it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.batch import Batch
from learner.storage import Allocate, ColumnSpec, Storage, in_memory
from system.chunk_check import expected_columns
from system.config import ModelConfig
from system.errors import ConfigError, RejectedChunk
from system.models.dynamics import Latent
from system.specs import EnvSpec
from system.types import (
    ACTION,
    IS_FIRST,
    IS_LAST,
    IS_TERMINAL,
    OBSERVATION_PREFIX,
    REWARD,
    Chunk,
)

DETER, STOCH = "latent/deter", "latent/stoch"
"""Columns of the posterior: float16 [D] and uint8 [S], class indices."""
NONE = -1
"""No successor yet."""
Ordinals = NDArray[np.int64]
TrackKey = tuple[int, int]
"""(slot, copy)."""


@dataclass(slots=True)
class Track:
    """The growing end of one Track."""

    incarnation: int
    next_step: int
    """Ordinal within the Track of the Step expected next; anything else is a gap."""
    open: Ordinals
    """Its last Steps, at most T: those that do not have T successors yet."""
    fresh: int
    """Context of the next fresh Sequence (each Step is trained once as soon as it can be)."""
    began: int
    """Ordinal of its first Step here."""


@dataclass(slots=True)
class Columns:
    """What is known of all rows on the host."""

    known: NDArray[np.bool_]
    """Whether the posterior is known."""
    followed: NDArray[np.bool_]
    """Whether T successors exist."""
    successor: Ordinals


@dataclass(slots=True)
class Arena:
    """Insert, sample, write back.

    The loop that uses it::

    arena.insert(chunk)
    batch = arena.sample(sampler.draw(arena, B))
    arena.write_back(batch, latents)
    """

    spec: EnvSpec
    model: ModelConfig
    batch_length: int
    """T."""
    capacity_bytes: int
    device: torch.device
    allocate: Allocate = in_memory
    """Where the rows lie."""
    oldest: int = 0
    """Ordinal of the oldest Step still here."""
    end: int = 0
    """Ordinal the next inserted Step will get."""
    tracks: dict[TrackKey, Track] = field(default_factory=dict)
    capacity: int = field(init=False)
    """Rows."""
    columns: Columns = field(init=False)
    storage: Storage = field(init=False)
    """Fields of a Chunk, DETER and STOCH."""
    _pieces: deque[int] = field(init=False, default_factory=deque)
    """Lengths of the Chunks in the ring, oldest first: the unit of eviction."""

    def __post_init__(self) -> None:
        self.capacity = self.capacity_bytes // row_bytes(self.spec, self.model)
        if self.capacity < 4 * self.batch_length:
            raise ConfigError(
                f"replay.capacity_bytes={self.capacity_bytes} holds {self.capacity} Steps; "
                f"at least {4 * self.batch_length} (4 * learner.batch_length) are needed"
            )
        rows = self.capacity
        self.storage = self.allocate(row_columns(self.spec, self.model), rows, self.device)
        self.columns = Columns(
            known=np.zeros(rows, np.bool_),
            followed=np.zeros(rows, np.bool_),
            successor=np.full(rows, NONE, np.int64),
        )

    def __len__(self) -> int:
        return self.end - self.oldest

    def insert(self, chunk: Chunk) -> None:
        """Appends a Chunk to its Track, evicting the oldest Chunks when the ring is full."""
        length = chunk.num_steps
        if length > self.capacity:
            raise ConfigError(
                f"a chunk of {length} Steps does not fit an arena of {self.capacity}: raise "
                "replay.capacity_bytes or lower replay.chunk_length"
            )
        self._make_room(length)
        ordinals = np.arange(self.end, self.end + length)
        rows = ordinals % self.capacity
        columns = self.columns
        self.storage.write(rows, chunk.fields)
        columns.known[rows] = False
        columns.followed[rows] = False
        columns.successor[rows] = np.append(ordinals[1:], NONE)
        if chunk.latent:
            first = {DETER: chunk.latent["deter"][None], STOCH: chunk.latent["stoch"][None]}
            self.storage.write(rows[:1], first)
            columns.known[rows[0]] = True
        self._pieces.append(length)
        self.end += length
        self._extend_track(chunk, ordinals)

    def skip_to(self, ordinal: int) -> None:
        """Leaves out Steps that are lost, so that the next one gets this ordinal."""
        missing = ordinal - self.end
        if not len(self) or missing >= self.capacity:
            self._pieces.clear()
            self.oldest = self.end = ordinal
        elif missing:
            self._make_room(missing)
            rows = np.arange(self.end, ordinal) % self.capacity
            self.columns.known[rows] = False
            self.columns.followed[rows] = False
            self._pieces.append(missing)
            self.end = ordinal

    def check_latent(self, chunk: Chunk) -> None:
        """Raises RejectedChunk unless the Chunk's posterior, if any, fits this model."""
        if not chunk.latent:
            return
        model, latent = self.model, chunk.latent
        shapes = {name: array.shape for name, array in latent.items()}
        if shapes != {"deter": (model.deter,), "stoch": (model.stoch,)}:
            raise RejectedChunk("latent", f"shapes {shapes} are not those of size {model.size}")
        dtypes = {name: array.dtype.name for name, array in latent.items()}
        if dtypes != {"deter": "float16", "stoch": "uint8"}:
            raise RejectedChunk("dtype", f"latent {dtypes}, expected deter float16, stoch uint8")
        if latent["stoch"].max() >= model.classes:
            raise RejectedChunk("latent", f"a class beyond {model.classes - 1}")

    def _make_room(self, length: int) -> None:
        """Evicts the oldest Chunks until so many Steps fit."""
        while len(self) + length > self.capacity:
            self.oldest += self._pieces.popleft()

    def _extend_track(self, chunk: Chunk, ordinals: Ordinals) -> None:
        key = (chunk.slot, chunk.copy)
        track = self.tracks.get(key)
        broken = (
            track is None
            or track.incarnation != chunk.incarnation
            or track.next_step != chunk.first_step
            or (len(track.open) > 0 and track.open[-1] < self.oldest)
        )
        if track is None or broken:
            first = int(ordinals[0])
            track = Track(chunk.incarnation, chunk.first_step, ordinals[:0], first, first)
            self.tracks[key] = track
        elif len(track.open):
            self.columns.successor[track.open[-1] % self.capacity] = ordinals[0]
        if track.fresh < self.oldest:
            track.fresh = int(ordinals[0])
        waiting = np.concatenate([track.open, ordinals])
        ready = waiting[: max(0, len(waiting) - self.batch_length)]
        self.columns.followed[ready[ready >= self.oldest] % self.capacity] = True
        track.open = waiting[len(ready) :]
        track.next_step = chunk.first_step + chunk.num_steps

    def can_be_context(self, ordinals: Ordinals) -> NDArray[np.bool_]:
        """Which of these Steps may start a Sequence, bool like `ordinals`."""
        rows = ordinals % self.capacity
        here = (ordinals >= self.oldest) & (ordinals < self.end)
        return here & self.columns.followed[rows] & self.columns.known[rows]

    def sample(self, contexts: Ordinals, length: int | None = None) -> Batch:
        """Gathers the Sequences after the given context Steps, int64 [B] -> Batch [B, T].

        Another `length` than T needs so many successors.
        """
        steps = np.empty((len(contexts), length or self.batch_length), np.int64)
        current = contexts
        for t in range(steps.shape[1]):
            current = self.columns.successor[current % self.capacity]
            steps[:, t] = current
        before = contexts % self.capacity
        found = self.storage.gather(steps % self.capacity, list(expected_columns(self.spec)))
        context = self.storage.gather(before, [ACTION, DETER, STOCH])
        is_first, is_last, action = found[IS_FIRST], found[IS_LAST], found[ACTION]
        # An episode may have been cut after its last Step was sealed: the next one tells.
        is_last[:, :-1] |= is_first[:, 1:]
        return Batch(
            observation={
                name.removeprefix(OBSERVATION_PREFIX): column
                for name, column in found.items()
                if name.startswith(OBSERVATION_PREFIX)
            },
            action=action,
            previous_action=torch.cat([context[ACTION].unsqueeze(1), action[:, :-1]], 1),
            reward=found[REWARD],
            is_first=is_first,
            is_last=is_last,
            is_terminal=found[IS_TERMINAL],
            context=self._latent(context[DETER], context[STOCH]),
            ordinals=steps,
        )

    def write_back(self, batch: Batch, latents: Latent) -> None:
        """Stores the fresh posteriors [B, T, ...] of a Batch, where its Steps are still here."""
        ordinals = batch.ordinals.reshape(-1)
        deter, stoch = latents.deter.flatten(0, 1), latents.stoch.flatten(0, 1).argmax(-1)
        here = ordinals >= self.oldest
        rows = ordinals[here] % self.capacity
        if not here.all():
            kept = torch.from_numpy(np.flatnonzero(here)).to(deter.device)
            deter, stoch = deter[kept], stoch[kept]
        self.storage.put(rows, {DETER: deter, STOCH: stoch})
        self.columns.known[rows] = True

    def _latent(self, deter: Tensor, stoch: Tensor) -> Latent:
        # `one_hot` would look at the values first, and wait for them.
        classes = torch.arange(self.model.classes, device=stoch.device)
        return Latent(deter.float(), (stoch.unsqueeze(-1) == classes).float())


def row_columns(spec: EnvSpec, model: ModelConfig) -> dict[str, ColumnSpec]:
    """What a row holds, by name."""
    columns = {name: ColumnSpec(*column) for name, column in expected_columns(spec).items()}
    columns[DETER] = ColumnSpec("float16", (model.deter,))
    columns[STOCH] = ColumnSpec("uint8", (model.stoch,))
    return columns


def row_bytes(spec: EnvSpec, model: ModelConfig) -> int:
    """Bytes one Step takes in the arena, posterior and links included."""
    held = sum(
        math.prod(column.shape) * np.dtype(column.dtype).itemsize
        for column in row_columns(spec, model).values()
    )
    return held + 2 + 8
