"""Watches which torch operations run: what a CUDA graph cannot hold, and how many there are."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique",
    "_unique2", "unique_consecutive", "bincount", "repeat_interleave.Tensor", "_assert_async",
)  # fmt: skip
"""The host would wait for the device, to branch on a value or to learn a shape."""
VIEWS = (
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unbind",
    "split", "split_with_sizes", "alias", "detach", "as_strided", "unsqueeze", "squeeze",
    "_reshape_alias", "chunk", "empty", "empty_like", "new_empty", "empty_strided",
    "new_empty_strided", "diagonal", "lift_fresh",
)  # fmt: skip
"""No kernel."""


class Watch(TorchDispatchMode):
    """Counts operations by name; `forbid` raises at the first that would wait.

    The test that uses it::

        with Watch(forbid=WAITING):
            learning.update(batch)
    """

    def __init__(self, forbid=()):
        super().__init__()
        self.forbid, self.counts = forbid, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        full = f"{name}.{func._overloadname}" if func._overloadname else name
        if name in self.forbid or full in self.forbid or _masks(name, args):
            raise AssertionError(f"{full}: the host waits for the device")
        if name in ("_to_copy", "copy_", "lift_fresh") and _crosses(args, kwargs or {}):
            raise AssertionError(f"{full}: from one device to another")
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def kernels(self):
        """About as many as a GPU would launch."""
        return sum(n for name, n in self.counts.items() if name.rstrip("_") not in VIEWS)


def _masks(name, args):
    """Indexing by a mask has a shape that depends on values."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _crosses(args, kwargs):
    """Whether a copy goes from one device to another."""
    devices = {a.device for a in args if isinstance(a, torch.Tensor) and a.ndim}
    wanted = kwargs.get("device")
    return len(devices) > 1 or (wanted is not None and devices and wanted not in devices)
