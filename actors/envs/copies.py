"""How N copies are called: the seam between the rules (`batched.py`) and where copies live.

::

    threads.py    in this process, one after another       cheap
    isolated.py   each in a process of its own, at once    outlives whatever a copy does
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.protocol import Observation, SingleStep
from actors.envs.simulator import Limits
from system.errors import EnvironmentFault
from system.specs import EnvSpec

Waiting = Callable[[], None]

CLOSE_DEADLINE_S = 5.0
"""The longest that closing one copy may take [s]."""


def keep_waiting() -> None:
    """The default of `while_waiting`."""


class Order(NamedTuple):
    """What one copy is to do next: a step, or a reset if there is no action."""

    action: NDArray[np.float32] | None = None
    """float32 [A]."""
    seed: int | None = None
    """Of a reset; None goes on."""


Outcome = Observation | SingleStep | Exception
"""Of a reset, of a step, of a failure: EnvironmentFault, or what the copy raised."""


class Copies(Protocol):
    """N copies. Every call ends, `while_waiting` is called about every second until then.

    The loop that uses it::

        outcomes = copies.run(orders)
        for i in failed(outcomes):
            observation = copies.rebuild(i, seed)
    """

    spec: EnvSpec
    limits: dict[str, Limits]

    def run(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """One order and one outcome per copy; a failed copy must be rebuilt before the next."""
        ...

    def near(self, work: Callable[[], None]) -> bool:
        """Runs `work`, which may call `run`, where that costs least; raises what it raises.

        Returns:
          Whether it ended. If not, a copy hung in a `run` of its, which does not return: whoever
          calls this calls `run` again, with the same orders, and has all their outcomes.
        """
        ...

    def rebuild(self, copy: int, seed: int) -> Observation:
        """Replaces a copy by a new one and starts an episode; its first observation.

        Raises:
          EnvironmentFault: that failed too.
        """
        ...

    def close(self) -> None:
        """Frees the simulators, the first time; a copy that hangs in its close is given up."""
        ...


def as_fault(error: Exception) -> EnvironmentFault:
    """Whatever a copy raised, as a fault with its traceback."""
    if isinstance(error, EnvironmentFault):
        return error
    return EnvironmentFault("raised", "".join(traceback.format_exception(error)))
