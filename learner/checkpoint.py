"""Checkpoints: one manifest, written last, that names the hash of every part.

::

    checkpoints/00002-000012000/       <epoch>-<update>
      weights.safetensors              everything with a gradient, the slow value, the return scale
      optimizer.safetensors
      latents.safetensors              posteriors written back to the arena
      progress.json                    counts, random generators, where fresh Sequences go on
      manifest.json                    SHA-256 of each, model digest, spec

The folder gets its name only when all of it is on the disk, so a crash leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from system.errors import CheckpointError
from system.types import Snapshot

FORMAT = 1
KEEP = 2
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
_ACTING = {
    "world_model.encoder.": "encoder.",
    "world_model.dynamics.": "dynamics.",
    "behavior.policy.": "policy.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Everything a learner needs besides the segments."""

    model_digest: str
    progress: dict[str, Any]
    """Plain data: epoch, update, version, replayed, elapsed_s, agent_steps, generators, ..."""
    tensors: dict[str, dict[str, Tensor]]
    """Per part (`weights`, `optimizer`, `latents`): named tensors on the CPU."""


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint under `folder`, keeps the newest two; returns its folder."""
    progress = checkpoint.progress
    name = f"{progress['epoch']:05d}-{progress['update']:09d}"
    final, draft = folder / name, folder / f".{name}.draft"
    for abandoned in folder.glob(".*.draft"):
        shutil.rmtree(abandoned)
    draft.mkdir(parents=True)
    parts = {
        f"{part}.safetensors": safetensors.torch.save(tensors)
        for part, tensors in checkpoint.tensors.items()
    }
    parts[PROGRESS] = json.dumps(progress, indent=1).encode()
    manifest = {
        "format": FORMAT,
        "model_digest": checkpoint.model_digest,
        "parts": {part: hashlib.sha256(data).hexdigest() for part, data in parts.items()},
    }
    for part, data in parts.items():
        _write(draft / part, data)
    _write(draft / MANIFEST, json.dumps(manifest, indent=1).encode())
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    _sync_folder(folder)
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{MANIFEST}"))


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint under `folder`; None if there is none. Raises CheckpointError."""
    found = list_checkpoints(folder)
    return load(found[-1]) if found else None


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint and compares every part with the manifest.

    Raises:
      CheckpointError: names the part that is missing, damaged or of another format.
    """
    manifest = _parse(path, MANIFEST, _read(path, MANIFEST))
    for key in ("format", "model_digest", "parts"):
        if key not in manifest:
            raise CheckpointError(f"checkpoint {path}: {MANIFEST} lacks {key!r}")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path}: {MANIFEST} has format {manifest['format']}, "
            f"this version reads {FORMAT}"
        )
    parts: dict[str, bytes] = {}
    for part, digest in {PROGRESS: "", **manifest["parts"]}.items():
        parts[part] = _read(path, part)
        if hashlib.sha256(parts[part]).hexdigest() != digest:
            raise CheckpointError(
                f"checkpoint {path}: {part} is damaged (its hash is not the manifest's); "
                "remove this folder to go on from the one before"
            )
    try:
        tensors = {
            part.removesuffix(".safetensors"): safetensors.torch.load(data)
            for part, data in parts.items()
            if part.endswith(".safetensors")
        }
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: not safetensors: {error}") from None
    return Checkpoint(
        model_digest=manifest["model_digest"],
        progress=_parse(path, PROGRESS, parts[PROGRESS]),
        tensors=tensors,
    )


def load_policy(folder: Path) -> Snapshot:
    """The acting subset of the newest checkpoint under a run's `checkpoints` folder.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    checkpoint = load_newest(folder)
    if checkpoint is None:
        raise CheckpointError(f"{folder} holds no checkpoint yet")
    acting = {
        short + name.removeprefix(long): tensor
        for name, tensor in checkpoint.tensors["weights"].items()
        for long, short in _ACTING.items()
        if name.startswith(long)
    }
    progress = checkpoint.progress
    return Snapshot(
        epoch=progress["epoch"],
        version=progress["version"],
        update=progress["update"],
        agent_steps=progress["agent_steps"],
        elapsed_s=progress["elapsed_s"],
        model_digest=checkpoint.model_digest,
        time_s=progress["time_s"],
        weights=safetensors.torch.save(acting),
    )


def _read(path: Path, part: str) -> bytes:
    try:
        return (path / part).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: {part} cannot be read: {error}") from None


def _parse(path: Path, part: str, data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path}: {part} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"checkpoint {path}: {part} is not a JSON object")
    return parsed


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
