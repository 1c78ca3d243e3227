"""Everything that can go wrong, as one tree.

::

    DreamfleetError
    |-- UserError                 a mistake of the caller: message names field, value and fix
    |   |-- ConfigError
    |   |-- RunError              a run folder that exists, does not exist, or is in use
    |   `-- CheckpointError       corrupt or mismatching, names the component
    |-- RejectedChunk             bytes from the network that are not a valid Chunk; has `.reason`
    |-- Unavailable               Redis cannot be reached just now; retry later
    |-- DiskFull                  no room for a file of the run; goes on when there is
    |-- NotFinite                 training diverged; the last good checkpoint stays
    |-- Fenced                    a newer incarnation or epoch took our place; stop writing
    `-- EnvironmentFault          an environment raised, hung, or left its space
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DreamfleetError(Exception):
    """Root of all errors raised on purpose."""


class UserError(DreamfleetError):
    """A mistake of the caller; the command line prints the message without a traceback."""


class ConfigError(UserError):
    """A configuration value that cannot be used."""


class RunError(UserError):
    """A run folder that exists, does not exist, or is in use."""


class CheckpointError(UserError):
    """A checkpoint that is corrupt or belongs to something else."""


class RejectedChunk(DreamfleetError):
    """Bytes that are not a valid Chunk. `reason` is a short word to count by."""

    def __init__(self, reason: str, detail: str) -> None:
        # Bounded: it may quote the bytes, and it becomes an event.
        super().__init__(f"{reason}: {detail:.300}")
        self.reason = reason


class Unavailable(DreamfleetError):
    """The store cannot be reached just now; nothing is known about the last command."""


class DiskFull(DreamfleetError):
    """No room to write a file of the run; what was to be written is kept and tried again."""


class NotFinite(DreamfleetError):
    """A weight is NaN or infinite: nothing is broadcast or saved any more."""


class Fenced(DreamfleetError):
    """A newer incarnation (or learner epoch) holds our place; every further write is refused."""


class EnvironmentFault(DreamfleetError):
    """An environment copy raised, hung, or produced an observation outside its space."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


MOST_KNOWN = 30


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence naming the closest known word, for error messages."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    listing = ", ".join(options[:MOST_KNOWN]) + (", ..." if len(options) > MOST_KNOWN else "")
    return f"known: {listing}"
