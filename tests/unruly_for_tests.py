"""An environment that misbehaves when the action says so: `tests.unruly_for_tests:Unruly-v0`."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

NAME = "tests.unruly_for_tests:Unruly-v0"

KINDS = ("good", "raise", "nan", "shape", "hang", "gil", "segv", "exit", "kill", "stop", "meet",
         "child")  # fmt: skip


def action_for(*kinds):
    """Action [N, 1] that makes copy i do kinds[i]."""
    return np.float32([[KINDS.index(kind) / len(KINDS)] for kind in kinds])


class Unruly(gymnasium.Env):
    """Shows [a number of its own, step]; rewards each step with its number."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, build="good", reset="good", folder="", together=0):
        self.on_reset, self.folder, self.together = reset, Path(folder), together
        self.do(build)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.do(self.on_reset)
        self.mark, self.index = float(self.np_random.integers(1 << 20)), 0
        return self.seen(), {}

    def step(self, action):
        kind = KINDS[round(float(action[0]) * len(KINDS))]
        self.index += 1
        reward = float(self.do(kind) or self.index)
        seen = self.seen()
        if kind == "nan":
            seen[0] = np.nan
        return seen[:1] if kind == "shape" else seen, reward, False, False, {}

    def seen(self):
        return np.float32([self.mark, self.index])

    def do(self, kind):
        return getattr(self, f"do_{kind}", int)()

    def do_raise(self):
        raise RuntimeError("the motor is on fire")

    def do_hang(self):
        time.sleep(60)

    def do_gil(self):
        ctypes.PyDLL(None).sleep(60)

    def do_segv(self):
        ctypes.string_at(0)

    def do_exit(self):
        os._exit(3)

    def do_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_stop(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def do_meet(self):
        """Waits until `together` copies are here at the same time."""
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < self.together:
            time.sleep(0.005)

    def do_child(self):
        """Starts a process of its own; the reward is its number."""
        return subprocess.Popen(["sleep", "60"]).pid


gymnasium.register("Unruly-v0", entry_point=Unruly)
