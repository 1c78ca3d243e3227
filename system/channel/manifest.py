"""The manifest of a broadcast: everything about a Snapshot but its id and its weights.

It is small and arrives whole; the weights it names are fetched only after it was understood.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields

from system.codec import is_count, pack, unpack
from system.errors import RejectedChunk
from system.types import Snapshot

MAX_MANIFEST_BYTES = 4096
MAX_PIECES = 1 << 16
"""Every piece is a key that is spelled out before the first one is fetched."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FACTS = {
    field.name: str(field.type)
    for field in fields(Snapshot)
    if field.name not in ("epoch", "version", "weights")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Which weights, and the facts that travel with them."""

    num_pieces: int
    num_bytes: int
    sha256: str
    """Of the weights, 64 hex digits; names them in a node's cache."""
    facts: dict[str, object]
    """Every field of the Snapshot but its id and its weights."""


def encode_manifest(snapshot: Snapshot, *, num_pieces: int) -> bytes:
    """Packs what is said about a snapshot's weights."""
    facts = {
        name: float(value) if kind == "float" else value
        for name, kind in _FACTS.items()
        for value in (getattr(snapshot, name),)
    }
    return pack(
        {
            "num_pieces": num_pieces,
            "num_bytes": len(snapshot.weights),
            "sha256": hashlib.sha256(snapshot.weights).hexdigest(),
            "facts": facts,
        }
    )


def decode_manifest(data: bytes) -> Manifest:
    """Reads what `encode_manifest` made.

    Raises:
      RejectedChunk: reason oversize, truncated, version or header, whatever the bytes.
    """
    message = unpack(data, max_bytes=MAX_MANIFEST_BYTES)
    kinds = {"num_pieces": int, "num_bytes": int, "sha256": str, "facts": dict}
    if {key: type(value) for key, value in message.items()} != kinds:
        raise RejectedChunk("header", "not a manifest of a policy")
    manifest = Manifest(**message)  # type: ignore[arg-type]
    if {key: type(value).__name__ for key, value in manifest.facts.items()} != _FACTS:
        raise RejectedChunk("header", "a manifest with other facts than a Snapshot has")
    if not all(map(_is_proper, manifest.facts.values())):
        raise RejectedChunk("header", "a manifest with a fact that cannot be")
    if not 0 <= manifest.num_pieces <= min(manifest.num_bytes, MAX_PIECES) or not is_count(
        manifest.num_bytes
    ):
        raise RejectedChunk("header", "a manifest with impossible sizes")
    if not _SHA256.fullmatch(manifest.sha256):
        raise RejectedChunk("header", "a manifest whose sha256 is none")
    return manifest


def _is_proper(fact: object) -> bool:
    if isinstance(fact, float):
        return math.isfinite(fact)
    return is_count(fact) if isinstance(fact, int) else True
