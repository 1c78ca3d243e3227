"""What acts: a filter and a policy behind one call. Implemented by `system.models.agent`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from system.types import Array, Snapshot, TimeStep


class Carry(Protocol):
    """Recurrent memory of N copies, passed from one `act` to the next. Opaque to the actor."""

    def latent(self) -> dict[str, Array]:
        """The posterior after the latest observation: deter float16 [N, D], stoch uint8 [N, S]."""
        ...


class Decision(Protocol):
    """What `act` returns."""

    @property
    def action(self) -> NDArray[np.float32]:
        """float32 [N, A]: in [-1, 1] (continuous) or one-hot (discrete)."""
        ...

    @property
    def carry(self) -> Carry:
        """To be passed to the next `act`."""
        ...


class Agent(Protocol):
    """A filter and a policy.

    The loop that uses it::

        carry, time_step = agent.initial_carry(env.num_copies), env.reset()
        while True:
            decision = agent.act(time_step, carry, deterministic=False)
            carry, time_step = decision.carry, env.step(decision.action)
    """

    epoch: int
    version: int
    """Version of the policy that acts now."""

    def initial_carry(self, num_copies: int) -> Carry:
        """Carry of N copies before any observation."""
        ...

    # Any: each agent takes only its own kind of carry, which no actor looks into.
    def act(self, time_step: TimeStep, carry: Any, *, deterministic: bool) -> Decision:  # noqa: ANN401
        """Filters the observation and chooses actions; `is_first` copies forget their carry."""
        ...

    def load(self, snapshot: Snapshot) -> None:
        """Adopts a broadcast policy. Raises ValueError if the model digest differs."""
        ...
