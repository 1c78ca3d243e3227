"""Small JSON files in which any changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_SEAL = "sha256"


def to_sealed(data: dict[str, Any]) -> bytes:
    """Readable JSON with a hash of everything else in it."""
    return _write({**data, _SEAL: hashlib.sha256(_write(data)).hexdigest()})


def from_sealed(raw: bytes) -> dict[str, Any]:
    """Inverse of `to_sealed`.

    Raises:
      ValueError: not what `to_sealed` wrote, byte for byte.
    """
    try:
        return _opened(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _opened(raw: bytes) -> dict[str, Any]:
    data = json.loads(raw)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004
    seal = data.pop(_SEAL, None)
    if seal != hashlib.sha256(_write(data)).hexdigest() or to_sealed(data) != raw:
        raise ValueError("its hash is not that of its content")
    return data


def _write(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=1).encode()
