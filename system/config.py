"""Frozen configs: how they are printed, saved, read back and overridden; and the two shared ones.

A config is complete before anything is built. A preset is a Python function that returns one
(`deploy/presets.py`); `--set learner.batch_size=8` replaces one leaf by its dotted path.
"""

from __future__ import annotations

import hashlib
import json
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from system.checks import (
    MOST_LAYERS,
    MOST_WIDTH,
    require_at_most,
    require_pattern,
    require_positive,
    require_share,
)
from system.errors import ConfigError, nearest

ConfigT = TypeVar("ConfigT")
MAX_NUMBER = 2**62
"""Greatest number of a setting, either sign."""
MAX_DEPTH = 16
"""Of lists and maps in one setting; copying and printing them recurses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Sizes of the networks; one row of the size table (DreamerV3, Nature 2025, model sizes)."""

    size: str
    """Name of the row: nano, 1m, ..., 400m."""
    deter: int
    """D: deterministic recurrent units."""
    hidden: int
    """Units of the layers around the recurrence."""
    classes: int
    """K: classes of each stochastic group."""
    units: int
    """Units of the encoder, decoder and head layers."""
    stoch: int = 32
    """S: stochastic groups."""
    blocks: int = 8
    """Diagonal blocks of the recurrence."""
    unimix: float = 0.01
    """Share of the uniform distribution mixed into every categorical [ratio]."""
    bins: int = 255
    """V: bins of the two-hot reward and value heads; odd."""
    encoder_layers: int = 3
    decoder_layers: int = 3
    policy_layers: int = 3
    value_layers: int = 3
    reward_layers: int = 1
    continue_layers: int = 1
    depth: int = 4
    """Channels of the image networks, in units of which each layer has 2 to 4."""
    encoder_keys: str = ".*"
    """Which observations the world model sees: a regular expression for their whole names."""
    decoder_keys: str = ".*"
    """Which observations it learns to predict; likewise."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int":
                most = MOST_LAYERS if field.name.endswith("_layers") else MOST_WIDTH
                require_at_most("model", self, field.name, most)
        for name in ("encoder_keys", "decoder_keys"):
            require_pattern(f"model.{name}", getattr(self, name))
        require_share("model", self, "unimix")
        if self.deter % self.blocks:
            raise ConfigError(
                f"model.deter={self.deter} must be a multiple of model.blocks={self.blocks}"
            )
        if self.classes > 255:
            raise ConfigError(f"model.classes={self.classes} must be at most 255 (stored as bytes)")
        if self.bins % 2 == 0 or self.bins < 3:
            raise ConfigError(f"model.bins={self.bins} must be odd and at least 3: one bin is zero")

    @property
    def feature(self) -> int:
        """Width of the feature every head reads: D + S * K."""
        return self.deter + self.stoch * self.classes


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig:
    """What actors write, how much is kept, and how often it is trained on."""

    ratio: float
    """Replayed Steps per inserted Step (agent steps, not simulator steps)."""
    chunk_length: int
    """L: Steps in one sealed Chunk [agent steps]."""
    capacity_bytes: int = 2 * 1024**3
    """Budget of the learner's arena, its latents included [bytes]."""
    memory_bytes: int = 8 * 1024**3
    """A larger arena is mapped from a file in the run folder, reserved at the start [bytes]."""
    min_steps: int = 1024
    """Inserted Steps before the first update [agent steps]."""
    lead_chunks: int = 1
    """Chunks per copy that an actor may be ahead of the learner's reading."""
    log_bytes: int = 256 * 1024**2
    """Budget of the log in Redis; trimming below the durable cursor keeps it [bytes]."""
    segment_bytes: int = 64 * 1024**2
    """A segment file is sealed when it reaches this size [bytes]."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_positive("replay", self, field.name)
        if self.ratio < 1:
            raise ConfigError(
                f"replay.ratio={self.ratio} must be >= 1: every fresh Step is replayed at least "
                "once, or its latent would never be known"
            )


def to_json(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """Plain data for `config.json`."""
    return asdict(config)


def from_json(cls: type[ConfigT], data: dict[str, Any], path: str = "") -> ConfigT:
    """Inverse of `to_json`.

    Raises:
      ConfigError: an unknown or missing key, or a value of the wrong type, named by dotted path.
    """
    if not isinstance(data, dict):
        where = path.removesuffix(".") or "config"
        raise ConfigError(f"{where}={_shown(data)} must be a section of settings")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            known = [path + name for name in names]
            raise ConfigError(f"unknown setting {path + key!r}; {nearest(path + key, known)}")
    values = {}
    for key, value in data.items():
        hint = hints[key]
        values[key] = (
            from_json(hint, value, f"{path}{key}.")
            if isinstance(hint, type) and is_dataclass(hint)
            else _convert(f"{path}{key}", hint, value)
        )
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{path or 'config'}: {error}") from None


def override(config: ConfigT, *assignments: str) -> ConfigT:
    """Returns `config` with leaves replaced: `override(config, "learner.batch_size=8")`.

    All are applied before the result is checked, so their order does not matter.

    Raises:
      ConfigError: no `=`, an unknown key (nearest match named) or a value that cannot be used.
    """
    data = to_json(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment!r} needs the form section.key=value")
        _assign(config, data, path.split("."), text, path)
    return from_json(type(config), data)


def leaves(config: Any, path: str = "") -> list[str]:  # noqa: ANN401
    """Dotted paths of every setting."""
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        name = path + field.name
        found += leaves(value, f"{name}.") if is_dataclass(value) else [name]
    return found


def digest(*configs: Any) -> str:  # noqa: ANN401
    """16 hex digits over the given configs; equal exactly if every field is equal."""
    body = _plain([asdict(config) for config in configs])
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """32.0 is written as 32: the two are equal."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _assign(config: Any, data: dict[str, Any], path: list[str], text: str, whole: str) -> None:  # noqa: ANN401
    """Writes one value into the plain data of `config`, if there is such a leaf."""
    names = [field.name for field in fields(config)]
    if path[0] not in names:
        section = whole.removesuffix(".".join(path))
        known = {section + name for name in (*leaves(config), *names)}
        raise ConfigError(f"unknown setting {whole!r}; {nearest(whole, known)}")
    current = getattr(config, path[0])
    if is_dataclass(current):
        if len(path) == 1:
            inner = ", ".join(field.name for field in fields(current))
            raise ConfigError(f"{whole!r} is a section; set one of: {inner}")
        _assign(current, data[path[0]], path[1:], text, whole)
    elif len(path) > 1:
        raise ConfigError(f"unknown setting {whole!r}; {path[0]!r} is a value, not a section")
    else:
        value = parse_value(text)
        # A word may look like a number: env.pixels.camera=1.
        data[path[0]] = text if isinstance(current, str) and not isinstance(value, str) else value


def parse_value(text: str) -> Any:  # noqa: ANN401
    """Reads a command-line value: JSON if it is JSON, else the text itself."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _convert(path: str, hint: Any, value: Any) -> Any:  # noqa: ANN401
    """Checks a leaf against its type hint; ints written as floats (1e5) count as ints."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in args:
            word = value if isinstance(value, str) else _shown(value)
            raise ConfigError(f"{path}={_shown(value)}; {nearest(word[:80], map(str, args))}")
        return value
    if origin in (dict, tuple, list):
        return _container(path, origin, args, value)
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise ConfigError(f"{path}={_shown(value)} must be a finite number")
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    allowed = args or (hint,)
    if type(value) not in allowed and hint is not Any:
        wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        raise ConfigError(f"{path}={_shown(value)} must be of type {wanted}")
    return value


def _container(path: str, kind: type, args: tuple[Any, ...], value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict if kind is dict else list | tuple):
        raise ConfigError(f"{path}={_shown(value)} must be a {kind.__name__}")
    if _is_deeper(value, MAX_DEPTH):
        raise ConfigError(f"{path} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict) and isinstance(args[1], type) and is_dataclass(args[1]):
        return {key: from_json(args[1], inner, f"{path}.{key}.") for key, inner in value.items()}
    return tuple(value) if kind is tuple else value


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _shown(value: object) -> str:
    """A value for a message; the repr of what is nested may not end."""
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return "a huge number"
    return repr(value)[:80]
