"""The small records of the log as bytes: the claim of a slot, the learner's notice."""

from __future__ import annotations

from system.codec import pack, unpack
from system.errors import RejectedChunk
from system.log.protocol import Claim, Notice, SlotNotice
from system.types import EntryId

MAX_COPIES = 4096
"""Environment copies one slot may claim."""


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
    message = unpack(data)
    who, digest, num_copies = (message.get(key) for key in ("who", "spec_digest", "num_copies"))
    if not isinstance(who, str) or not isinstance(digest, str) or type(num_copies) is not int:
        raise RejectedChunk("header", "not a claim")
    if not 1 <= num_copies <= MAX_COPIES:
        raise RejectedChunk("header", f"a claim of {num_copies} copies, not 1..{MAX_COPIES}")
    return Claim(who=who, spec_digest=digest, num_copies=num_copies)


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
    rows = unpack(data).get("slots")
    if not isinstance(rows, list):
        raise RejectedChunk("header", "a notice without slots")
    slots = dict(_decode_row(row) for row in rows)
    return Notice(epoch=entry_id.incarnation, tick=entry_id.sequence, slots=slots)


def _decode_row(row: object) -> tuple[int, SlotNotice]:
    if not isinstance(row, list) or len(row) != 6 or not isinstance(row[5], str):
        raise RejectedChunk("header", "a notice row is not [slot, durable, granted, holder]")
    if not all(type(number) is int and number >= 0 for number in row[:5]):
        raise RejectedChunk("header", "a notice row holds something that is not a count")
    said = SlotNotice(
        durable=EntryId(row[1], row[2]), granted=EntryId(row[3], row[4]), holder=row[5]
    )
    return row[0], said
