"""Checkpoints: one manifest, written last, that names the hash of every part.

::

    checkpoints/00002-000012000/       <epoch>-<update>
      weights.safetensors              everything with a gradient, the slow value, the return scale
      optimizer.safetensors
      latents.safetensors              posteriors written back to the arena
      progress.json                    counts, random generators, where fresh Sequences go on
      manifest.json                    SHA-256 of each, model digest; sealed itself

The folder gets its name only when all of it is on the disk, so a crash leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from learner.bookmark import Bookmark
from learner.disk import full_disk_is_named
from learner.epochs import Epochs, Takeover
from learner.sealed import from_sealed, to_sealed
from system.errors import CheckpointError
from system.files import sync_folder, write_synced
from system.types import Snapshot

FORMAT = 3
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
_TENSORS = ("weights", "optimizer", "latents")
_PARTS = {PROGRESS, *(f"{name}.safetensors" for name in _TENSORS)}
_LEARNING = {
    "world_model.encoder.": "encoder.",
    "world_model.dynamics.": "dynamics.",
    "behavior.policy.": "policy.",
}
_AVERAGED = {f"acting.copies.{name}": name for name in _LEARNING.values()}
"""Where the acting subset is: in the weights that learn, and, if there is one, in their average."""


class _Damaged(CheckpointError):
    """A part is missing or not what was written: the checkpoint before may be used instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Everything a learner needs besides the segments."""

    model_digest: str
    bookmark: Bookmark
    tensors: dict[str, dict[str, Tensor]]
    """Per part (`weights`, `optimizer`, `latents`): named tensors on the CPU."""
    name: str = ""
    """Of its folder; "" before it is saved."""


def save(folder: Path, checkpoint: Checkpoint, epochs: Epochs, *, keep: int) -> Path:
    """Writes a checkpoint under `folder`, keeps the newest `keep`; returns its folder.

    Raises:
      DiskFull: there is no room; the checkpoints before are as they were.
      Fenced: a newer learner writes this folder.
    """
    epochs.check()
    final = _new_name(folder, checkpoint.bookmark)
    draft = folder / f".{final.name}.draft"
    for abandoned in folder.glob(".*.draft"):
        if abandoned.name <= draft.name:  # a successor's is none of ours
            shutil.rmtree(abandoned, ignore_errors=True)
    try:
        with full_disk_is_named(draft):
            draft.mkdir(parents=True)
            _write_parts(draft, checkpoint)
            epochs.check()
            draft.rename(final)
            sync_folder(folder)
    except FileNotFoundError:
        epochs.check()  # a successor clears away what we had begun
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    epochs.check()
    # Listed first: what a successor saves meanwhile is not in it. What nobody finished removing is.
    there = {*folder.glob("[0-9]*")}
    good = [path for path in list_checkpoints(folder) if epochs.counts(path.name)]
    for path in there - {*good[-keep:]}:
        shutil.rmtree(path, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{MANIFEST}"))


def load_newest(
    folder: Path, before: Takeover, on_event: Callable[[str, str], None]
) -> Checkpoint | None:
    """The newest checkpoint under `folder` that counts and is whole; None if there never was one.

    A damaged one is an event that names its part.

    Raises:
      CheckpointError: all are damaged, or the newest is of another format.
    """
    error: CheckpointError | None = None
    for path in reversed(list_checkpoints(folder)):
        if not before.counts(path.name):
            continue
        try:
            checkpoint = load(path)
        except _Damaged as damage:
            on_event("checkpoint_damaged", f"{damage}; the one before is used")
            error = damage
        else:
            return checkpoint
    if error is not None:
        raise CheckpointError(
            f"no checkpoint in {folder} can be read; remove that folder to train on from its "
            f"replay with new weights. The oldest: {error}"
        )
    return None


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint and compares every part with the manifest.

    Raises:
      CheckpointError: names the part that is missing, damaged or of another format.
    """
    try:
        manifest = from_sealed(_read(path, MANIFEST))
    except ValueError as error:
        raise _Damaged(f"checkpoint {path}: {MANIFEST} is damaged: {error}") from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path}: {MANIFEST} has format {manifest.get('format')}, "
            f"this version reads {FORMAT}"
        )
    digest, hashes = manifest.get("model_digest"), manifest.get("parts")
    if not isinstance(digest, str) or not isinstance(hashes, dict) or hashes.keys() != _PARTS:
        raise _Damaged(f"checkpoint {path}: {MANIFEST} does not name a model and the four parts")
    parts = {part: _checked(path, part, hashes[part]) for part in sorted(_PARTS)}
    try:
        checkpoint = Checkpoint(
            model_digest=digest,
            bookmark=Bookmark.from_json(json.loads(parts[PROGRESS])),
            tensors={
                name: safetensors.torch.load(parts[f"{name}.safetensors"]) for name in _TENSORS
            },
            name=path.name,
        )
    except SafetensorError as error:
        raise _Damaged(f"checkpoint {path}: not safetensors: {error}") from None
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"checkpoint {path}: {PROGRESS} is not usable: {error}") from None
    if not path.name.startswith(_base_name(checkpoint.bookmark)):
        raise _Damaged(f"checkpoint {path}: {PROGRESS} is that of another checkpoint")
    return checkpoint


def load_policy(folder: Path) -> Snapshot:
    """The acting subset of the newest checkpoint under a run's `checkpoints` folder.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    ignore: Callable[[str, str], None] = lambda kind, text: None  # noqa: E731
    before = Epochs(folder.parent).newest(ignore)
    counted = [path for path in list_checkpoints(folder) if before.counts(path.name)]
    if not counted:
        raise CheckpointError(f"{folder} holds no checkpoint yet")
    checkpoint = load(counted[-1])
    weights = checkpoint.tensors["weights"]
    acting = _subset(weights, _AVERAGED) or _subset(weights, _LEARNING)
    bookmark = checkpoint.bookmark
    return Snapshot(
        epoch=bookmark.epoch,
        version=bookmark.version,
        update=bookmark.update,
        agent_steps=bookmark.agent_steps,
        elapsed_s=bookmark.elapsed_s,
        model_digest=checkpoint.model_digest,
        time_s=bookmark.time_s,
        weights=safetensors.torch.save(acting),
    )


def _subset(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Tensors whose names begin with a key of `names`, which is replaced by its value."""
    return {
        short + name.removeprefix(long): tensor
        for name, tensor in tensors.items()
        for long, short in names.items()
        if name.startswith(long)
    }


def _new_name(folder: Path, bookmark: Bookmark) -> Path:
    """Never one that exists: replacing a folder cannot be done in one piece."""
    base = _base_name(bookmark)
    path, number = folder / base, 1
    while path.exists():
        number += 1
        path = folder / f"{base}-{number:02d}"
    return path


def _base_name(bookmark: Bookmark) -> str:
    return f"{bookmark.epoch:05d}-{bookmark.update:09d}"


def _write_parts(draft: Path, checkpoint: Checkpoint) -> None:
    parts = {
        f"{part}.safetensors": safetensors.torch.save(tensors)
        for part, tensors in checkpoint.tensors.items()
    }
    parts[PROGRESS] = json.dumps(checkpoint.bookmark.to_json(), indent=1).encode()
    manifest = {
        "format": FORMAT,
        "model_digest": checkpoint.model_digest,
        "parts": {part: hashlib.sha256(data).hexdigest() for part, data in parts.items()},
    }
    for part, data in parts.items():
        write_synced(draft / part, data)
    write_synced(draft / MANIFEST, to_sealed(manifest))
    sync_folder(draft)


def _checked(path: Path, part: str, digest: object) -> bytes:
    data = _read(path, part)
    if hashlib.sha256(data).hexdigest() != digest:
        raise _Damaged(f"checkpoint {path}: {part} is damaged (its hash is not the manifest's)")
    return data


def _read(path: Path, part: str) -> bytes:
    try:
        return (path / part).read_bytes()
    except OSError as error:
        raise _Damaged(f"checkpoint {path}: {part} cannot be read: {error}") from None
