"""The records of `native/*.h` as ctypes sees them: addresses of tensors, strides and sizes.

Field by field as in C; a record keeps alive what its addresses point to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Track(ctypes.Structure):
    """A tensor [rows, T, ...]; a step of time may be 0 where each overwrites the one before."""

    _fields_ = [("data", _P), ("row", _I), ("time", _I)]


def track(x: Tensor) -> Track:
    """Of [rows, T, ...]."""
    return Track(x.data_ptr(), *x.stride()[:2])


class Record(ctypes.Structure):
    """Built from tensors by `of`."""

    kept: Any
    kinds: dict[str, bool]
    """By field: whether it is a Track."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kinds = {name: kind is Track for name, kind, *_ in cls._fields_}

    @classmethod
    def of(cls, **values: Any) -> Any:  # noqa: ANN401
        """Tensors become addresses, or Tracks where the field is one; None is NULL."""
        record = cls()
        record.kept = values
        kinds = cls.kinds
        for name, value in values.items():
            assert name in kinds, f"{cls.__name__} has no field {name}"  # or it would stay 0
            if type(value) is Tensor or isinstance(value, Tensor):
                value = track(value) if kinds[name] else value.data_ptr()
            elif isinstance(value, ctypes.Array):
                value = ctypes.addressof(value)
            setattr(record, name, value)
        return record


class Matrix(Record):
    """A weight laid out for products; see `packed.py`."""

    _fields_ = [("panels", _P), ("block", _I), ("panel", _I), ("row", _I), ("pairs", _P),
                ("blocks", _I), ("in_", _I), ("out", _I)]  # fmt: skip


class Layer(Record):
    """A Block."""

    _fields_ = [("weight", Matrix), ("turned", Matrix), ("bias", _P), ("scale", _P)]


class Stack(Record):
    """Blocks, one after the other."""

    _fields_ = [("count", _I), ("layers", _P)]


class LayerTape(Record):
    """What a Block leaves for its gradient."""

    _fields_ = [("before", Track), ("inverse", Track), ("after", Track), ("gradient", Track),
                ("sums", _P)]  # fmt: skip


class TwoHot(Record):
    """The last layer of a two-hot head."""

    _fields_ = [("out", Matrix), ("turned", Matrix), ("bias", _P), ("bins", _P), ("dweight", _P),
                ("dbias", _P)]  # fmt: skip


class Target(Record):
    """Two-hot targets."""

    _fields_ = [("below", _P), ("above", _P)]


_CELL = ("deter_in", "stoch_in", "action_in", "shared", "hidden", "gates")


class Cell(Record):
    """The block GRU."""

    _fields_ = [
        *[(name, Matrix) for name in _CELL],
        *[(f"{name}_turned", Matrix) for name in _CELL],
        *[(name, _P) for name in ("in_bias", "in_scale", "hidden_bias", "hidden_scale",
                                  "gates_bias")],
        ("S", _I), ("K", _I), ("unimix", _F),
    ]  # fmt: skip


class CellTape(Record):
    """What its steps leave, and the way back."""

    _fields_ = [
        *[(name, Track) for name in ("before_in", "in_inverse", "before_hidden", "hidden_inverse",
                                     "gates", "shared", "hidden", "dbefore_in", "dbefore_hidden",
                                     "dgates")],
        ("din_scale", _P), ("dhidden_scale", _P),
    ]  # fmt: skip


class Scan(Record):
    """Filtering T observations."""

    _fields_ = [
        ("cell", Cell), ("posterior", Layer), ("out", Matrix), ("out_turned", Matrix),
        ("out_bias", _P), ("keep", _P),
        *[(name, Track) for name in ("action", "noise", "seen", "deter", "stoch", "probs",
                                     "old_deter", "old_stoch")],
        ("tape", CellTape), ("posterior_tape", LayerTape), ("dlogits", Track), ("ddeter", Track),
        ("dcarry_deter", _P), ("dcarry_stoch", _P), ("B", _I), ("T", _I),
    ]  # fmt: skip


class Reader(Record):
    """A stack that reads every feature of a dream."""

    _fields_ = [("stack", Stack), ("tapes", _P), ("out", Track)]


class Roll(Record):
    """A dream."""

    _fields_ = [
        ("cell", Cell), ("prior", Stack), ("prior_tapes", _P), ("readers", _P),
        ("reader_count", _I),
        *[(name, Matrix) for name in ("prior_out", "prior_out_turned", "policy_out",
                                      "policy_out_turned")],
        ("prior_bias", _P), ("policy_bias", _P),
        *[(name, Track) for name in ("feature", "action", "action_noise", "noise")],
        ("tape", CellTape),
        *[(name, Track) for name in ("probs", "mean", "slope", "reach", "dfeature", "dnudge")],
        ("N", _I), ("H", _I), ("discrete", _I),
    ]  # fmt: skip


def array(records: Sequence[Any]) -> Any:  # noqa: ANN401
    """Records side by side in memory."""
    found = (type(records[0]) * len(records))(*records)
    found.kept = list(records)
    return found


def _by_address(kind: type[ctypes.Structure]) -> Any:  # noqa: ANN401
    return ctypes.POINTER(kind)


SIGNATURES: dict[str, list[Any]] = {
    "norm_silu": [_P] * 4 + [_I] * 2,
    "norm_silu_gradient": [_P] * 6 + [_I] * 2,
    "pool_norm_silu": [_P] * 3 + [_I] * 4,
    "pool_norm_silu_gradient": [_P] * 5 + [_I] * 4,
    "spread_norm_silu": [_P] * 3 + [_I] * 4,
    "spread_norm_silu_gradient": [_P] * 5 + [_I] * 4,
    "pack": [_P] + [_I] * 6 + [_P] * 2,
    "outer": [_P, _I, _P, _I, _P] + [_I] * 6,
    "stack": [_by_address(Stack), _P, _P, _I, _P, _I],
    "stack_gradient": [_by_address(Stack), _P, _P, _P, _I, _I],
    "two_hot_mean": [_by_address(TwoHot), _P, _P, _I],
    "two_hot_mean_gradient": [_by_address(TwoHot)] + [_P] * 4 + [_I],
    "two_hot_loss": [_by_address(TwoHot), _P, Target, Target, _F, _P, _P, _I],
    "two_hot_loss_gradient": [_by_address(TwoHot), _P, Target, Target, _F, _P, _P, _P, _I],
    "scan": [_by_address(Scan)],
    "scan_gradient": [_by_address(Scan)],
    "roll": [_by_address(Roll)],
    "roll_gradient": [_by_address(Roll)],
}
