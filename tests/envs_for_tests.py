"""Small gymnasium environments with known behavior: `tests.envs_for_tests:Counting-v0`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import gymnasium
import numpy as np
from gymnasium import spaces

PREFIX = "tests.envs_for_tests:"


@dataclass
class Plan:
    """What goes wrong in the lives of one environment, by (life, step); step 0 is the reset."""

    misbehave: dict[tuple[int, int], str] = field(default_factory=dict)
    release: threading.Event = field(default_factory=threading.Event)
    lives: int = 0
    closed: list[int] = field(default_factory=list)


PLANS: dict[str, Plan] = {}


class Counting(gymnasium.Env):
    """Shows [episode seed, step]; rewards each step with its number; ends after `length` steps."""

    observation_space = spaces.Box(np.array([-np.inf, 0.0]), np.array([np.inf, 100.0]))
    action_space = spaces.Box(-2.0, 2.0, (2,))

    def __init__(self, length=5, plan="", terminates=True):
        self.length, self.terminates = length, terminates
        self.plan = PLANS.setdefault(plan, Plan())
        self.life = self.plan.lives
        self.plan.lives += 1
        self.total = 0
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_index = 0
        self.mark = float(self.np_random.integers(1000))
        return self._observe(self.plan.misbehave.get((self.life, 0))), {}

    def step(self, action):
        self.actions.append(action)
        self.step_index += 1
        self.total += 1
        seen = self._observe(self.plan.misbehave.get((self.life, self.total)))
        over = self.step_index >= self.length
        reward = float(self.step_index)
        return seen, reward, over and self.terminates, over and not self.terminates, {}

    def _observe(self, kind):
        if kind == "raise":
            raise RuntimeError("the motor is on fire")
        if kind == "hang":
            self.plan.release.wait()
        seen = np.array([self.mark, self.step_index], np.float32)
        if kind == "nan":
            seen[0] = np.nan
        if kind == "bounds":
            seen[1] = 150.0
        return seen[:1] if kind == "shape" else seen

    def close(self):
        self.plan.closed.append(self.life)


class Walk(gymnasium.Env):
    """A random walk with a Dict observation and its own randomness; ends at random."""

    observation_space = spaces.Dict(
        {
            "where": spaces.Box(-np.inf, np.inf, (2,)),
            "nested": spaces.Dict(
                {"cell": spaces.Discrete(4, start=1), "on": spaces.MultiBinary(3)}
            ),
        }
    )
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = self.np_random.normal(size=2).astype(np.float32)
        return self._see(), {}

    def step(self, action):
        self.where = self.where + action + self.np_random.normal(size=2).astype(np.float32)
        draw = self.np_random.uniform()
        return self._see(), float(self.where.sum()), bool(draw < 0.15), bool(draw > 0.9), {}

    def _see(self):
        on = (self.where > 0).astype(np.int8)
        return {
            "where": self.where.copy(),
            "nested": {"cell": 1 + int(on[0] + 2 * on[1]), "on": np.array([*on, 1], np.int8)},
        }


class DiscreteWalk(Walk):
    """The same with three discrete actions that count from 5."""

    action_space = spaces.Discrete(3, start=5)

    def step(self, action):
        assert action in (5, 6, 7)
        return super().step(np.float32([action - 6, 0]))


class Shows(gymnasium.Env):
    """Shows a given space and takes actions of another; cannot be stepped."""

    def __init__(self, observation=None, action=None):
        self.observation_space = observation or spaces.Box(-1, 1, (2,))
        self.action_space = action or spaces.Box(-1, 1, (2,))


class Painter(Walk):
    """The walk as a picture: a bright square where it stands."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        frame = np.zeros((80, 100, 3), np.uint8)
        row, column = (20 + 2 * np.clip(self.where, -10, 10)).astype(int)
        frame[row : row + 20, column : column + 20] = 255
        return frame


class Sights(gymnasium.Env):
    """Shows an image, numbers and a choice; rewards action 1 while the image is bright."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (16, 16, 3), np.uint8),
        gray=spaces.Box(0, 255, (24, 16), np.uint8),
        numbers=spaces.Box(-np.inf, np.inf, (2,)),
        choice=spaces.Discrete(3),
    )

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length=20, wrong="", render_mode=None):
        self.render_mode = render_mode
        self.length, self.wrong = length, wrong

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.index = 0
        return self._see(), {}

    def step(self, action):
        reward = float(action == self.bright)
        self.index += 1
        return self._see(), reward, False, self.index >= self.length, {}

    def _see(self):
        self.bright = int(self.np_random.integers(2))
        image = np.full((16, 16, 3), 200 * self.bright, np.uint8)
        if self.wrong == "dtype":
            image = image / 255
        return {
            "image": image[:8, :8] if self.wrong == "shape" else image,
            "gray": np.full((24, 16), self.index, np.uint8),
            "numbers": np.float32([self.index, self.bright]),
            "choice": self.index % 3,
        }


for name, cls in {
    "Counting": Counting, "Walk": Walk, "DiscreteWalk": DiscreteWalk, "Shows": Shows,
    "Painter": Painter, "Sights": Sights,
}.items():  # fmt: skip
    gymnasium.register(f"{name}-v0", entry_point=cls)
gymnasium.register("Limited-v0", entry_point=Counting, max_episode_steps=3)
