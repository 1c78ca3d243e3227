"""Puts one learner together: restore, loop, broadcast, save, report.

The same object runs in one process with an actor (`deploy/local.py`) and as a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from learner.acted import EpisodeLog
from learner.arena import Arena
from learner.checkpoint import load_newest, save
from learner.copies import copies_of, finite
from learner.device import prepared_device
from learner.dream_files import DreamFiles
from learner.dreaming import Dreamer
from learner.epochs import Epochs
from learner.figures import Figures
from learner.graphed import graphed
from learner.ingest import Ingest
from learner.loop import LearnerLoop
from learner.open_loop import Models
from learner.placement import placement
from learner.publisher import Publisher, Standing, require_finite
from learner.report import LearnerReporter
from learner.samplers import FreshThenUniform
from learner.savable import Savable
from learner.segments import SegmentStore
from learner.setup import LearnerSeams, LearnerSetup
from learner.update import Learning
from system.activity import Activity
from system.clock import Every
from system.errors import CheckpointError, DiskFull
from system.limiter import ReplayLimiter
from system.models.agent import model_digest
from system.progress import progress_text
from system.specs import EnvSpec
from system.tick import Progress, Wait

__all__ = ["Learner", "LearnerSeams", "LearnerSetup"]

ResultT = TypeVar("ResultT")
REPEAT_NOTICE_S = 1.0
DISK_RETRY_S = 1.0


class Learner:
    """A learning process without its process.

    The loop that uses it::

        learner = Learner(setup, seams, spec)         # restores what the folder holds
        while not (learner.finished or stopping):
            turn = learner.tick()
            if isinstance(turn, Wait):
                clock.sleep(turn.seconds)
        learner.close()

    Raises:
      CheckpointError: no checkpoint of the folder can be read, or they are of another model.
      Fenced: a newer learner has taken over; nothing more was written.
      DiskFull: (close) the last checkpoint found no room.
    """

    def __init__(self, setup: LearnerSetup, seams: LearnerSeams, spec: EnvSpec) -> None:
        config, replay, clock = setup.config, setup.replay, seams.clock
        self._setup, self._seams, self._spec = setup, seams, spec
        device = prepared_device(config)
        torch.manual_seed(setup.seed)
        self._digest = model_digest(setup.model, spec)
        self._epochs = Epochs(setup.folder)
        self._report = LearnerReporter(
            seams.control, clock, folder=setup.folder, who=setup.who, metrics_s=config.metrics_s,
            check=self._epochs.check,
        )  # fmt: skip
        self._activity = Activity(clock, "learner")
        self.learning = Learning(config, setup.model, spec, device, self._activity)
        self.arena = Arena(
            spec=spec, model=setup.model, batch_length=config.batch_length,
            capacity_bytes=replay.capacity_bytes, device=device,
            allocate=placement(setup, spec, device),
        )  # fmt: skip
        self._sampler = FreshThenUniform(setup.seed)
        self._limiter = ReplayLimiter(
            ratio=replay.ratio, update_steps=config.replayed_steps, min_steps=replay.min_steps
        )
        self._savable = Savable(
            learning=self.learning, arena=self.arena, sampler=self._sampler, limiter=self._limiter
        )
        self._segments = SegmentStore(
            setup.folder / "replay", segment_bytes=replay.segment_bytes, check=self._epochs.check
        )
        self._ingest = Ingest(
            seams.reader, self._segments, self.arena, replay, clock, self._report.event
        )
        self._publisher = Publisher(
            seams.channel, copies_of(self.learning, device), clock, model_digest=self._digest,
            publish_s=config.publish_s, on_event=self._report.event,
        )  # fmt: skip
        models = Models(
            world_model=self.learning.world_model, decoder=self.learning.decoder,
            policy=self.learning.behavior.policy,
        )  # fmt: skip
        self._dreamer = Dreamer(
            models, self.arena, seams, DreamFiles(setup.folder, self._epochs.check), config,
            self._report.event,
        )  # fmt: skip
        repeat, commit_due = spec.action_repeat, Every(config.commit_s)
        self._loop = LearnerLoop(
            ingest=self._ingest, arena=self.arena, sampler=self._sampler, limiter=self._limiter,
            learning=graphed(self.learning, config, device, self._report.event),
            batch_size=config.batch_size,
            max_steps=-(-setup.frames // repeat) if setup.frames else None,
            after_update=self._after_update, commit_due=lambda: commit_due(clock.now()),
        )  # fmt: skip
        self._figures = Figures(
            config=config, arena=self.arena, ingest=self._ingest, limiter=self._limiter,
            publisher=self._publisher, activity=self._activity,
        )  # fmt: skip
        self._episodes = EpisodeLog(setup.folder, action_repeat=repeat, check=self._epochs.check)
        self._elapsed_before_s, self._started_s = 0.0, clock.now()
        self._checkpoint_due = Every(config.checkpoint_s)
        self._unsaved = False
        self._repeat_notice = Every(REPEAT_NOTICE_S)
        self._begin()

    @property
    def finished(self) -> bool:
        """Whether the wanted frames are inserted and trained on."""
        return self._loop.finished

    @property
    def updates(self) -> int:
        """Updates so far, those before a restart included."""
        return self._loop.updates

    @property
    def agent_steps(self) -> int:
        """Steps inserted so far."""
        return self.arena.end

    @property
    def frames(self) -> int:
        """Simulator steps behind them: agent steps x action repeat."""
        return self.arena.end * self._spec.action_repeat

    @property
    def policy_version(self) -> int:
        """Number of broadcasts so far."""
        return self._publisher.version

    def tick(self) -> Progress | Wait:
        """See `LearnerLoop.tick`; reports at the side."""
        if self._repeat_notice(self._seams.clock.now()):
            # A wiped store has forgotten our successor; the folder has not.
            self._epochs.check()
            self._ingest.repeat_notice()
            self._publisher.repeat(self.standing())
        began_s = self._seams.clock.now()
        self._activity.switch("insert")
        turn = self._loop.tick()
        if turn == Progress("updated"):
            self._figures.update_seconds.observe(self._seams.clock.now() - began_s)
        self._tell_episodes()
        self._activity.switch("wait" if isinstance(turn, Wait) else "other")
        self._tell(f"waiting for {turn.reason}" if isinstance(turn, Wait) else turn.what)
        return turn

    def close(self) -> None:
        """Syncs the segments, broadcasts and saves for the last time."""
        self._epochs.check()
        self._ingest.commit()
        self._publisher.publish(self.standing(), now=True)
        self.save()
        self._tell("closing", now=True)
        self._tell_episodes()
        self._segments.seal()
        self._report.release()

    def standing(self) -> Standing:
        """Where the run stands now."""
        return Standing(
            epoch=self._segments.epoch,
            update=self._loop.updates,
            agent_steps=self.arena.end,
            elapsed_s=self._elapsed_before_s + self._seams.clock.now() - self._started_s,
        )

    def save(self) -> Path:
        """Writes a checkpoint; returns its folder. Raises Fenced, NotFinite or DiskFull."""
        require_finite(bool(finite(self.learning)), self.updates, self._report.event)
        # What the weights were trained on must be on the disk before they are.
        self._segments.commit()
        folder, keep = self._setup.folder / "checkpoints", self._setup.config.keep_checkpoints
        checkpoint = self._savable.checkpoint(
            self.standing(), version=self._publisher.version, resets=self._ingest.resets,
            time_s=self._seams.clock.wall(), model_digest=self._digest,
        )  # fmt: skip
        return save(folder, checkpoint, self._epochs, keep=keep)

    def _tell_episodes(self) -> None:
        if ended := self._ingest.acted.pop():
            self._episodes.write(ended, elapsed_s=self.standing().elapsed_s)

    def _after_update(self) -> None:
        self._epochs.check()
        with self._activity.during("publish"):
            self._publisher.publish(self.standing())
        with self._activity.during("report"):
            self._dreamer.tick(self.standing())
        if self._checkpoint_due(self._seams.clock.now()):
            with self._activity.during("checkpoint"):
                self._save_if_there_is_room()

    def _save_if_there_is_room(self) -> None:
        """Training goes on without; the next checkpoint is tried when it is due."""
        try:
            self.save()
        except DiskFull as error:
            if not (self._unsaved or self._ingest.disk_is_full):  # it was said
                self._report.event("disk_full", f"update {self.updates} is not saved: {error}")
            self._unsaved = True
        else:
            self._unsaved = False

    def _begin(self) -> None:
        """Takes the epoch, restores what older ones left, and speaks for the first time.

        What an older one called durable is on disk by now; what it writes later does not count.
        """
        epochs, event = self._epochs, self._report.event
        epoch = self._seams.reader.claim_epoch(after=epochs.greatest())
        self._segments.epoch = epoch
        before = self._when_there_is_room(lambda: epochs.take(epoch, self._setup.who, event))
        checkpoint = load_newest(self._setup.folder / "checkpoints", before, event)
        if checkpoint is not None and checkpoint.model_digest != self._digest:
            raise CheckpointError(
                f"the checkpoint in {self._setup.folder} is for model {checkpoint.model_digest}, "
                f"this configuration is {self._digest}: size, spec or action differ"
            )
        clock, began_s = self._seams.clock, self._seams.clock.now()
        self._ingest.restore(
            before, checkpoint.bookmark if checkpoint else None,
            lambda share: self._report.beat(
                progress_text("restoring", share, clock.now() - began_s), epoch
            ),
        )  # fmt: skip
        known_steps = self.arena.end
        if checkpoint is not None:
            if checkpoint.bookmark.epoch < before.judged:
                known_steps = min(known_steps, before.known_steps)
            self._savable.restore(checkpoint, known_steps=known_steps)
            self._loop.updates = checkpoint.bookmark.update
            self._elapsed_before_s = checkpoint.bookmark.elapsed_s
        self._limiter.inserted = self.arena.end
        name, lengths = checkpoint.name if checkpoint else "", self._segments.read_bytes
        self._when_there_is_room(
            lambda: epochs.found(checkpoint=name, known_steps=known_steps, segments=lengths)
        )
        self._segments.drop_foreign()
        self._publisher.resume(checkpoint.bookmark.version if checkpoint else 0)
        self._ingest.repeat_notice()
        self._ingest.commit()
        self._publisher.publish(self.standing(), now=True)

    def _when_there_is_room(self, write: Callable[[], ResultT]) -> ResultT:
        """Before the first tick there is nothing else to do than to wait."""
        while True:
            try:
                return write()
            except DiskFull as error:
                if not self._unsaved:
                    self._report.event("disk_full", str(error))
                self._unsaved = True
                self._tell("waiting for disk")
                self._seams.clock.sleep(DISK_RETRY_S)

    def _tell(self, doing: str, *, now: bool = False) -> None:
        with self._activity.during("report"):
            self._report.tick(
                self.standing(), frames=self.frames, doing=doing,
                numbers=lambda: self._figures(updates=self.updates) | self._dreamer.numbers,
                losses=self._loop.metrics, now=now,
            )  # fmt: skip
