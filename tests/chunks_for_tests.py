"""Chunks and specs for tests."""

from __future__ import annotations

import numpy as np

from system.specs import ActionSpec, ArraySpec, EnvSpec
from system.types import Chunk

SPEC = EnvSpec(
    name="toy",
    observation={"position": ArraySpec(shape=(3,)), "image": ArraySpec(shape=(4, 4, 1))},
    action=ActionSpec(kind="continuous", size=2),
)


def make_chunk(
    *,
    slot: int = 0,
    incarnation: int = 1,
    sequence: int = 1,
    length: int = 4,
    spec: EnvSpec = SPEC,
    seed: int = 0,
    fields: dict[str, np.ndarray] | None = None,
) -> Chunk:
    """A valid Chunk of `spec`; `fields` replaces columns."""
    random = np.random.default_rng([seed, slot, incarnation, sequence])
    columns = {
        f"observation/{key}": random.normal(size=(length, *array.shape)).astype(array.dtype)
        for key, array in spec.observation.items()
    }
    if spec.action.kind == "continuous":
        action = random.uniform(-1, 1, size=(length, spec.action.size)).astype(np.float32)
    else:
        action = np.eye(spec.action.size, dtype=np.float32)[
            random.integers(spec.action.size, size=length)
        ]
    columns |= {
        "action": action,
        "reward": random.normal(size=length).astype(np.float32),
        "is_first": np.arange(length) == 0,
        "is_last": np.zeros(length, bool),
        "is_terminal": np.zeros(length, bool),
    }
    return Chunk(
        spec_digest=spec.digest,
        env=spec.name,
        slot=slot,
        incarnation=incarnation,
        sequence=sequence,
        copy=0,
        first_step=(sequence - 1) * length,
        policy_version_min=1,
        policy_version_max=2,
        flags={"partial": False},
        fields=columns | (fields or {}),
        latent={
            "deter": random.normal(size=8).astype(np.float16),
            "stoch": random.integers(0, 16, size=4).astype(np.uint8),
        },
    )


def assert_equal_chunks(left: Chunk, right: Chunk) -> None:
    """Every fact and every byte."""
    for name in Chunk.__dataclass_fields__:
        if name not in ("fields", "latent"):
            assert getattr(left, name) == getattr(right, name), name
    for role in ("fields", "latent"):
        ours, theirs = getattr(left, role), getattr(right, role)
        assert set(ours) == set(theirs)
        for name, array in ours.items():
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array, theirs[name])
