"""N copies behind one BatchedEnv, which outlive what a single copy does.

::

    step(action) -> worker thread: copy 0 .. N-1, each with a deadline -> rows -> TimeStep
                    raised, hung, or left its space? -> close, rebuild, reset -> `is_first` row

A fault cuts the episode: the copy's next row is the first of a new one, and whoever reads the Track
sees from it that the row before was the last.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.protocol import SingleEnv
from actors.envs.rows import Observation, Rows
from actors.envs.worker import Hang, Worker
from system.errors import EnvironmentFault
from system.types import TimeStep

OnFault = Callable[[int, EnvironmentFault], None]
Waiting = Callable[[], None]

MAX_FAULTS_IN_A_ROW = 5
"""Faults of one copy without a good step between, after which acting stops."""

CLOSE_DEADLINE_S = 5.0
"""The longest that closing one copy may take [s]."""


def ignore_fault(copy: int, fault: EnvironmentFault) -> None:
    """The default of `on_fault`."""


def keep_waiting() -> None:
    """The default of `while_waiting`."""


def copy_seed(seed: Sequence[int], copy: int, rebuilt: int = 0) -> int:
    """The seed of one life of one copy: 32 bits, distinct for distinct arguments in effect."""
    sequence = np.random.SeedSequence(entropy=list(seed), spawn_key=(copy, rebuilt))
    return int(sequence.generate_state(1)[0])


class FaultTolerantEnv:
    """A BatchedEnv over any SingleEnv.

    The loop that uses it::

        time_step = env.reset()
        while True:
            time_step = env.step(policy(time_step))

    Raises:
      EnvironmentFault: from `reset` and `step`, when a copy failed MAX_FAULTS_IN_A_ROW times
        without a good step between.
    """

    def __init__(
        self,
        build: Callable[[], SingleEnv],
        *,
        num_copies: int,
        seed: Sequence[int],
        deadline_s: float = 60.0,
        on_fault: OnFault = ignore_fault,
        while_waiting: Waiting = keep_waiting,
    ) -> None:
        self.num_copies = num_copies
        self._build, self._seed = build, tuple(seed)
        self._deadline_s = deadline_s
        self._on_fault, self._while_waiting = on_fault, while_waiting
        self._copies: list[SingleEnv] = [build() for _ in range(num_copies)]
        self.spec = self._copies[0].spec
        self._limits = getattr(self._copies[0], "limits", {})
        self._unseeded: list[int | None] = [copy_seed(seed, i) for i in range(num_copies)]
        self._over = np.ones(num_copies, np.bool_)
        self._rebuilt = [0] * num_copies
        self._faults_in_a_row = [0] * num_copies
        self._worker = Worker()

    def reset(self, *, seed: int | None = None) -> TimeStep:
        """Starts an episode in every copy; TimeStep [N] with `is_first`.

        Args:
          seed: begins the randomness of every copy anew, each differently; None goes on.
        """
        if seed is not None:
            whole = (*self._seed, seed)
            self._unseeded = [copy_seed(whole, i) for i in range(self.num_copies)]
        self._over[:] = True
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

    def close(self) -> None:
        """Frees the simulators, the first time; a copy that hangs in its close is left behind."""
        self._deadline_s = min(self._deadline_s, CLOSE_DEADLINE_S)
        self._run([copy.close for copy in self._copies], [None] * len(self._copies))
        self._copies.clear()
        self._worker.close()

    def _advance(self, action: NDArray[np.float32]) -> TimeStep:
        rows = Rows(self.spec, self._limits, self.num_copies)
        calls: list[Callable[[], Any]] = [
            functools.partial(copy.reset, seed=self._unseeded[i])
            if self._over[i]
            else functools.partial(copy.step, action[i])
            for i, copy in enumerate(self._copies)
        ]
        outcomes = self._run(calls, self._copies)
        faults = self._put(rows, outcomes)
        for i in range(self.num_copies):
            if i not in faults:
                self._unseeded[i] = None
                if not self._over[i]:
                    self._faults_in_a_row[i] = 0
        for i, fault in faults.items():
            self._recover(i, fault, rows)
        time_step = rows.time_step()
        self._over = time_step.is_last.copy()
        return time_step

    def _put(self, rows: Rows, outcomes: list[Any]) -> dict[int, EnvironmentFault]:
        """Fills the rows; copies that could not are returned with the reason."""
        faults = {}
        for i, outcome in enumerate(outcomes):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                if self._over[i]:
                    rows.put_first(i, outcome)
                else:
                    rows.put_step(i, outcome)
            except Exception as error:  # noqa: BLE001 - whatever the user's code raised or returned
                faults[i] = _as_fault(error)
        outside = rows.outside(i for i in range(self.num_copies) if i not in faults)
        return dict(sorted({**faults, **outside}.items()))

    def _recover(self, i: int, fault: EnvironmentFault, rows: Rows) -> None:
        """Rebuilds copy i until it starts an episode, or gives up."""
        while True:
            self._on_fault(i, fault)
            self._faults_in_a_row[i] += 1
            if self._faults_in_a_row[i] >= MAX_FAULTS_IN_A_ROW:
                raise EnvironmentFault(
                    fault.kind,
                    f"copy {i} failed {MAX_FAULTS_IN_A_ROW} times in a row; the last: {fault}",
                )
            # A hung copy is still inside its call: the abandoned thread closes it.
            broken = None if isinstance(fault, Hang) else self._copies[i]
            try:
                self._put_rebuilt(i, broken, rows)
            except EnvironmentFault as again:
                fault = again
            else:
                return

    def _put_rebuilt(self, i: int, broken: SingleEnv | None, rows: Rows) -> None:
        self._rebuilt[i] += 1
        seed = copy_seed(self._seed, i, self._rebuilt[i])

        def rebuild() -> tuple[SingleEnv, Observation]:
            if broken is not None:
                with contextlib.suppress(Exception):
                    broken.close()
            fresh = self._build()
            return fresh, fresh.reset(seed=seed)

        outcome = self._run([rebuild], [None])[0]
        if isinstance(outcome, Exception):
            raise _as_fault(outcome)
        self._copies[i], observation = outcome
        self._unseeded[i] = None
        rows.put_first(i, observation)
        for fault in rows.outside([i]).values():
            raise fault

    def _run(self, calls: list[Callable[[], Any]], owners: Sequence[SingleEnv | None]) -> list[Any]:
        """One outcome per call; a call that hangs does not keep the ones after it from running."""
        owners = list(owners)
        outcomes: list[Any] = []
        while len(outcomes) < len(calls):
            start = len(outcomes)

            def on_late(index: int, start: int = start) -> None:
                owner = owners[start + index]
                if owner is not None:
                    owner.close()

            outcomes += self._worker.run(
                calls[start:],
                deadline_s=self._deadline_s,
                on_late=on_late,
                while_waiting=self._while_waiting,
            )
        return outcomes


def _as_fault(error: Exception) -> EnvironmentFault:
    if isinstance(error, EnvironmentFault):
        return error
    return EnvironmentFault("raised", "".join(traceback.format_exception(error)))
