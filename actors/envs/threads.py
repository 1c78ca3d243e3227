"""Copies in this process, called one after another by a thread that can be given up."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

from actors.config import EnvConfig
from actors.envs.copies import CLOSE_DEADLINE_S, Order, Outcome, Waiting, as_fault
from actors.envs.protocol import Observation, SingleEnv
from actors.envs.simulator import Limits
from actors.envs.worker import Hang, Worker
from system.errors import UserError


class ThreadCopies:
    """Copies (see `Copies`) in one thread; a hang leaves the thread behind and takes a fresh one.

    A hang that holds the interpreter stops the whole process; only `ProcessCopies` outlive it.

    Raises:
      ConfigError: the environment cannot be built.
      EnvironmentFault: building it raised or hung.
    """

    def __init__(
        self,
        build: Callable[[], SingleEnv],
        config: EnvConfig,
        *,
        num_copies: int,
        while_waiting: Waiting,
    ) -> None:
        self._build, self._config, self._while_waiting = build, config, while_waiting
        self._worker = Worker()
        self._copies: list[SingleEnv | None] = []
        """None: the copy hung; the thread that was given up closes it."""
        self._begun: list[Any] = []
        """Outcomes of a `run` that hung within `near`: the next one goes on after them."""
        try:
            for _ in range(num_copies):
                self._copies.append(self._call(build, config.build_deadline_s))
        except BaseException:
            self.close()
            raise
        self.spec = self._copies[0].spec  # type: ignore[union-attr]
        self.limits: dict[str, Limits] = getattr(self._copies[0], "limits", {})

    def run(self, orders: Sequence[Order]) -> list[Outcome]:
        """See `Copies`."""
        calls: list[Callable[[], Any]] = []
        for copy, order in zip(self._copies, orders, strict=True):
            assert copy is not None, "a copy that hung is rebuilt first"
            calls.append(
                functools.partial(copy.reset, seed=order.seed)
                if order.action is None
                else functools.partial(copy.step, order.action)
            )
        begun, self._begun = self._begun, []
        outcomes = self._run(calls, self._copies, self._config.step_deadline_s, begun)
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, Hang):
                self._copies[i] = None
        return outcomes

    def near(self, work: Callable[[], None]) -> bool:
        """See `Copies`."""
        self._begun = self._worker.near(work, while_waiting=self._while_waiting)
        return not self._begun

    def rebuild(self, copy: int, seed: int) -> Observation:
        """See `Copies`."""
        broken, self._copies[copy] = self._copies[copy], None

        def rebuild() -> tuple[SingleEnv, Observation]:
            if broken is not None:
                with contextlib.suppress(Exception):
                    broken.close()
            fresh = self._build()
            return fresh, fresh.reset(seed=seed)

        # Put here and not in the thread: one that was given up may come back much later.
        self._copies[copy], observation = self._call(rebuild, self._config.build_deadline_s)
        return cast(Observation, observation)

    def close(self) -> None:
        """See `Copies`."""
        there = [copy for copy in self._copies if copy is not None]
        deadline_s = min(self._config.step_deadline_s, CLOSE_DEADLINE_S)
        self._run([copy.close for copy in there], [None] * len(there), deadline_s)
        self._copies.clear()
        self._worker.close()

    def _call(self, call: Callable[[], Any], deadline_s: float) -> Any:  # noqa: ANN401
        outcome = self._run([call], [None], deadline_s)[0]
        if isinstance(outcome, UserError):
            raise outcome
        if isinstance(outcome, Exception):
            raise as_fault(outcome) from outcome
        return outcome

    def _run(
        self,
        calls: list[Callable[[], Any]],
        owners: Sequence[SingleEnv | None],
        deadline_s: float,
        begun: Sequence[Any] = (),
    ) -> list[Any]:
        """One outcome per call; a call that hangs does not keep the ones after it from running."""
        owners, outcomes = list(owners), list(begun)
        while len(outcomes) < len(calls):
            start = len(outcomes)

            def on_late(index: int, start: int = start) -> None:
                owner = owners[start + index]
                if owner is not None:
                    owner.close()

            outcomes += self._worker.run(
                calls[start:],
                deadline_s=deadline_s,
                on_late=on_late,
                while_waiting=self._while_waiting,
            )
        return outcomes
