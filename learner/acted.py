"""Returns of the episodes that are trained on, as their Steps are inserted: the training curve.

::

    Chunk -> ActedEpisodes.take -> episodes that ended -> (durable) -> episodes.jsonl, a line each

They were played with sampled actions, by whatever policy the actors had: what the authors of
DreamerV3 log (docs/protocol.md). Evaluations are told by the evaluator.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from learner.disk import full_disk_is_named
from system.errors import DiskFull
from system.files import append_line
from system.types import IS_FIRST, IS_LAST, IS_TERMINAL, REWARD, Chunk

_TAIL_BYTES = 4096
"""Holds the last line of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActedEpisode:
    """One complete episode."""

    slot: int
    copy: int
    end: int
    """Steps inserted from the whole fleet up to and with its last one [agent steps]."""
    episode_return: float
    """Sum of rewards, undiscounted."""
    length: int
    """Actions taken [agent steps]."""
    policy_version: int
    """The newest that chose any of its last actions."""
    is_terminal: bool
    """Terminated; if not, truncated."""


@dataclass(slots=True)
class _Track:
    incarnation: int
    next_step: int
    running: bool = False
    total: float = 0.0
    num_steps: int = 0


class ActedEpisodes:
    """Follows every Track.

    An episode that a gap or a new incarnation cuts is left out. One that a fault cut counts as
    truncated there, as the replay has it, unless a Chunk ended just before.

    The loop that uses it::

        acted.take(chunk, end=arena.end)
        acted.make_durable()                # when the segments are synced
        log.write(acted.pop(), elapsed_s=standing.elapsed_s)
    """

    def __init__(self) -> None:
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._ended: list[ActedEpisode] = []
        self._durable: list[ActedEpisode] = []

    def take(self, chunk: Chunk, *, end: int) -> None:
        """Takes in a Chunk; `end`: Steps inserted with it [agent steps]."""
        track = self._track(chunk)
        is_first, is_last = chunk.fields[IS_FIRST], chunk.fields[IS_LAST]
        begins, ends = np.flatnonzero(is_first), np.flatnonzero(is_last) + 1
        edges = sorted({0, *begins.tolist(), *ends.tolist(), chunk.num_steps})
        for start, stop in pairwise(edges):
            if is_first[start]:
                track.running, track.total, track.num_steps = True, 0.0, 0
            track.total += float(chunk.fields[REWARD][start:stop].sum(dtype=np.float64))
            track.num_steps += stop - start
            if track.running and is_last[stop - 1]:
                track.running = False
                self._ended.append(
                    ActedEpisode(
                        slot=chunk.slot,
                        copy=chunk.copy,
                        end=end - chunk.num_steps + stop,
                        episode_return=track.total,
                        length=track.num_steps - 1,
                        policy_version=chunk.policy_version_max,
                        is_terminal=bool(chunk.fields[IS_TERMINAL][stop - 1]),
                    )
                )

    def make_durable(self) -> None:
        """What was taken is on the disk."""
        self._durable += self._ended
        self._ended.clear()

    def pop(self) -> list[ActedEpisode]:
        """Episodes that ended and are durable, each once."""
        found, self._durable = self._durable, []
        return found

    def _track(self, chunk: Chunk) -> _Track:
        key = (chunk.slot, chunk.copy)
        track = self._tracks.get(key)
        if track is None or (track.incarnation, track.next_step) != (
            chunk.incarnation, chunk.first_step,
        ):  # fmt: skip
            track = _Track(incarnation=chunk.incarnation, next_step=chunk.first_step)
            self._tracks[key] = track
        track.next_step += chunk.num_steps
        return track


class EpisodeLog:
    """`episodes.jsonl` of a run: every episode once, also over restarts.

    The loop that uses it::

        log.write(ingest.acted.pop(), elapsed_s=standing.elapsed_s)

    A crash between the segments and this file loses nothing: a restart reads the segments again,
    and what ended after the last line is written then.
    """

    def __init__(
        self, folder: Path, *, action_repeat: int, check: Callable[[], None] = lambda: None
    ) -> None:
        """`check` raises Fenced if somebody else writes this folder now."""
        self.path = folder / "episodes.jsonl"
        self._repeat, self._check = action_repeat, check
        self._told = _last_frames(self.path)
        self._end: int | None = None
        """Where a write began that found no room [bytes]."""
        self._waiting: list[ActedEpisode] = []

    def write(self, episodes: Sequence[ActedEpisode], *, elapsed_s: float) -> None:
        """Appends what is new; kept for the next call if the disk is full.

        Args:
          episodes: ended and durable.
          elapsed_s: training time so far [s].

        Raises:
          Fenced: nothing is written.
        """
        self._waiting += [one for one in episodes if one.end * self._repeat > self._told]
        if not self._waiting:
            return
        lines = [json.dumps(self._line(one, elapsed_s), separators=(",", ":"))
                 for one in self._waiting]  # fmt: skip
        self._check()
        with contextlib.suppress(DiskFull), full_disk_is_named(self.path):
            self._rewind()
            append_line(self.path, "\n".join(lines))
            self._end = None
            self._told = max(one.end for one in self._waiting) * self._repeat
            self._waiting.clear()

    def _rewind(self) -> None:
        """Drops what was written of lines that found no room: all of them come again."""
        if self._end is None:
            self._end = self.path.stat().st_size if self.path.exists() else 0
        elif self.path.exists():
            os.truncate(self.path, self._end)

    def _line(self, one: ActedEpisode, elapsed_s: float) -> dict[str, float | bool]:
        return {
            "time_s": round(elapsed_s, 3), "frames": one.end * self._repeat,
            "return": float(f"{one.episode_return:.7g}"), "length": one.length,
            "slot": one.slot, "copy": one.copy, "policy_version": one.policy_version,
            "terminal": one.is_terminal,
        }  # fmt: skip


def _last_frames(path: Path) -> int:
    """`frames` of the last whole line; 0 if there is none."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        for text in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return int(json.loads(text)["frames"])
    return 0
