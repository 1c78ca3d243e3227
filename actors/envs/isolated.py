"""Copies in processes of their own: what one does, down to a segmentation fault, stays its own.

Here a copy can be killed, so a hang that holds the interpreter stops nobody else, and copies step
at the same time. The price is a few messages: see `tests/benchmarks/actor.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.config import EnvConfig
from actors.envs.copies import CLOSE_DEADLINE_S, Order, Outcome, Waiting
from actors.envs.process import ChildProcess, Died
from actors.envs.protocol import Observation, SingleStep
from actors.envs.simulator import Limits
from actors.envs.wire import get_arrays, put_arrays
from system.codec import Message
from system.config import to_json
from system.errors import ConfigError, EnvironmentFault, RejectedChunk
from system.specs import EnvSpec


class ProcessEnv:
    """A SingleEnv in a process of its own; every call has a deadline.

    Starting and being ready are apart, so that several start at the same time; so are `begin` and
    `finish`, so that several step at the same time.

    The loop that uses it::

        envs = [ProcessEnv(config, while_waiting) for _ in range(2)]
        for env in envs:
            env.ready()
        while True:
            for env in envs:
                env.begin(Order(action=action))
            outcomes = [env.finish() for env in envs]

    Raises:
      ConfigError: an argument of the environment cannot be sent to another process.
    """

    spec: EnvSpec
    limits: dict[str, Limits]

    def __init__(self, config: EnvConfig, while_waiting: Waiting) -> None:
        self._config = config
        self._child = ChildProcess(while_waiting)
        try:
            request: Message = {"kind": "build", "env": to_json(config)}
            self._child.ask(request, deadline_s=config.build_deadline_s)
        except (TypeError, ValueError, OverflowError) as error:
            self._child.kill()
            raise ConfigError(
                f"env.args={config.args} cannot be sent to a process of its own ({error}); use "
                "plain numbers, texts, lists and maps, or env.isolate=false"
            ) from None

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def ready(self) -> None:
        """Waits until the environment is built.

        Raises:
          ConfigError: it cannot be built.
          EnvironmentFault: it raised, hung or died while being built.
        """
        answer = self._answer("built")
        try:
            low, high = get_arrays(answer["low"]), get_arrays(answer["high"])
            self.limits = {
                key: Limits(low=low[key].astype(np.float32), high=high[key].astype(np.float32))
                for key in low
            }
            self.spec = EnvSpec.from_json(json.loads(answer["spec"]))
        except (RejectedChunk, KeyError, TypeError, ValueError) as error:
            raise self._garbled(error) from None

    def begin(self, order: Order, *, deadline_s: float = 0.0) -> None:
        """Sends an order and does not wait.

        Args:
          order: a step or a reset.
          deadline_s: for it [s]; 0 is `env.step_deadline_s`.
        """
        request: Message = (
            {"kind": "reset", "seed": order.seed}
            if order.action is None
            else {"kind": "step", "action": put_arrays({"": order.action})}
        )
        self._child.ask(request, deadline_s=deadline_s or self._config.step_deadline_s)

    def finish(self) -> Observation | SingleStep:
        """What the order came to. Raises EnvironmentFault: it raised, hung or died."""
        answer = self._answer("observation", "step")
        try:
            observation = get_arrays(answer["observation"])
            if answer["kind"] == "observation":
                return observation
            return SingleStep(
                observation=observation,
                reward=float(answer["reward"]),
                terminated=bool(answer["terminated"]),
                truncated=bool(answer["truncated"]),
            )
        except (RejectedChunk, KeyError, TypeError, ValueError) as error:
            raise self._garbled(error) from None

    def reset(self, *, seed: int | None) -> Observation:
        """Starts an episode; returns the first observation."""
        self.begin(Order(seed=seed))
        observation = self.finish()
        assert isinstance(observation, dict)
        return observation

    def step(self, action: NDArray[np.float32]) -> SingleStep:
        """One agent step. action float32 [A]."""
        self.begin(Order(action=action))
        step = self.finish()
        assert isinstance(step, SingleStep)
        return step

    def close(self) -> None:
        """Frees the simulator if it lets us, and ends the process."""
        self.begin_close()
        self.finish_close()

    def begin_close(self) -> None:
        """Asks the process to end and does not wait."""
        deadline_s = min(CLOSE_DEADLINE_S, self._config.step_deadline_s)
        self._child.ask({"kind": "close"}, deadline_s=deadline_s)

    def finish_close(self) -> None:
        """Ends it, whatever it does."""
        self._child.close()

    def kill(self) -> None:
        """Ends it at once."""
        self._child.kill()

    def _answer(self, *kinds: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._child.answer()
        if answer.get("kind") == "refused":
            raise ConfigError(str(answer.get("text")))
        if answer.get("kind") == "fault":
            raise EnvironmentFault(str(answer.get("fault")), str(answer.get("text")))
        if answer.get("kind") not in kinds:
            raise self._garbled(f"not {' or '.join(kinds)}")
        return answer

    def _garbled(self, why: object) -> Died:
        self._child.kill()
        return Died(f"it answered what cannot be read and was killed: {why}")


class ProcessCopies:
    """Copies (see `Copies`), each in a process of its own; they are called at the same time.

    Raises:
      ConfigError: the environment cannot be built.
      EnvironmentFault: building it raised, hung or died.
    """

    def __init__(self, config: EnvConfig, *, num_copies: int, while_waiting: Waiting) -> None:
        self._config, self._while_waiting = config, while_waiting
        self._copies: list[ProcessEnv] = []
        try:
            for _ in range(num_copies):
                self._copies.append(ProcessEnv(config, while_waiting))
            for copy in self._copies:
                copy.ready()
        except BaseException:
            for copy in self._copies:
                copy.kill()
            raise
        self.spec, self.limits = self._copies[0].spec, self._copies[0].limits

    @property
    def pids(self) -> list[int]:
        """The process of each copy."""
        return [copy.pid for copy in self._copies]

    def run(self, orders: Sequence[Order]) -> list[Outcome]:
        """See `Copies`."""
        for copy, order in zip(self._copies, orders, strict=True):
            copy.begin(order)
        return [_outcome(copy) for copy in self._copies]

    def near(self, work: Callable[[], None]) -> bool:
        """See `Copies`; a copy that hangs is killed, so that every `run` returns."""
        work()
        return True

    def rebuild(self, copy: int, seed: int) -> Observation:
        """See `Copies`."""
        self._copies[copy].close()
        fresh = self._copies[copy] = ProcessEnv(self._config, self._while_waiting)
        fresh.ready()
        fresh.begin(Order(seed=seed), deadline_s=self._config.build_deadline_s)
        observation = fresh.finish()
        assert isinstance(observation, dict)
        return observation

    def close(self) -> None:
        """See `Copies`."""
        for copy in self._copies:
            copy.begin_close()
        while self._copies:
            self._copies.pop().finish_close()


def _outcome(copy: ProcessEnv) -> Outcome:
    try:
        return copy.finish()
    except EnvironmentFault as fault:
        return fault
