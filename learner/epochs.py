"""Who may write the run folder: the learner with the highest epoch, and what it found.

::

    epochs/00006.json     made with `link`, so each number is taken once; only the highest counts

A learner that was stopped, or cut off from Redis, does not know that a successor has begun. So it
looks here before it writes. Between its look and its write it may be stopped again; what it writes
then lies beyond what the successor found, and nobody ever reads it:

    segments       of earlier epochs are read up to the length found here
    checkpoints    of earlier epochs count up to the one named here

No lock: a stopped process would hold it for ever.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from learner.disk import full_disk_is_named
from learner.sealed import from_sealed, to_sealed
from system.errors import Fenced
from system.files import sync_folder, write_synced

FOLDER = "epochs"
_NUMBER = re.compile(r"(\d{5,})[-.]")
"""An epoch at the start of a name: `00006.json`, `00006-00001.segment`, `00006-000001200`."""


def epoch_of(name: str) -> int:
    """The epoch a file or folder of the run names; 0 if it names none."""
    found = _NUMBER.match(name)
    return int(found[1]) if found else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Takeover:
    """What the learner of one epoch found when it began; the default limits nothing."""

    epoch: int = 0
    who: str = ""
    """Process, for people: `host:pid`."""
    judged: int = 0
    """Of the epochs below this one only what the other fields name counts."""
    checkpoint: str = ""
    """Their newest checkpoint that counts."""
    known_steps: int = 0
    """In it, only ordinals below this one name what they name in the segments."""
    segments: dict[str, int] = field(default_factory=dict)
    """How much of each of their files counts [bytes]."""

    def counts(self, checkpoint: str) -> bool:
        """Whether a checkpoint of this name counts."""
        return epoch_of(checkpoint) >= self.judged or checkpoint <= self.checkpoint

    def length(self, segment: str) -> int | None:
        """How much of a segment file counts [bytes]; None if all of it."""
        return None if epoch_of(segment) >= self.judged else self.segments.get(segment, 0)

    @classmethod
    def read(cls, raw: bytes) -> Takeover:
        """Raises ValueError unless these are the bytes of a Takeover."""
        data = from_sealed(raw)
        kinds = {name: type(value) for name, value in asdict(cls()).items()}
        if {name: type(value) for name, value in data.items()} != kinds:
            raise ValueError("its fields are not those of a takeover")
        counts = [data["epoch"], data["judged"], data["known_steps"], *data["segments"].values()]
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in counts):
            raise ValueError("a number in it is not a count")
        return cls(**data)


class Epochs:
    """The epochs of one run folder, and ours.

    The calls that use it::

        epoch = reader.claim_epoch(after=epochs.greatest())    # the store refuses older learners
        before = epochs.take(epoch, who)                       # the folder does too
        ... restore as far as `before` says ...
        epochs.found(checkpoint=..., known_steps=..., segments=...)
        epochs.check()                                         # before each write; raises Fenced
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is the run's; nothing is written yet."""
        self.run = folder
        self.path = folder / FOLDER
        self.epoch = 0
        """Ours; 0 as long as nothing was taken."""
        self._ours = Takeover()

    def greatest(self) -> int:
        """The greatest epoch that anything in the run folder names; 0 if nothing does."""
        folders = (self.path, self.run / "replay", self.run / "checkpoints")
        names = [path.name for folder in folders for path in folder.glob("[0-9]*")]
        return max(map(epoch_of, names), default=0)

    def newest(self, on_event: Callable[[str, str], None]) -> Takeover:
        """The newest takeover; one that says nothing if there is none, or it is damaged."""
        for path in sorted(self.path.glob("[0-9]*.json"), reverse=True)[:1]:
            try:
                return Takeover.read(path.read_bytes())
            except (OSError, ValueError) as error:
                on_event("epoch_damaged", f"{path}: {error}; all that is in the folder counts")
        return Takeover()

    def take(self, epoch: int, who: str, on_event: Callable[[str, str], None]) -> Takeover:
        """Makes `epoch` ours; returns what the one before had found.

        Raises:
          Fenced: somebody else took this number or a greater one.
          DiskFull: nothing was taken.
        """
        before = self.newest(on_event)
        self.epoch = epoch
        # What counted before still does, until `found` says what we made of it.
        self._ours = replace(before, epoch=epoch, who=who)
        with self._written() as draft:
            try:
                self._final.hardlink_to(draft)
            except FileExistsError:
                raise Fenced(f"learner epoch {epoch} is taken: {self._final} exists") from None
        self.check()
        return before

    def found(self, *, checkpoint: str, known_steps: int, segments: dict[str, int]) -> None:
        """Says how far the earlier epochs' words count. Raises Fenced or DiskFull."""
        self.check()
        self._ours = replace(
            self._ours,
            judged=self.epoch,
            checkpoint=checkpoint,
            known_steps=known_steps,
            segments=segments,
        )
        with self._written() as draft:
            draft.replace(self._final)
        for path in self.path.iterdir():
            if epoch_of(path.name.lstrip(".")) < self.epoch:
                path.unlink(missing_ok=True)

    def counts(self, checkpoint: str) -> bool:
        """See `Takeover.counts`."""
        return self._ours.counts(checkpoint)

    def check(self) -> None:
        """Raises Fenced if a newer learner has begun in this folder."""
        newest = max((epoch_of(path.name) for path in self.path.glob("[0-9]*.json")), default=0)
        if newest > self.epoch:
            raise Fenced(f"learner epoch {self.epoch}: epoch {newest} has taken over {self.run}")

    @property
    def _final(self) -> Path:
        return self.path / f"{self.epoch:05d}.json"

    @contextlib.contextmanager
    def _written(self) -> Iterator[Path]:
        """A draft of our file, to be given its name; two with the same number must not share it."""
        name = re.sub(r"[^A-Za-z0-9]", "-", self._ours.who)
        draft = self.path / f".{self.epoch:05d}.{name}.draft"
        with full_disk_is_named(self._final):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                write_synced(draft, to_sealed(asdict(self._ours)))
                yield draft
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(self.path)
