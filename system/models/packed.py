"""Weights laid out for the kernels' products, and room for what their gradients need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from system.models import records
from system.models.kernels import call, max_threads, rounds

PANEL, TILE, DEEP = 32, 16, 32
"""Columns of a panel; of a bfloat16 tile; and its rows. As in `native/matrix.h`."""
MOST_ROUNDED = 16_384
"""Rows of a weight in bfloat16: their factors lie on a thread's stack, 64 bytes for each."""


class Made(NamedTuple):
    """What a stack of Blocks has made of some rows."""

    tapes: list[LayerTape]
    """Each [rows, 1, ...]; none where there will be no gradient."""
    out: Tensor
    """float32 [rows, out]."""


@dataclass(slots=True)
class Memory:
    """What need not be done twice while no weight changes. What addresses stand for is kept."""

    matrices: dict[Any, tuple[records.Matrix, Tensor]] = field(default_factory=dict)
    """Weights laid out, by address, shape, strides and precision."""
    made: dict[Any, tuple[Made, Tensor, Tensor]] = field(default_factory=dict)
    """By addresses of rows and of the first weight."""


_memory: Memory | None = None


@contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """Inside, no weight changes: what has been laid out or made is found again in `memory`."""
    global _memory
    before, _memory = _memory, memory
    try:
        yield
    finally:
        _memory = before


def remember(rows: Tensor, weight: Tensor, made: Made) -> None:
    """For `recall`, if anything is remembered here."""
    if _memory is not None:
        _memory.made[rows.data_ptr(), rows.shape, weight.data_ptr()] = made, rows, weight


def recall(rows: Tensor, weight: Tensor) -> Made | None:
    """What the stack whose first weight this is has made of these rows [rows, in]."""
    if _memory is None:
        return None
    found = _memory.made.get((rows.data_ptr(), rows.shape, weight.data_ptr()))
    return found and found[0]


def matrix(weight: Tensor) -> records.Matrix:
    """Of x @ weight: float32 [in, out], or [G, in, out] block-diagonal, of any strides.

    In bfloat16 where `kernels.rounding` says so, unless it is too deep for that.
    """
    if _memory is None:
        return _matrix(weight)
    key = weight.data_ptr(), weight.shape, weight.stride(), rounds()
    found = _memory.matrices.get(key)
    if found is None:
        found = _memory.matrices[key] = _matrix(weight), weight
    return found[0]


def _matrix(weight: Tensor) -> records.Matrix:
    weight = weight.detach()
    blocks, rows, columns = weight.shape if weight.ndim == 3 else (1, *weight.shape)
    block = weight.stride(0) if weight.ndim == 3 else 0
    row, column = weight.stride()[-2:]
    if rounds() and rows <= MOST_ROUNDED:
        size = blocks * _up(columns, TILE) * _up(rows, DEEP)
        pairs = torch.zeros(size, dtype=torch.bfloat16)
        call("pack", weight, block, row, column, blocks, rows, columns, None, pairs)
        return records.Matrix.of(pairs=pairs, blocks=blocks, in_=rows, out=columns)  # type: ignore[no-any-return]
    if column == 1 and columns % TILE == 0:
        panels, panel = weight, PANEL
    else:
        panels, panel = torch.zeros(blocks * _up(columns, PANEL) * rows), rows * PANEL
        call("pack", weight, block, row, column, blocks, rows, columns, panels, None)
        block, row = panel * (_up(columns, PANEL) // PANEL), PANEL
    return records.Matrix.of(  # type: ignore[no-any-return]
        panels=panels, block=block, panel=panel, row=row, blocks=blocks, in_=rows, out=columns
    )


class Pair(NamedTuple):
    """A weight and its transpose."""

    forward: records.Matrix
    back: records.Matrix

    @classmethod
    def of(cls, weight: Tensor) -> Pair:
        """Float32 [in, out] or [G, in, out]."""
        return cls(matrix(weight), matrix(weight.transpose(-1, -2)))


class LayerWeights(NamedTuple):
    """Parameters of a Block."""

    weight: Tensor
    """float32 [out, in]."""
    bias: Tensor
    scale: Tensor

    def packed(self) -> records.Layer:
        """As the kernels read them."""
        forward, back = Pair.of(self.weight.T)
        found: records.Layer = records.Layer.of(
            weight=forward, turned=back, bias=self.bias.detach(), scale=self.scale.detach()
        )
        return found


def stack(layers: Sequence[LayerWeights]) -> records.Stack:
    """Blocks one after the other; all of the same width."""
    packed = records.array([layer.packed() for layer in layers])
    found: records.Stack = records.Stack.of(count=len(layers), layers=packed)
    return found


class LayerTape(NamedTuple):
    """What a Block leaves at every row and step, and what the way back adds."""

    before: Tensor
    """float32 [N, T, out]: linear output."""
    inverse: Tensor
    """[N, T, 1]: 1 / its rms."""
    after: Tensor
    """[N, T, out]: output, filled on the way back."""
    gradient: Tensor
    """[N, T, out]: of `before`, filled on the way back."""
    sums: Tensor
    """[threads, 2, out], added to on the way back (`summing`): gradients of bias and scale."""

    @classmethod
    def empty(cls, rows: int, time: int, width: int) -> LayerTape:
        """Room for everything."""
        before, after, gradient = (torch.empty(rows, time, width) for _ in range(3))
        return cls(before, torch.empty(rows, time, 1), after, gradient, before)

    @classmethod
    def scratch(cls, rows: int, time: int, width: int) -> LayerTape:
        """Room for one step, overwritten by the next: nothing is kept for a gradient."""
        before, inverse = passing(rows, time, width), passing(rows, time, 1)
        return cls(before, inverse, before, before, before)

    def as_rows(self) -> LayerTape:
        """[N, T, ...] as [N * T, 1, ...]."""
        return LayerTape(*[part.flatten(0, 1).unsqueeze(1) for part in self])

    def summing(self) -> LayerTape:
        """With sums of 0: every way back has its own, as there may be several."""
        return self._replace(sums=per_thread(2, self.before.shape[-1]))

    def record(self) -> records.LayerTape:
        """As the kernels see it."""
        found: records.LayerTape = records.LayerTape.of(**self._asdict())
        return found


def per_thread(*shape: int) -> Tensor:
    """Zeros [threads, ...], for what several threads add up."""
    return torch.zeros(max_threads(), *shape)


def summed(x: Tensor) -> Tensor:
    """[threads, ...] -> [...]."""
    return x[0] if len(x) == 1 else x.sum(0)


def passing(rows: int, time: int, *shape: int) -> Tensor:
    """[rows, time, ...] whose steps share their memory."""
    return torch.empty(rows, 1, *shape).expand(rows, time, *shape)


def tapes(found: Sequence[LayerTape]) -> object:
    """Those of a stack, side by side."""
    return records.array([tape.record() for tape in found])


def outer(a: Tensor, b: Tensor, *, blocks: int | None = None, rounded: bool = False) -> Tensor:
    """a.T @ b of float32 [rows, m] and [rows, n], or per block: the gradient of a weight.

    Returns:
      float32 [m, n]; or of `blocks` G, one too, [G, m, n] of [rows, G * m] and [rows, G * n].
    """
    count = blocks or 1
    m, n = a.shape[1] // count, b.shape[1] // count
    out = torch.zeros(count, m, n)
    call(
        "outer", a, a.stride(0), b, b.stride(0), out, n, len(a), m, n, count, int(rounded)
    )  # fmt: skip
    return out[0] if blocks is None else out


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
