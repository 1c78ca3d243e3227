"""Where the rows of the arena lie: in memory, in a mapped file, or on the learner's device.

The arena decides which rows; a storage holds their columns, and hands them out as tensors on the
learner's device. All three hold the same bits.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.disk import reserve
from system.types import Array

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: what a row of it holds."""

    dtype: str
    """Name of a NumPy dtype that torch has too."""
    shape: tuple[int, ...]


class Storage(Protocol):
    """Named columns of so many rows, zero at first.

    The arena that uses it::

        storage.write(rows, chunk.fields)
        found = storage.gather(rows, ["reward", "is_first"])
    """

    @property
    def place(self) -> str:
        """memory, file or device: for people."""
        ...

    def write(self, rows: Rows, values: dict[str, Array]) -> None:
        """Puts values [N, ...] of the host into rows int64 [N]."""
        ...

    def put(self, rows: Rows, values: dict[str, Tensor]) -> None:
        """The same from the learner's device, cast to the dtype of the column."""
        ...

    def gather(self, rows: Rows, names: Sequence[str]) -> dict[str, Tensor]:
        """Copies rows int64 [...] to the learner's device: by name [..., *shape]."""
        ...

    def read(self, name: str, rows: Rows) -> Array:
        """Copies rows int64 [...] of one column to the host: [..., *shape]."""
        ...


Allocate = Callable[[dict[str, ColumnSpec], int, torch.device], Storage]
"""(columns, rows, the learner's device) -> a storage."""


class HostStorage:
    """NumPy arrays, in memory or mapped."""

    def __init__(self, columns: dict[str, Array], device: torch.device, place: str) -> None:
        self._columns, self._device, self.place = columns, device, place

    def write(self, rows: Rows, values: dict[str, Array]) -> None:
        """See `Storage`."""
        for name, array in values.items():
            self._columns[name][rows] = array

    def put(self, rows: Rows, values: dict[str, Tensor]) -> None:
        """See `Storage`; waits for the device."""
        for name, tensor in values.items():
            column = self._columns[name]
            column[rows] = tensor.to("cpu", torch_dtype(column.dtype.name)).numpy()

    def gather(self, rows: Rows, names: Sequence[str]) -> dict[str, Tensor]:
        """See `Storage`."""
        return {name: to_device(self._columns[name][rows], self._device) for name in names}

    def read(self, name: str, rows: Rows) -> Array:
        """See `Storage`."""
        found: Array = self._columns[name][rows]
        return found


class DeviceStorage:
    """Tensors on the learner's device: sampling moves row numbers there, and nothing else."""

    place = "device"

    def __init__(self, columns: dict[str, ColumnSpec], rows: int, device: torch.device) -> None:
        self._device = device
        self._columns = {
            name: torch.zeros((rows, *column.shape), dtype=torch_dtype(column.dtype), device=device)
            for name, column in columns.items()
        }

    def write(self, rows: Rows, values: dict[str, Array]) -> None:
        """See `Storage`; the host does not wait."""
        index = to_device(rows, self._device)
        for name, array in values.items():
            self._columns[name].index_copy_(0, index, to_device(array, self._device))

    def put(self, rows: Rows, values: dict[str, Tensor]) -> None:
        """See `Storage`; the host does not wait."""
        index = to_device(rows, self._device)
        for name, tensor in values.items():
            column = self._columns[name]
            column.index_copy_(0, index, tensor.to(column.dtype))

    def gather(self, rows: Rows, names: Sequence[str]) -> dict[str, Tensor]:
        """See `Storage`; the host does not wait."""
        index = to_device(rows.reshape(-1), self._device)
        return {
            name: column.index_select(0, index).view(*rows.shape, *column.shape[1:])
            for name, column in ((name, self._columns[name]) for name in names)
        }

    def read(self, name: str, rows: Rows) -> Array:
        """See `Storage`; waits for the device."""
        found: Array = self.gather(rows, [name])[name].cpu().numpy()
        return found


def in_memory(columns: dict[str, ColumnSpec], rows: int, device: torch.device) -> Storage:
    """On the host; pages are taken as rows are written."""
    arrays = {name: np.zeros((rows, *c.shape), c.dtype) for name, c in columns.items()}
    return HostStorage(arrays, device, "memory")


def on_device(columns: dict[str, ColumnSpec], rows: int, device: torch.device) -> Storage:
    """On the learner's device; all of it is taken at once."""
    return DeviceStorage(columns, rows, device)


def in_file(folder: Path) -> Allocate:
    """Mapped from a file in this folder that has no name and ends with the process.

    Raises (when it allocates):
      DiskFull: there is no room for all rows.
    """

    def allocate(columns: dict[str, ColumnSpec], rows: int, device: torch.device) -> Storage:
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Array] = {}
        for name, column in columns.items():
            shape = (rows, *column.shape)
            with tempfile.TemporaryFile(dir=folder) as file:
                # All of it now: a full disk under a mapping kills the process at the next write.
                reserve(file, math.prod(shape) * np.dtype(column.dtype).itemsize, folder)
                arrays[name] = np.memmap(file, dtype=column.dtype, mode="r+", shape=shape)
        return HostStorage(arrays, device, "file")

    return allocate


def torch_dtype(name: str) -> torch.dtype:
    """That of a NumPy dtype's name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def to_device(array: Array, device: torch.device) -> Tensor:
    """Copies to the device; a CUDA device takes it when it comes to it, the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
