"""A frozen log of two slots, and whole learners that read it."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.config import LearnerConfig
from learner.learner import Learner, LearnerSeams, LearnerSetup
from system.channel.memory import MemoryChannel
from system.clock import ManualClock
from system.codec import encode_chunk
from system.config import ModelConfig, ReplayConfig
from system.control.memory import MemoryControl
from system.log.memory import MemoryLog
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.tick import Wait
from system.types import EntryId
from tests.learner.fleets_for_tests import MODEL, SPEC, chunk_of

CONFIG = LearnerConfig(
    batch_size=4, batch_length=8, horizon=3, learning_rate=1e-3, warmup_updates=2, device="cpu"
)
CHUNKS = 100
REPLAY = ReplayConfig(
    ratio=8, chunk_length=4, min_steps=64, capacity_bytes=10_000, segment_bytes=4096
)


class Bench:
    """A frozen log of two slots, and learners that read it."""

    def __init__(self, folder: Path, clock: ManualClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or ManualClock()
        self.store = MemoryLog()
        self.channel = MemoryChannel()
        self.control = MemoryControl(self.clock)
        claim = encode_claim(Claim(who="x", spec_digest=SPEC.digest, num_copies=1))
        for slot in range(2):
            log = self.store.slot_log(slot)
            log.append(EntryId(1, 0), claim, create=True)
            for sequence in range(1, CHUNKS + 1):
                chunk = chunk_of(
                    slot=slot, incarnation=1, sequence=sequence, first_step=4 * (sequence - 1)
                )
                log.append(EntryId(1, sequence), encode_chunk(chunk), create=True)

    def learner(
        self, *, model: ModelConfig = MODEL, frames: int = 0, config: LearnerConfig | None = None
    ) -> Learner:
        setup = LearnerSetup(
            config=config or CONFIG, replay=REPLAY, model=model, folder=self.folder,
            frames=frames, seed=3, who="learner:1",
        )  # fmt: skip
        seams = LearnerSeams(
            reader=self.store.reader(), channel=self.channel, control=self.control,
            clock=self.clock,
        )  # fmt: skip
        return Learner(setup, seams, SPEC)

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.control.events() if event.kind == kind]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def run(learner: Learner, updates: int) -> None:
    while learner.updates < updates:
        assert not isinstance(learner.tick(), Wait)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    found = {k: v.clone() for k, v in learner.learning.state_dict().items()}
    return found | {k: v.clone() for k, v in learner.learning.optimizer.tensors().items()}
