"""The records every process agrees on, and how they lie in time.

Time, drawn once::

    t            0     1     2    ...  T-1
    observation  o0    o1    o2                 seen at t
    reward       0     r1    r2                 arrived WITH o_t, caused by a_{t-1}
    is_first     1     0     0
    is_terminal  0     0     0    ...   1       no future after o_t: terminated, not truncated
    action       a0    a1    a2         (0)     chosen AFTER o_t, as executed; padding on the last

Axes: B batch, T time, H horizon, L chunk length, N environments (copies), A action,
D deterministic, S x K stochastic groups x classes, E embedding, V value bins.

Words: a *Step* is one replay row (the TimeStep at t, the action chosen after it). A *Track* is the
endless sequence of Steps of one copy, episode after episode. A *Chunk* is an immutable piece of one
Track: the unit of writing and of eviction. A *Slot* is an actor's numbered place in the fleet; an
*incarnation* is one life of the process in that slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

ACTION = "action"
REWARD = "reward"
IS_FIRST = "is_first"
IS_LAST = "is_last"
IS_TERMINAL = "is_terminal"
OBSERVATION_PREFIX = "observation/"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeStep:
    """What N environment copies hand out at time t."""

    observation: dict[str, Array]
    """Each float32 [N, ...], images uint8 [N, H, W, C], named as in `EnvSpec.observation`."""
    reward: NDArray[np.float32]
    """float32 [N]: the reward that arrived with this observation; 0 where `is_first`."""
    is_first: NDArray[np.bool_]
    """bool [N]: first Step of an episode; the action before it belongs to another episode."""
    is_last: NDArray[np.bool_]
    """bool [N]: last Step of an episode, terminated or truncated; the next step resets the copy."""
    is_terminal: NDArray[np.bool_]
    """bool [N]: terminated: nothing comes after. Never set by a time limit."""


class EntryId(NamedTuple):
    """The name of a Chunk within its slot's stream: `<incarnation>-<sequence>`, growing.

    Sequence 0 is the claim of the slot; Chunks count from 1.
    """

    incarnation: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.incarnation}-{self.sequence}"

    @classmethod
    def parse(cls, text: str | bytes) -> EntryId:
        """Reads `b"3-17"`."""
        incarnation, sequence = (text.decode() if isinstance(text, bytes) else text).split("-")
        return cls(int(incarnation), int(sequence))


ZERO_ID = EntryId(0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """An immutable piece of one Track: up to L consecutive Steps of one environment copy."""

    spec_digest: str
    """Digest of the EnvSpec that these Steps obey."""
    env: str
    """Environment name, for people and for quarantine by provenance."""
    slot: int
    incarnation: int
    sequence: int
    """Position in the slot's stream; consecutive from 1 within an incarnation."""
    copy: int
    """Which of the actor's environment copies: with slot and incarnation it names the Track."""
    first_step: int
    """Ordinal within the Track of row 0 [agent steps]; shows a gap."""
    policy_version_min: int
    policy_version_max: int
    """Versions of the policy that chose these actions."""
    flags: dict[str, bool] = field(default_factory=dict)
    """Facts about the whole piece, for example `{"partial": True}` when sealed by a drain."""
    fields: dict[str, Array]
    """Step columns, each [L, ...]: `observation/<key>`, `action`, `reward`, `is_*`."""
    latent: dict[str, Array] = field(default_factory=dict)
    """The actor's posterior at row 0: `deter` float16 [D], `stoch` uint8 [S] (class indices)."""

    @property
    def num_steps(self) -> int:
        """Rows in this Chunk [agent steps]."""
        return len(self.fields[IS_FIRST])

    @property
    def entry_id(self) -> EntryId:
        """Its name in the slot's stream."""
        return EntryId(self.incarnation, self.sequence)

    @property
    def num_bytes(self) -> int:
        """Size of all columns [bytes]."""
        arrays = [*self.fields.values(), *self.latent.values()]
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One broadcast of the acting policy. Parameters and facts travel as one: never two writes."""

    epoch: int
    """Life of the learner that published it."""
    version: int
    """Number of broadcasts before and with this one; a total order. 0 means random weights."""
    update: int
    """Learner updates behind these parameters."""
    agent_steps: int
    """Steps inserted into replay when these parameters were made [agent steps]."""
    elapsed_s: float
    """Training time behind them, earlier sessions included [s]."""
    model_digest: str
    """Digest of the ModelConfig and EnvSpec the parameters belong to."""
    time_s: float
    """Wall-clock time of publishing [s since the Unix epoch]."""
    weights: bytes
    """The acting subset (encoder, dynamics, policy) as safetensors."""
