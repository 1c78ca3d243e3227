"""What the registry of a Redis knows of one run, and how it is written: JSON without passwords."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from deploy.config import NAME, RunConfig
from deploy.run_folder import RunFolder, RunRecord
from system.config import from_json
from system.errors import ConfigError
from system.specs import EnvSpec

FORMAT = 1
ENDS = ("", "finished", "stopped", "failed")
RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""No colon, or one run's keys could be read as another's."""
MAX_NUMBER = 2.0**63
MAX_BYTES = 1024**2
"""A longer record is not read [bytes]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEntry:
    """One run, for people who have only the URL."""

    run_id: str
    name: str
    created_s: float
    """Wall-clock time of its creation [s]."""
    host: str
    """Machine of the run's folder."""
    folder: str
    config: dict[str, Any]
    spec: dict[str, Any]
    redis_data: str = ""
    """URL of the data server; empty if it is the registry's own."""
    ended: str = ""
    """`finished`, `stopped` or `failed`; empty while it runs, and if nobody saw its end."""
    text: str = ""
    """Why it ended, in plain words."""
    frames: int = 0
    """At its end [frames]."""
    updates: int = 0
    """At its end."""
    return_mean: float | None = None
    """Of the last evaluation before its end."""

    @classmethod
    def of(cls, folder: RunFolder, *, redis_data: str = "") -> RunEntry:
        """The entry of a run of this machine, to `put` when it starts or is resumed."""
        data = json.loads((folder.path / "config.json").read_text())
        return cls(
            run_id=data["run_id"],
            name=folder.name,
            created_s=datetime.fromisoformat(data["created"]).timestamp(),
            host=socket.gethostname(),
            folder=str(folder.path),
            config=_public(data["config"]),
            spec=data["spec"],
            redis_data=public_url(redis_data),
        )

    @property
    def numbers(self) -> dict[str, float]:
        """Those of its end, named as in `metrics.jsonl`."""
        numbers: dict[str, float] = {"frames": self.frames, "updates": self.updates}
        if self.return_mean is not None:
            numbers["eval/return_mean"] = self.return_mean
        return numbers

    def record(self) -> RunRecord:
        """What builds actors and agents of this run.

        Raises:
          ConfigError: it was written by another version of dreamfleet.
        """
        try:
            return RunRecord(
                config=from_json(RunConfig, self.config),
                spec=EnvSpec.from_json(self.spec),
                run_id=self.run_id,
            )
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"run {self.name!r} ({self.run_id}) was written by another version of dreamfleet: "
                f"{error}; use that version"
            ) from error


def encode(entry: RunEntry) -> bytes:
    """One value of the hash."""
    return json.dumps({"format": FORMAT, **asdict(entry)}).encode()


def decode(run_id: str, data: bytes) -> RunEntry | None:
    """Reads one value of the hash; None if it is not what `encode` makes for this run."""
    if len(data) > MAX_BYTES:
        return None
    try:
        message = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.pop("format", None) != FORMAT:
        return None
    if {key: _kind(value) for key, value in message.items()} not in (_KINDS, _KINDS_MEASURED):
        return None
    entry = RunEntry(**message)
    return entry if entry.run_id == run_id and _is_proper(entry) else None


def _is_proper(entry: RunEntry) -> bool:
    numbers = (entry.created_s, entry.frames, entry.updates, entry.return_mean or 0.0)
    return (
        RUN_ID.fullmatch(entry.run_id) is not None
        and NAME.fullmatch(entry.name) is not None
        and entry.ended in ENDS
        and all(abs(number) < MAX_NUMBER for number in numbers)
    )


def public_url(url: str) -> str:
    """A Redis URL without user and password: it can still be connected to."""
    head, at, tail = url.rpartition("@")
    if at and not url.startswith("unix:///"):
        url = f"{head.partition('://')[0]}://{tail}"
    return re.sub(r"(?<=[?&])(username|password)=[^&]*&?", "", url).rstrip("?&")


def _public(value: Any) -> Any:  # noqa: ANN401
    """Plain data with the passwords in its URLs left out."""
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return public_url(value) if isinstance(value, str) and "://" in value else value


_KINDS = {
    "run_id": "str", "name": "str", "created_s": "float", "host": "str", "folder": "str",
    "config": "dict", "spec": "dict", "redis_data": "str", "ended": "str", "text": "str",
    "frames": "int", "updates": "int", "return_mean": "NoneType",
}  # fmt: skip
_KINDS_MEASURED = {**_KINDS, "return_mean": "float"}


def _kind(value: object) -> str:
    return type(value).__name__


def _refuse(word: str) -> float:
    raise ValueError(word)
