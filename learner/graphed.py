"""The whole update as one CUDA graph: captured once, then replayed with new inputs.

A small model's update is thousands of kernels of a few microseconds; launching them one by one
takes longer than running them. A graph launches them all at once. It reads its inputs from, and
leaves its results in, always the same memory::

    batch --copy--> static batch --replay--> weights, optimizer, return scale, random numbers
                                        `--> static latents and metrics

`Learning.update` is what is captured, and what runs where there is no graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import Protocol

import torch
from torch import Tensor

from learner.batch import Batch
from learner.config import LearnerConfig
from learner.update import Learning, UpdateResult
from system.activity import Activity
from system.models.dynamics import Latent

WARM_UPS = 3
"""Updates before a capture: libraries choose their algorithms and take their memory."""
MOST_AHEAD = 2
"""Updates that the host may have begun and the device has not ended: it is never without work, and
what is broadcast and told is not old."""
Run = Callable[[], UpdateResult]


class Recorder(Protocol):
    """Turns a function of static memory into one that repeats it."""

    def warm_up(self, run: Run) -> UpdateResult:
        """Runs it once as it will be recorded."""
        ...

    def record(self, run: Run) -> Run:
        """Records without running; what is returned runs it. Raises RuntimeError."""
        ...

    def pace(self) -> None:
        """Waits if the host is too far ahead of the device; call after each run."""
        ...


class CudaRecorder:
    """CUDA graphs. Warm-up and capture share a stream: autograd and cuBLAS remember theirs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._runs: deque[torch.cuda.Event] = deque()

    def warm_up(self, run: Run) -> UpdateResult:
        """See `Recorder`."""
        before = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            result = run()
        before.wait_stream(self._stream)
        return result

    def record(self, run: Run) -> Run:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = run()

        def replay() -> UpdateResult:
            graph.replay()
            return result

        return replay

    def pace(self) -> None:
        """See `Recorder`."""
        self._runs.append(torch.cuda.current_stream(self._stream.device).record_event())
        if len(self._runs) > MOST_AHEAD:
            self._runs.popleft().synchronize()


class GraphedUpdate:
    """`Learning.update` for Batches of always the same shape, which a new shape begins anew.

    The loop that uses it::

        graphed = GraphedUpdate(learning, CudaRecorder(device), on_event)
        result = graphed.update(batch)       # overwrites the result before
        arena.write_back(batch, result.latents)
    """

    def __init__(
        self, learning: Learning, recorder: Recorder, on_event: Callable[[str, str], None]
    ) -> None:
        """`on_event` is told once, with a kind and a text, if there can be no graph."""
        self._learning, self._recorder, self._on_event = learning, recorder, on_event
        self._static: Batch | None = None
        self._warm_ups = 0
        self._replay: Run | None = None
        self._refused = False

    @property
    def activity(self) -> Activity:
        """What the time of this process goes to."""
        return self._learning.activity

    def update(self, batch: Batch) -> UpdateResult:
        """See `Learning.update`; the result is valid until the next call."""
        if self._refused:
            return self._learning.update(batch)
        static = self._into_static(batch)
        if self._warm_ups < WARM_UPS:
            self._warm_ups += 1
            return self._recorder.warm_up(lambda: self._learning.update(static))
        if self._replay is None and not self._recorded(static):
            return self._learning.update(batch)
        self.activity.switch("update")
        assert self._replay is not None
        result = self._replay()
        self._recorder.pace()
        return result

    def _into_static(self, batch: Batch) -> Batch:
        """Copies a Batch to where the graph reads it; another shape begins anew."""
        if self._static is None or _shapes(self._static) != _shapes(batch):
            # The old graph's memory goes back first.
            self._replay, self._warm_ups = None, 0
            self._static = _like(batch)
        for to, given in zip(_tensors(self._static), _tensors(batch), strict=True):
            to.copy_(given, non_blocking=True)
        return self._static

    def _recorded(self, static: Batch) -> bool:
        try:
            self._replay = self._recorder.record(lambda: self._learning.update(static))
        except RuntimeError as error:
            self._refused = True
            reason = str(error).strip().splitlines()[0]
            self._on_event(
                "not_graphed", f"updates run without a CUDA graph, slower but the same: {reason}"
            )
        return not self._refused


Updater = Learning | GraphedUpdate
"""What turns a Batch into a better policy."""


def graphed(
    learning: Learning,
    config: LearnerConfig,
    device: torch.device,
    on_event: Callable[[str, str], None],
) -> Updater:
    """With a graph on CUDA, unless `learner.graph` says no."""
    if device.type != "cuda" or not config.graph:
        return learning
    return GraphedUpdate(learning, CudaRecorder(device), on_event)


def _tensors(batch: Batch) -> list[Tensor]:
    """All of them, in a fixed order."""
    values = [getattr(batch, field.name) for field in fields(batch)]
    found = [value for value in values if isinstance(value, Tensor)]
    return [
        *found,
        *batch.context,
        *(batch.observation[name] for name in sorted(batch.observation)),
    ]


def _shapes(batch: Batch) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]


def _like(batch: Batch) -> Batch:
    """Room for a Batch of this shape, contiguous; ordinals are nothing the update reads."""

    def room(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)

    return Batch(
        observation={name: room(value) for name, value in batch.observation.items()},
        action=room(batch.action),
        previous_action=room(batch.previous_action),
        reward=room(batch.reward),
        is_first=room(batch.is_first),
        is_last=room(batch.is_last),
        is_terminal=room(batch.is_terminal),
        context=Latent(*map(room, batch.context)),
        ordinals=batch.ordinals,
    )
