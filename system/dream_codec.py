"""A DreamReport as bytes, for the control plane and the run folder.

::

    version (1) | length of the header (4) | header, msgpack | float32 and uint8, one after another

Bounded, checked, never pickled: whatever arrives, either a report comes out or RejectedChunk.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.dream import Band, DreamReport, Example, Film, Floats, Gap
from system.errors import RejectedChunk
from system.message import FORMAT_VERSION, Message, check_frame, is_count, packb, unpackb

MAX_DREAM_BYTES = 4 * 1024**2
MAX_HEADER_BYTES = 256 * 1024
MAX_STEPS = 4096
"""Of context and horizon together."""
MAX_EXAMPLES = 64
MAX_BANDS = 256
MAX_FILMS = 16
MAX_PIXELS = 4096
"""Along each side of a film."""
MAX_NAME_CHARS = 200

_PREFIX = struct.Struct("<BI")
_FLOAT, _BYTE = np.dtype("<f4"), np.dtype("u1")
_COUNTS = ("update", "frames", "context_steps", "horizon", "starts", "samples")
_NUMBERS = ("time_s", "elapsed_s")
_MAYBE_COUNTS = ("parting_step", "earlier_update")
_GAP = ("real_return", "dreamed_return", "policy_return", "ratio", "policy_ratio")
_FIELDS = {*_COUNTS, *_NUMBERS, *_MAYBE_COUNTS, "gap", "examples"}


def encode_dream(report: DreamReport) -> bytes:
    """Packs a report.

    Raises:
      ValueError: a number that is not finite, or more than `MAX_DREAM_BYTES`.
    """
    header: dict[str, object] = {name: getattr(report, name) for name in (*_COUNTS, *_MAYBE_COUNTS)}
    header |= {name: float(getattr(report, name)) for name in _NUMBERS}
    header["gap"] = {name: float(getattr(report.gap, name)) for name in _GAP}
    header["examples"] = [
        {
            "steps": example.steps,
            "vectors": [band.name for band in example.vectors],
            "images": [[film.name, *film.real.shape[1:]] for film in example.images],
        }
        for example in report.examples
    ]
    packed = packb(header)
    pieces = [_PREFIX.pack(FORMAT_VERSION, len(packed)), packed]
    pieces += [array.tobytes() for array in _arrays(report)]
    data = b"".join(pieces)
    try:
        decode_dream(data)
    except RejectedChunk as error:
        raise ValueError(f"this dream does not travel: {error}") from None
    return data


def decode_dream(data: bytes) -> DreamReport:
    """Reads what `encode_dream` made; its arrays are read-only views of `data`.

    Raises:
      RejectedChunk: reason oversize, truncated, version, header, length or value.
    """
    check_frame(data, MAX_DREAM_BYTES)
    if len(data) < _PREFIX.size:
        raise RejectedChunk("truncated", f"{len(data)} bytes are less than the prefix")
    _, header_length = _PREFIX.unpack_from(data)
    if header_length > MAX_HEADER_BYTES:
        raise RejectedChunk("oversize", f"header of {header_length} bytes")
    start = _PREFIX.size + header_length
    if len(data) < start:
        raise RejectedChunk("truncated", f"header of {header_length} bytes is cut off")
    header = unpackb(data[_PREFIX.size : start])
    _check_header(header)
    return _Reader(memoryview(data), start).report(header)


def _arrays(report: DreamReport) -> Iterator[NDArray[np.generic]]:
    """Every array, in the order of the bytes."""
    yield np.asarray(report.model_error, _FLOAT)
    yield np.asarray(report.repeat_error, _FLOAT)
    if report.earlier_error is not None:
        yield np.asarray(report.earlier_error, _FLOAT)
    for example in report.examples:
        for band in (*example.vectors, example.reward, example.continues):
            for line in (band.real, band.mean, band.low, band.high):
                yield np.asarray(line, _FLOAT)
        for film in example.images:
            yield np.asarray(film.real, _BYTE)
            yield np.asarray(film.dreamed, _BYTE)


class _Reader:
    """Takes one array after the other; what is missing, left over or not finite is refused."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data, self._position = data, start

    def report(self, header: Message) -> DreamReport:
        """`header` is checked."""
        horizon, described = header["horizon"], header.pop("examples")
        assert isinstance(horizon, int)
        assert isinstance(described, list)
        gap = header.pop("gap")
        assert isinstance(gap, dict)
        report = DreamReport(
            **header,  # type: ignore[arg-type]
            gap=Gap(**gap),
            model_error=self._floats(horizon),
            repeat_error=self._floats(horizon),
            earlier_error=None if header["earlier_update"] is None else self._floats(horizon),
            examples=[self._example(**each) for each in described],
        )
        if self._position != len(self._data):
            raise RejectedChunk("length", f"{len(self._data) - self._position} bytes too many")
        return report

    def _example(self, steps: int, vectors: list[str], images: list[list[object]]) -> Example:
        bands = [self._band(name, steps) for name in (*vectors, "reward", "continues")]
        films = [self._film(str(name), (steps, *shape)) for name, *shape in images]  # type: ignore[arg-type]
        return Example(vectors=bands[:-2], images=films, reward=bands[-2], continues=bands[-1])

    def _band(self, name: str, steps: int) -> Band:
        real, mean, low, high = (self._floats(steps) for _ in range(4))
        return Band(name=name, real=real, mean=mean, low=low, high=high)

    def _film(self, name: str, shape: tuple[int, ...]) -> Film:
        real, dreamed = (self._take(_BYTE, math.prod(shape)).reshape(shape) for _ in range(2))
        return Film(name=name, real=real, dreamed=dreamed)

    def _floats(self, count: int) -> Floats:
        values = self._take(_FLOAT, count)
        if not np.isfinite(values).all():
            raise RejectedChunk("value", "a number is not finite")
        return values

    def _take(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        start = self._position
        self._position += count * dtype.itemsize
        if self._position > len(self._data):
            raise RejectedChunk("length", "an array is cut off")
        return np.frombuffer(self._data[start : self._position], dtype)


def _check_header(header: Message) -> None:
    """Raises RejectedChunk unless every field is there and of its kind."""
    if header.keys() != _FIELDS:
        raise RejectedChunk("header", "the fields are not those of a dream")
    proper = (
        all(is_count(header[name]) for name in _COUNTS)
        and all(_is_number(header[name]) for name in _NUMBERS)
        and all(header[name] is None or is_count(header[name]) for name in _MAYBE_COUNTS)
        and _is_gap(header["gap"])
    )
    if not proper:
        raise RejectedChunk("value", "a number of the dream is not one, or cannot be")
    context, horizon, parting = header["context_steps"], header["horizon"], header["parting_step"]
    assert isinstance(context, int)
    assert isinstance(horizon, int)
    if not (horizon > 0 and context > 0 and context + horizon <= MAX_STEPS):
        raise RejectedChunk("value", f"{context} Steps of context, {horizon} of horizon")
    if parting is not None and not 0 < parting <= horizon:  # type: ignore[operator]
        raise RejectedChunk("value", f"parting at {parting} of {horizon} Steps")
    examples = header["examples"]
    if not isinstance(examples, list) or len(examples) > MAX_EXAMPLES:
        raise RejectedChunk("header", f"examples are not a list of at most {MAX_EXAMPLES}")
    if not all(_is_example(example, context, context + horizon) for example in examples):
        raise RejectedChunk("header", "an example is not described as it should be")


def _is_number(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_gap(value: object) -> bool:
    return (
        isinstance(value, dict) and value.keys() == {*_GAP} and all(map(_is_number, value.values()))
    )


def _is_example(value: object, context: int, most_steps: int) -> bool:
    if not isinstance(value, dict) or value.keys() != {"steps", "vectors", "images"}:
        return False
    steps, vectors, images = value["steps"], value["vectors"], value["images"]
    return (
        is_count(steps)
        and context < steps <= most_steps
        and isinstance(vectors, list)
        and len(vectors) <= MAX_BANDS
        and all(map(_is_name, vectors))
        and isinstance(images, list)
        and len(images) <= MAX_FILMS
        and all(map(_is_film, images))
    )


def _is_film(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 4 or not _is_name(value[0]):
        return False
    shape = value[1:]
    return all(is_count(n) and 0 < n <= MAX_PIXELS for n in shape) and shape[2] in (1, 3)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS
