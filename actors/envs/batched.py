"""N copies behind one BatchedEnv, which outlive what a single copy does.

::

    step(action) -> orders -> Copies 0 .. N-1, each with a deadline -> rows -> TimeStep
                    raised, hung, died, or left its space? -> rebuild, reset -> `is_first` row

A fault cuts the episode: the copy's next row is the first of a new one, and whoever reads the Track
sees from it that the row before was the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors.envs.copies import Copies, Order, Outcome, as_fault
from actors.envs.protocol import SingleStep
from actors.envs.rows import Layout, Rows
from system.errors import ConfigError, EnvironmentFault
from system.types import TimeStep

OnFault = Callable[[int, EnvironmentFault], None]

MAX_FAULTS_IN_A_ROW = 5
"""Faults of one copy without a good step between, after which acting stops."""


def ignore_fault(copy: int, fault: EnvironmentFault) -> None:
    """The default of `on_fault`."""


def copy_seed(seed: Sequence[int], copy: int, rebuilt: int = 0) -> int:
    """The seed of one life of one copy: 32 bits, distinct for distinct arguments in effect."""
    sequence = np.random.SeedSequence(entropy=list(seed), spawn_key=(copy, rebuilt))
    return int(sequence.generate_state(1)[0])


class Unfinished(Exception):
    """A step within `near` met a fault, which takes time to mend."""


class FaultTolerantEnv:
    """A BatchedEnv over any Copies.

    The loop that uses it::

        time_step = env.reset()
        while True:
            time_step = env.step(policy(time_step))

    Or many steps without a hand-over between threads::

        def steps():
            while not over():
                memory.time_step = env.step(policy(memory.time_step))

        while not over():
            if (time_step := env.near(steps)) is not None:    # a fault met a step, which is mended
                memory.time_step = time_step

    Raises:
      EnvironmentFault: from `reset` and `step`, when a copy failed MAX_FAULTS_IN_A_ROW times
        without a good step between.
    """

    def __init__(
        self,
        copies: Copies,
        *,
        num_copies: int,
        seed: Sequence[int],
        on_fault: OnFault = ignore_fault,
    ) -> None:
        self.num_copies, self.spec, self.last_fault = num_copies, copies.spec, ""
        self._copies, self._seed, self._on_fault = copies, tuple(seed), on_fault
        self._layout = Layout(copies.spec, copies.limits, num_copies)
        self._unseeded: list[int | None] = [copy_seed(seed, i) for i in range(num_copies)]
        self._over = np.ones(num_copies, np.bool_)
        self._rebuilt = [0] * num_copies
        self._faults_in_a_row = [0] * num_copies
        self._orders: list[Order] = []
        self._outcomes: Sequence[Outcome] | None = None
        """Of the orders, once they are all there."""
        self._is_near = False

    def reset(self, *, seed: int | None = None) -> TimeStep:
        """Starts an episode in every copy; TimeStep [N] with `is_first`.

        Args:
          seed: begins the randomness of every copy anew, each differently; None goes on.
        """
        if seed is not None:
            whole = (*self._seed, seed)
            self._unseeded = [copy_seed(whole, i) for i in range(self.num_copies)]
        self._over = np.ones(self.num_copies, np.bool_)
        return self._advance(np.zeros((self.num_copies, self.spec.action.size), np.float32))

    def step(self, action: NDArray[np.float32]) -> TimeStep:
        """Steps every copy once. action float32 [N, A] -> TimeStep [N].

        Raises:
          ValueError: the action has another shape or is not finite.
        """
        wanted = (self.num_copies, self.spec.action.size)
        if action.shape != wanted or not np.isfinite(action).all():
            raise ValueError(f"action must be finite and of shape {wanted}, not {action!r}")
        return self._advance(action)

    def near(self, work: Callable[[], None]) -> TimeStep | None:
        """Runs `work`, our own code that calls `step` again and again; raises what it raises.

        Returns:
          None if `work` ended. If a step of its met a fault: `work` was left within that step, and
          this is what the step would have returned.
        """
        self._is_near = True
        try:
            ended = self._copies.near(work)
        except Unfinished:
            ended = False
        finally:
            self._is_near = False
        return None if ended else self._finish()

    def close(self) -> None:
        """Frees the simulators, the first time; see `Copies.close`."""
        self._copies.close()

    def _advance(self, action: NDArray[np.float32]) -> TimeStep:
        self._orders = [
            Order(seed=self._unseeded[i]) if over else Order(action=action[i])
            for i, over in enumerate(self._over.tolist())
        ]
        self._outcomes = None
        return self._finish()

    def _finish(self) -> TimeStep:
        """Carries the orders out, as far as they are not, and mends what failed."""
        if self._outcomes is None:
            self._outcomes = self._copies.run(self._orders)
        rows = Rows(self._layout)
        faults = self._put(rows, self._outcomes)
        if faults and self._is_near:
            raise Unfinished
        for i, order in enumerate(self._orders):
            if i not in faults:
                self._unseeded[i] = None
                if order.action is not None:
                    self._faults_in_a_row[i] = 0
        for i, fault in faults.items():
            self._recover(i, fault, rows)
        time_step = rows.time_step()
        self._over = time_step.is_last
        return time_step

    def _put(self, rows: Rows, outcomes: Sequence[Outcome]) -> dict[int, EnvironmentFault]:
        """Fills the rows; copies that could not are returned with the reason."""
        faults = {}
        for i, outcome in enumerate(outcomes):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                if isinstance(outcome, SingleStep):
                    rows.put_step(i, outcome)
                else:
                    rows.put_first(i, outcome)
            except Exception as error:  # noqa: BLE001 - whatever the user's code raised or returned
                faults[i] = as_fault(error)
        outside = rows.outside(i for i in range(self.num_copies) if i not in faults)
        return dict(sorted((faults | outside).items()))

    def _recover(self, i: int, fault: EnvironmentFault, rows: Rows) -> None:
        """Rebuilds copy i until it starts an episode, or gives up."""
        while True:
            self._on_fault(i, fault)
            self.last_fault = str(fault)
            self._faults_in_a_row[i] += 1
            if self._faults_in_a_row[i] >= MAX_FAULTS_IN_A_ROW:
                raise EnvironmentFault(
                    fault.kind,
                    f"copy {i} failed {MAX_FAULTS_IN_A_ROW} times in a row; the last: {fault}",
                )
            try:
                self._rebuilt[i] += 1
                seed = copy_seed(self._seed, i, self._rebuilt[i])
                rows.put_first(i, self._copies.rebuild(i, seed))
                for outside in rows.outside([i]).values():
                    raise outside
            except (EnvironmentFault, ConfigError) as again:
                # It was built before, so what refuses it now is a failure like others.
                fault = as_fault(again)
            else:
                self._unseeded[i] = None
                return
