"""Weights as bytes: round trip and every refusal."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

from system.models.weights import load_bytes, load_tensors, to_bytes


def _modules(seed=0, width=3):
    torch.manual_seed(seed)
    return {"a": nn.Linear(2, width), "b": nn.Sequential(nn.Linear(width, 1))}


def _equal(left, right):
    return all(
        torch.equal(tensor, right[name].state_dict()[key])
        for name, module in left.items()
        for key, tensor in module.state_dict().items()
    )


def test_round_trip_is_bitwise():
    source, target = _modules(0), _modules(1)
    assert not _equal(source, target)
    load_bytes(target, to_bytes(source))
    assert _equal(source, target)


def test_equal_weights_give_equal_bytes():
    assert to_bytes(_modules(0)) == to_bytes(_modules(0))


def test_loading_keeps_the_identity_of_parameters():
    target = _modules(1)
    pointers = [p.data_ptr() for m in target.values() for p in m.parameters()]
    load_bytes(target, to_bytes(_modules(0)))
    assert pointers == [p.data_ptr() for m in target.values() for p in m.parameters()]


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_damaged_bytes(cut):
    with pytest.raises(ValueError, match="weights are not valid safetensors: "):
        load_bytes(_modules(), to_bytes(_modules())[:cut])


def _tensors():
    return safetensors.torch.load(to_bytes(_modules()))


def test_a_missing_tensor_is_named():
    tensors = _tensors()
    del tensors["a.bias"]
    with pytest.raises(ValueError, match=r"^'a\.bias' is missing from the weights$"):
        load_tensors(_modules(), tensors)


def test_an_unknown_tensor_is_named():
    with pytest.raises(ValueError, match=r"^'c\.x' is unknown to the model, found in the weights$"):
        load_tensors(_modules(), _tensors() | {"c.x": torch.zeros(1)})


def test_a_wrong_shape_is_named():
    with pytest.raises(
        ValueError, match=r"^'a\.weight' has shape \(4, 2\), the model needs \(3, 2\)$"
    ):
        load_tensors(_modules(), _tensors() | {"a.weight": torch.zeros(4, 2)})


def test_a_wrong_dtype_is_named():
    with pytest.raises(ValueError, match=r"'a\.weight' has dtype"):
        load_tensors(_modules(), _tensors() | {"a.weight": torch.zeros(3, 2, dtype=torch.float64)})


def test_a_refused_load_changes_nothing():
    target, before = _modules(1), _modules(1)
    with pytest.raises(ValueError, match="has shape"):
        load_tensors(target, _tensors() | {"b.0.weight": torch.zeros(7)})
    assert _equal(target, before)
