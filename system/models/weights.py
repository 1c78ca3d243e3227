"""Weights as bytes: safetensors, never pickle."""

from __future__ import annotations

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn


def to_bytes(modules: dict[str, nn.Module]) -> bytes:
    """Named modules -> safetensors; tensors are called `<module>.<parameter>`."""
    return tensors_to_bytes(named_tensors(modules))


def named_tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of modules where they lie, by the names that they have in `to_bytes`."""
    return {
        f"{name}.{key}": tensor.detach()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }


def tensors_to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Named tensors, on any device -> safetensors."""
    return safetensors.torch.save({k: v.contiguous().cpu() for k, v in tensors.items()})


def load_bytes(modules: dict[str, nn.Module], data: bytes) -> None:
    """Inverse of `to_bytes`, into existing modules.

    Raises:
      ValueError: not safetensors, not finite, or names, shapes or dtypes differ; names the first.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"weights are not valid safetensors: {error}") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name!r} holds a weight that is not finite")
    load_tensors(modules, tensors)


def load_tensors(modules: dict[str, nn.Module], tensors: dict[str, Tensor]) -> None:
    """Copies named tensors into modules; every name and shape must match."""
    expected = {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    for name in sorted(expected.keys() ^ tensors.keys()):
        where = "missing from" if name in expected else "unknown to the model, found in"
        raise ValueError(f"{name!r} is {where} the weights")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(tensors[name].shape)}, the model needs "
                f"{tuple(tensor.shape)}"
            )
        if tensor.dtype != tensors[name].dtype:
            raise ValueError(
                f"{name!r} has dtype {tensors[name].dtype}, the model needs {tensor.dtype}"
            )
    # Only now: a refused load must not leave a half-changed model behind.
    for name, tensor in expected.items():
        tensor.copy_(tensors[name])
