"""Where a run stood when it was saved: the plain numbers of a checkpoint."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, fields
from typing import Any

_LIMIT = 1 << 62
"""Counts beyond this are absurd."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshCursor:
    """Where the fresh Sequences of one Track go on."""

    slot: int
    copy: int
    ordinal: int
    """Context of the next one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bookmark:
    """`progress.json`."""

    epoch: int
    update: int
    version: int
    """Broadcasts so far."""
    agent_steps: int
    elapsed_s: float
    """Training time, earlier sessions included [s]."""
    time_s: float
    """Wall-clock time of the checkpoint [s]."""
    replayed: int
    """Steps replayed so far [agent steps]."""
    resets: int
    """Episodes that began among the inserted Steps."""
    optimizer_steps: int
    torch_generator: bytes
    sampler_generator: dict[str, Any]
    """As numpy describes it."""
    fresh: list[FreshCursor]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **asdict(self),
            "torch_generator": base64.b64encode(self.torch_generator).decode(),
            "fresh": [[cursor.slot, cursor.copy, cursor.ordinal] for cursor in self.fresh],
        }

    @classmethod
    def from_json(cls, data: object) -> Bookmark:
        """Inverse of `to_json`. Raises ValueError naming the field that cannot be."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or data.keys() != names:
            raise ValueError(f"it needs exactly the fields {', '.join(sorted(names))}")
        kinds = {field.name: str(field.type) for field in fields(cls)}
        numbers = {
            name: _number(name, kind, data[name])
            for name, kind in kinds.items()
            if kind in ("int", "float")
        }
        if not isinstance(data["torch_generator"], str):
            raise ValueError("torch_generator is not text")  # noqa: TRY004
        if not isinstance(data["sampler_generator"], dict):
            raise ValueError("sampler_generator is not an object")  # noqa: TRY004
        return cls(
            **numbers,
            torch_generator=base64.b64decode(data["torch_generator"], validate=True),
            sampler_generator=data["sampler_generator"],
            fresh=_fresh(data["fresh"]),
        )


def _number(name: str, kind: str, value: object) -> Any:  # noqa: ANN401
    if type(value).__name__ not in ("int", kind):
        raise ValueError(f"{name} is not a number of type {kind}")
    assert isinstance(value, int | float)
    if not 0 <= value < _LIMIT:  # nor NaN
        raise ValueError(f"{name}={value!r} cannot be")
    return value


def _fresh(rows: object) -> list[FreshCursor]:
    if not isinstance(rows, list):
        raise ValueError("fresh is not a list")  # noqa: TRY004
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise ValueError(f"fresh holds {row!r}, not [slot, copy, ordinal]")
        for number in row:
            _number("fresh", "int", number)
    return [FreshCursor(slot=slot, copy=copy, ordinal=ordinal) for slot, copy, ordinal in rows]
