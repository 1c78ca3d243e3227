"""Copies of the acting weights for a broadcast, while the next updates go on.

On CUDA a copy is made on the device first, in order with the updates and fast; it travels to the
host on a stream of its own, and an event says when it is there. The update never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.update import Learning
from system.models.weights import named_tensors, tensors_to_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """The acting subset at one moment."""

    weights: bytes
    """safetensors."""
    finite: bool
    """Whether all weights were, those that do not act too."""


class Copies(Protocol):
    """One copy at a time.

    The publisher that uses it::

        copies.start()
        ...                             # further updates
        if copies.ready:
            send(copies.take().weights)
    """

    def start(self) -> None:
        """Copies the weights as they are between two updates; one that was on its way is lost."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `take` need not wait."""
        ...

    def take(self) -> Copied:
        """What `start` copied."""
        ...


class HostCopies:
    """Of weights on the host: at once."""

    ready = True

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._copied: Copied | None = None

    def start(self) -> None:
        """See `Copies`."""
        self._copied = Copied(
            weights=tensors_to_bytes(named_tensors(self._learning.acting_modules())),
            finite=bool(finite(self._learning)),
        )

    def take(self) -> Copied:
        """See `Copies`."""
        assert self._copied is not None
        return self._copied


class DeviceCopies:
    """Of weights on a CUDA device: pinned memory, a side stream and an event."""

    def __init__(self, learning: Learning, device: torch.device) -> None:
        self._learning = learning
        source = self._source()
        self._staged = {name: torch.empty_like(tensor) for name, tensor in source.items()}
        self._host = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            for name, tensor in source.items()
        }
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """See `Copies`."""
        updates = torch.cuda.current_stream(self._stream.device)
        updates.wait_stream(self._stream)  # for a copy that is lost
        with torch.no_grad():
            source = self._source()
            for name, staged in self._staged.items():
                staged.copy_(source[name])
        self._stream.wait_stream(updates)
        with torch.cuda.stream(self._stream):
            for name, host in self._host.items():
                host.copy_(self._staged[name], non_blocking=True)
            self._there.record(self._stream)

    @property
    def ready(self) -> bool:
        """See `Copies`."""
        return bool(self._there.query())  # type: ignore[no-untyped-call]

    def take(self) -> Copied:
        """See `Copies`."""
        self._there.synchronize()
        weights = {name: tensor for name, tensor in self._host.items() if name != _FINITE}
        return Copied(weights=tensors_to_bytes(weights), finite=bool(self._host[_FINITE]))

    def _source(self) -> dict[str, Tensor]:
        tensors = named_tensors(self._learning.acting_modules())
        return {**tensors, _FINITE: finite(self._learning)}


_FINITE = "finite"
"""No module: their names have dots."""


def copies_of(learning: Learning, device: torch.device) -> Copies:
    """As the device needs them."""
    return DeviceCopies(learning, device) if device.type == "cuda" else HostCopies(learning)


def finite(learning: Learning) -> Tensor:
    """Whether all trained weights are, bool [] on their device."""
    return torch.isfinite(learning.optimizer.flat.sum())
