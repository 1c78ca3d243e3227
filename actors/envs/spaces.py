"""gymnasium spaces as our specs: what is supported, and how values are read and written.

Observations become arrays by key: a plain space is `vector` or `image`, a nested one `outer/inner`.
Numbers are float32, discrete values one-hot, images uint8 [H, W, C]. All else is refused by name,
unless `env.keys` leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.envs.pixels import IMAGE_KEY
from actors.envs.protocol import Observation
from actors.envs.simulator import Limits
from system.errors import ConfigError, EnvironmentFault
from system.specs import ActionSpec, ArraySpec
from system.types import Array

READ = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
PLAIN_KEY = "vector"
LEAST_PIXELS = 8
"""Along a side; bytes are an image from here on. Fewer are codes, as in MiniGrid: numbers."""

Convert = Callable[[Any], Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Leaf:
    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    convert: Convert
    dtype: str = "float32"
    limits: Limits | None = None


class ObservationReader:
    """Reads values of one observation space.

    Args:
      env: its name.
      space: what it shows.
      keys: regular expression for the names of what is read.

    Raises:
      ConfigError: the space, or a part that is read, is not supported; names the part.
    """

    def __init__(self, env: str, space: spaces.Space[Any], keys: str = ".*") -> None:
        parts = _parts(space, ())
        wanted = kept(env, [_name(path, part) for path, part in parts], keys)
        self._leaves: dict[str, _Leaf] = {}
        for path, part in parts:
            key = _name(path, part)
            if key not in wanted:
                continue
            if not isinstance(part, READ):
                raise _unsupported(env, parts, path, part)
            leaf = _leaf(env, part, path)
            if key in self._leaves:
                raise ConfigError(f"environment {env!r} shows two observations named {key!r}")
            self._leaves[key] = leaf
        self.specs = {
            key: ArraySpec(shape=leaf.shape, dtype=leaf.dtype) for key, leaf in self._leaves.items()
        }
        self.limits = {key: leaf.limits for key, leaf in self._leaves.items() if leaf.limits}

    def read(self, value: Any) -> Observation:  # noqa: ANN401
        """Fresh arrays by key. Raises EnvironmentFault: a part is missing."""
        observation = {}
        for key, leaf in self._leaves.items():
            part = value
            try:
                for step in leaf.path:
                    part = part[step]
            except (KeyError, IndexError, TypeError) as error:
                raise EnvironmentFault(
                    "outside_space", f"shows nothing under {key!r}, which its space promises"
                ) from error
            try:
                observation[key] = leaf.convert(part)
            except (TypeError, ValueError) as error:
                raise EnvironmentFault("outside_space", f"{key!r} is no array: {error}") from error
        return observation


class ActionWriter:
    """Turns executed actions (float32 [A]) into values of one action space.

    Raises:
      ConfigError: the space is not supported, or has no finite bounds.
    """

    def __init__(self, env: str, space: spaces.Space[Any]) -> None:
        self.native: Callable[[NDArray[np.float32]], Any]
        if isinstance(space, spaces.Discrete):
            start = int(space.start)
            self.spec = ActionSpec(kind="discrete", size=int(space.n))
            self.native = lambda action: int(np.argmax(action)) + start
            return
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise ConfigError(
                f"environment {env!r} takes actions of {space}; only a Box of floats or a "
                "Discrete space is supported: wrap it (gymnasium.ActionWrapper) so that one of "
                "these remains"
            )
        self.spec = ActionSpec(kind="continuous", size=int(np.prod(space.shape)))
        scale = action_scale(env, space.low, space.high)
        shape, dtype = space.shape, space.dtype
        self.native = lambda action: scale(action).reshape(shape).astype(dtype)


def action_scale(
    env: str, low: NDArray[Any], high: NDArray[Any]
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """The map from [-1, 1] to finite bounds, each [...]; gives float64 [A].

    Raises:
      ConfigError: a bound is infinite (or 1e10, MuJoCo's word for it).
    """
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (low, high))
    if not np.all(np.abs(np.stack([low, high])) < 1e10):
        raise ConfigError(
            f"environment {env!r} takes actions without finite bounds (low {low.tolist()}, high "
            f"{high.tolist()}); give its action space the bounds the robot has"
        )
    center, half = (low + high) / 2, (high - low) / 2
    return lambda action: np.minimum(np.maximum(center + half * action, low), high)


def kept(env: str, names: Iterable[str], keys: str) -> set[str]:
    """Those names which the regular expression `env.keys` matches as a whole.

    Raises:
      ConfigError: there is none; lists what there is.
    """
    names = set(names)
    found = {name for name in names if re.fullmatch(keys, name)}
    if names and not found:
        raise ConfigError(
            f"env.keys={keys!r} matches no observation of {env!r}; there are: "
            f"{', '.join(sorted(names))}"
        )
    return found


_Path = tuple[str | int, ...]


def _key(path: _Path) -> str:
    return "/".join(str(part) for part in path)


def _name(path: _Path, space: spaces.Space[Any]) -> str:
    """What the observation is called; one without a name by what it is."""
    is_image = isinstance(space, spaces.Box) and _looks_like_image(space)
    return _key(path) or (IMAGE_KEY if is_image else PLAIN_KEY)


def _parts(space: spaces.Space[Any], path: _Path) -> list[tuple[_Path, spaces.Space[Any]]]:
    """Everything that is no Dict and no Tuple, and where it lies."""
    inner: Iterable[tuple[str | int, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        inner = space.items()
    elif isinstance(space, spaces.Tuple):
        inner = enumerate(space.spaces)
    else:
        return [(path, space)]
    return [part for key, each in inner for part in _parts(each, (*path, key))]


def _leaf(env: str, space: spaces.Space[Any], path: _Path) -> _Leaf:
    """Of a space that is one of READ."""
    if isinstance(space, spaces.Box):
        return _box(env, space, path)
    if isinstance(space, spaces.MultiBinary):
        shape = space.shape
        return _Leaf(path=path, shape=shape, convert=_floats(shape))
    if isinstance(space, spaces.Discrete):
        counts, start = np.array([space.n]), np.array([space.start])
    else:
        assert isinstance(space, spaces.MultiDiscrete)
        counts, start = space.nvec.reshape(-1), np.broadcast_to(space.start, space.nvec.shape)
    convert = _one_hot(counts, start.reshape(-1))
    return _Leaf(path=path, shape=(int(counts.sum()),), convert=convert)


def _box(env: str, space: spaces.Box, path: _Path) -> _Leaf:
    if _looks_like_image(space):
        return _image(env, space, path)
    shape = space.shape or (1,)
    low, high = (np.asarray(b, np.float64).reshape(shape) for b in (space.low, space.high))
    bounded = np.any(np.isfinite(low) | np.isfinite(high))
    limits = Limits.around(low, high) if bounded else None
    return _Leaf(path=path, shape=shape, convert=_floats(space.shape), limits=limits)


def _looks_like_image(space: spaces.Box) -> bool:
    sides = len(space.shape)
    if space.dtype == np.uint8:
        # The second longest: channels may be first or last, and stacks are refused as such.
        return sides >= 2 and sorted(space.shape)[-2] >= LEAST_PIXELS
    return sides == 3 and space.shape[2] in (1, 3, 4) and min(space.shape[:2]) >= 16


def _image(env: str, space: spaces.Box, path: _Path) -> _Leaf:
    """uint8 [H, W, C], or [H, W] for one channel."""
    shape = (*space.shape, 1) if len(space.shape) == 2 else space.shape
    fix = ""
    if space.dtype != np.uint8:
        fix = f"images of {space.dtype}: scale them to 0..255 and make them uint8"
    elif len(shape) > 3:
        fix = "stacked images: show the newest alone, the world model remembers the others"
    elif shape[0] in (1, 3, 4) and min(shape[1:]) >= LEAST_PIXELS:
        fix = "channels first: transpose to (height, width, channels)"
    if fix:
        where = f" under {_key(path)!r}" if path else ""
        raise ConfigError(f"environment {env!r} shows {space}{where}, {fix}")
    # What is not uint8 stays as it is, to be refused with the rest of its row.
    return _Leaf(
        path=path, shape=shape, dtype="uint8",
        convert=lambda value: np.array(value).reshape(np.shape(value)[:2] + shape[2:])
        if shape != space.shape else np.array(value),
    )  # fmt: skip


def _floats(shape: tuple[int, ...]) -> Convert:
    if shape:
        return lambda value: np.array(value, dtype=np.float32)
    return lambda value: np.array(value, dtype=np.float32).reshape(-1)


def _one_hot(counts: NDArray[np.int64], start: NDArray[np.int64]) -> Convert:
    """One-hot per choice, side by side: counts (3, 2) and value (1, 1) give 0 1 0 | 0 1."""
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def convert(value: Any) -> NDArray[np.float32]:  # noqa: ANN401
        row = np.zeros(int(counts.sum()), np.float32)
        choices = np.asarray(value).reshape(-1) - start
        if np.any((choices < 0) | (choices >= counts)):
            raise EnvironmentFault("outside_space", f"{value!r} is none of {counts.tolist()}")
        row[offsets + choices] = 1
        return row

    return convert


def _unsupported(
    env: str, parts: list[tuple[_Path, spaces.Space[Any]]], path: _Path, space: spaces.Space[Any]
) -> ConfigError:
    """Names the part, and the setting that leaves out all like it."""
    good = [re.escape(_key(where)) for where, part in parts if isinstance(part, READ)]
    where = f" under {_key(path)!r}" if path else ""
    fix = f"; leave it out: --set env.keys='{'|'.join(good)}'" if good and path else ""
    return ConfigError(
        f"environment {env!r} shows {type(space).__name__}{where}, which is not supported: text, "
        "graphs and sequences are not; numbers and images (Box), Discrete, MultiDiscrete, "
        f"MultiBinary and Dicts or Tuples of these are{fix}"
    )
