"""Many ticks of an acting loop where its copies live, without a hand-over between threads each.

::

    here       tick(seconds) -> near ------------------------------> the turn it ended with
    there                        loop.tick(), loop.tick(), ...
    here                         a fault met a step: it is mended, then it arrives
"""

from __future__ import annotations

from actors.envs.batched import FaultTolerantEnv
from actors.loop import ActorLoop
from system.clock import Clock
from system.tick import Progress, Wait


class Strides:
    """Ticks an ActorLoop for a while.

    The loop that uses it::

        strides = Strides(loop, env, clock)
        while not stopping:
            turn = strides.tick(0.02)
    """

    def __init__(self, loop: ActorLoop, env: FaultTolerantEnv, clock: Clock) -> None:
        self._loop, self._env, self._clock = loop, env, clock
        self._until_s = 0.0
        self._turn: Progress | Wait

    def tick(self, seconds: float) -> Progress | Wait:
        """Acts for `seconds` [s], at least once; less if it must wait, and then for what.

        Raises Fenced, EnvironmentFault; what was raised there is raised here.
        """
        if seconds <= 0 or not self._loop.acting:
            return self._loop.tick()
        self._until_s = self._clock.now() + seconds
        mended = self._env.near(self._ticks)
        if mended is None:
            return self._turn
        self._loop.arrive(mended)
        return Progress("acted")

    def _ticks(self) -> None:
        """In the thread of the copies. What must outlive it is in the loop before each step."""
        while True:
            self._turn = self._loop.tick()
            if isinstance(self._turn, Wait) or self._clock.now() >= self._until_s:
                return
