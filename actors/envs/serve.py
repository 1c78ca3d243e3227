"""Inside the process of an isolated copy: builds the environment and answers for it.

::

    request                                     answer
    {"kind": "build", "env": config}            {"kind": "built", "spec": JSON, "low", "high"}
    {"kind": "reset", "seed": n or nil}         {"kind": "observation", "observation"}
    {"kind": "step", "action": {"": array}}     {"kind": "step", "observation", "reward", ...}
    {"kind": "close"}                           {"kind": "closed"}, and the process ends

Instead of each: {"kind": "fault", "fault": word, "text"} or {"kind": "refused", "text"}.
"""

from __future__ import annotations

import json
import socket
import traceback
from typing import Any

import numpy as np

from actors.config import EnvConfig
from actors.envs.registry import make_single
from actors.envs.simulator import SimulatorEnv
from actors.envs.wire import Inbox, frame, get_arrays, put_arrays
from system.codec import Message
from system.config import from_json
from system.errors import ConfigError, EnvironmentFault

TEXT_CHARS = 16_000
"""Of a traceback its end is kept."""


def serve(parent: socket.socket) -> None:
    """Answers one request after another, until `close` or until the parent is gone."""
    inbox, copy = Inbox(parent), _Copy()
    while True:
        try:
            request = inbox.receive()
        except (EOFError, ConnectionError):
            return
        if request is None:
            continue
        answer = {**_answer(copy, request), "id": request["id"]}
        try:
            data = frame(answer)
        except ValueError as error:
            data = frame({**_fault("outside_space", str(error)), "id": request["id"]})
        parent.sendall(data)
        if request["kind"] == "close":
            return


class _Copy:
    """The environment, once it is built."""

    env: SimulatorEnv

    def build(self, request: Any) -> Message:  # noqa: ANN401
        self.env = make_single(from_json(EnvConfig, request["env"]))
        limits = self.env.limits
        return {
            "kind": "built",
            "spec": json.dumps(self.env.spec.to_json()),
            "low": put_arrays({key: limit.low for key, limit in limits.items()}),
            "high": put_arrays({key: limit.high for key, limit in limits.items()}),
        }

    def reset(self, request: Any) -> Message:  # noqa: ANN401
        observation = self.env.reset(seed=request["seed"])
        return {"kind": "observation", "observation": put_arrays(observation)}

    def step(self, request: Any) -> Message:  # noqa: ANN401
        step = self.env.step(get_arrays(request["action"])[""].astype(np.float32, copy=False))
        return {
            "kind": "step",
            "observation": put_arrays(step.observation),
            "reward": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }

    def close(self, request: Any) -> Message:  # noqa: ANN401
        self.env.close()
        return {"kind": "closed"}


def _answer(copy: _Copy, request: Message) -> Message:
    verbs = {"build": copy.build, "reset": copy.reset, "step": copy.step, "close": copy.close}
    try:
        return verbs[str(request["kind"])](request)
    except ConfigError as error:
        return {"kind": "refused", "text": str(error)}
    except EnvironmentFault as error:
        return _fault(error.kind, str(error).removeprefix(f"{error.kind}: "))
    except Exception:  # noqa: BLE001 - user code may raise anything; it is the answer
        return _fault("raised", traceback.format_exc())


def _fault(kind: str, text: str) -> Message:
    return {"kind": "fault", "fault": kind, "text": text[-TEXT_CHARS:]}
