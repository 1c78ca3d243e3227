"""What a learner is told, and where it meets the rest of the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learner.config import LearnerConfig
from system.channel.protocol import PolicyChannel
from system.clock import Clock
from system.config import ModelConfig, ReplayConfig
from system.control.protocol import Control
from system.log.protocol import LogReader


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerSetup:
    """What one learner is told."""

    config: LearnerConfig
    replay: ReplayConfig
    model: ModelConfig
    folder: Path
    """The run's folder: `checkpoints/`, `replay/` and `metrics.jsonl` are written there."""
    frames: int
    """Stop after so many frames (agent steps x action repeat); 0 goes on for ever."""
    seed: int
    who: str
    """Process, for people: `host:pid`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerSeams:
    """Where a learner meets the rest of the fleet: in Redis or in memory, it cannot tell."""

    reader: LogReader
    channel: PolicyChannel
    control: Control
    clock: Clock
