"""A small learner's front half over a MemoryLog, and chunks to feed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from learner.arena import Arena
from learner.epochs import Epochs
from learner.ingest import Ingest
from learner.segments import SegmentStore
from system.clock import Clock
from system.config import ModelConfig, ReplayConfig
from system.log.protocol import LogReader
from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Chunk

SPEC = EnvSpec(
    name="toy",
    observation={"position": ArraySpec(shape=(2,))},
    action=ActionSpec(kind="continuous", size=1),
)
MODEL = ModelConfig(size="tiny", deter=16, hidden=8, classes=4, units=8, stoch=4, blocks=4, bins=15)
REPLAY = ReplayConfig(
    ratio=2, chunk_length=4, min_steps=32, capacity_bytes=1 << 20, segment_bytes=4096
)


def chunk_of(
    *, slot: int, incarnation: int, sequence: int, copy: int = 0, first_step: int, length: int = 4
) -> Chunk:
    """Steps whose position names slot, copy and ordinal in the Track."""
    steps = first_step + np.arange(length)
    position = np.stack([np.full(length, 100 * slot + copy), steps], 1).astype(np.float32)
    return Chunk(
        spec_digest=SPEC.digest,
        env=SPEC.name,
        slot=slot,
        incarnation=incarnation,
        sequence=sequence,
        copy=copy,
        first_step=first_step,
        policy_version_min=1,
        policy_version_max=1,
        fields={
            "observation/position": position,
            "action": np.zeros((length, 1), np.float32),
            "reward": steps.astype(np.float32),
            "is_first": steps == 0,
            "is_last": np.zeros(length, bool),
            "is_terminal": np.zeros(length, bool),
        },
        latent={
            "deter": np.zeros(MODEL.deter, np.float16),
            "stoch": np.zeros(MODEL.stoch, np.uint8),
        },
    )


class FrontHalf:
    """Segments, arena and ingest of one learner life."""

    def __init__(
        self, reader: LogReader, folder: Path, clock: Clock, replay: ReplayConfig = REPLAY
    ) -> None:
        self.clock = clock
        self.events: list[tuple[str, str]] = []
        self.epochs = Epochs(folder)
        epoch = reader.claim_epoch(after=self.epochs.greatest())
        before = self.epochs.take(epoch, "learner", lambda *e: self.events.append(e))
        self.segments = SegmentStore(
            folder / "replay", segment_bytes=replay.segment_bytes, check=self.epochs.check
        )
        self.segments.epoch = epoch
        self.arena = Arena(
            spec=SPEC, model=MODEL, batch_length=8, capacity_bytes=replay.capacity_bytes,
            device=torch.device("cpu"),
        )  # fmt: skip
        self.ingest = Ingest(
            reader, self.segments, self.arena, replay, clock, lambda *e: self.events.append(e)
        )
        self.ingest.restore(before)
        self.epochs.found(checkpoint="", known_steps=0, segments=self.segments.read_bytes)
        self.segments.drop_foreign()
        self.ingest.repeat_notice()
        self.ingest.commit()
