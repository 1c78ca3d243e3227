"""The small records of the log as bytes: the claim of a slot, the learner's notice."""

from __future__ import annotations

from system.codec import is_count, pack, unpack
from system.errors import RejectedChunk
from system.log.protocol import Claim, Notice, SlotNotice
from system.types import EntryId

MAX_COPIES = 4096
"""Environment copies one slot may claim."""
MAX_SLOT = 2**32 - 1
MAX_WHO_CHARS = 256
MAX_DIGEST_CHARS = 64
_CLAIM_BYTES = 4096
_NOTICE_BYTES = 512 * 1024
"""Some thousand slots [bytes]."""


def encode_claim(claim: Claim) -> bytes:
    """The payload of entry `<incarnation>-0`."""
    return pack(
        {"who": claim.who, "spec_digest": claim.spec_digest, "num_copies": claim.num_copies}
    )


def decode_claim(data: bytes) -> Claim:
    """Inverse of `encode_claim`.

    Raises:
      RejectedChunk: the bytes are not a claim.
    """
    message = unpack(data, max_bytes=_CLAIM_BYTES)
    kinds = {"who": str, "spec_digest": str, "num_copies": int}
    if {key: type(value) for key, value in message.items()} != kinds:
        raise RejectedChunk("header", "not a claim")
    claim = Claim(**message)  # type: ignore[arg-type]
    if len(claim.who) > MAX_WHO_CHARS or len(claim.spec_digest) > MAX_DIGEST_CHARS:
        raise RejectedChunk("header", "a claim with a name too long")
    if not 1 <= claim.num_copies <= MAX_COPIES:
        raise RejectedChunk("header", f"a claim of {claim.num_copies} copies, not 1..{MAX_COPIES}")
    return claim


def encode_notice(notice: Notice) -> bytes:
    """One row for each slot; epoch and tick are the entry's id."""
    rows = [
        [slot, *said.durable, *said.granted, said.holder] for slot, said in notice.slots.items()
    ]
    return pack({"slots": rows})


def decode_notice(entry_id: EntryId, data: bytes) -> Notice:
    """Inverse of `encode_notice`.

    Raises:
      RejectedChunk: the bytes are not a notice.
    """
    message = unpack(data, max_bytes=_NOTICE_BYTES)
    rows = message.get("slots")
    if len(message) != 1 or not isinstance(rows, list):
        raise RejectedChunk("header", "a notice is one list of slots")
    slots = dict(_decode_row(row) for row in rows)
    if len(slots) != len(rows):
        raise RejectedChunk("header", "a notice names a slot twice")
    return Notice(epoch=entry_id.incarnation, tick=entry_id.sequence, slots=slots)


def _decode_row(row: object) -> tuple[int, SlotNotice]:
    if not isinstance(row, list) or len(row) != 6 or not isinstance(row[5], str):
        raise RejectedChunk("header", "a notice row is not [slot, durable, granted, holder]")
    if not all(map(is_count, row[:5])) or row[0] > MAX_SLOT or len(row[5]) > MAX_WHO_CHARS:
        raise RejectedChunk("header", "a notice row holds a number or a name that is too large")
    said = SlotNotice(
        durable=EntryId(row[1], row[2]), granted=EntryId(row[3], row[4]), holder=row[5]
    )
    return row[0], said
