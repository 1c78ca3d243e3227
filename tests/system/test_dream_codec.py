"""A dream survives its bytes; anything else is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from system.dream_codec import MAX_DREAM_BYTES, MAX_EXAMPLES, decode_dream, encode_dream
from system.errors import RejectedChunk
from tests.dreams_for_tests import dream_report, example, film, said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parting_step": None, "earlier_update": None, "earlier_error": None},
        {"examples": [], "parting_step": 4},
        {"examples": [example(5, np.random.default_rng(0), vectors=0, images=2)]},
    ],
)
def test_a_dream_survives_its_bytes(changes):
    report = dream_report(**changes)
    assert said(decode_dream(encode_dream(report))) == said(report)


def test_big_endian_arrays_say_the_same():
    report = dream_report()
    swapped = replace(report, model_error=report.model_error.astype(">f4"))
    assert said(decode_dream(encode_dream(swapped))) == said(report)


@pytest.mark.parametrize(
    "changes",
    [
        {"time_s": float("nan")},
        {"model_error": np.array([1, 2, np.inf, 4], np.float32)},
        {"model_error": np.zeros(3, np.float32)},
        {"parting_step": 5},
        {"parting_step": 0},
        {"update": -1},
        {"context_steps": 0},
        {"earlier_update": None},
        {"examples": [example(8, np.random.default_rng(0))]},
        {"examples": [example(3, np.random.default_rng(0))]},
        {"examples": [example(4, np.random.default_rng(0))] * (MAX_EXAMPLES + 1)},
    ],
)
def test_what_cannot_be_is_not_written(changes):
    with pytest.raises(ValueError, match="does not travel"):
        encode_dream(dream_report(**changes))


def test_a_dream_has_a_size():
    random = np.random.default_rng(0)
    wide = replace(example(7, random), images=[film("camera", 7, random, (512, 512, 3))])
    with pytest.raises(ValueError, match="oversize"):
        encode_dream(dream_report(examples=[wide]))
    with pytest.raises(RejectedChunk, match="oversize"):
        decode_dream(bytes(MAX_DREAM_BYTES + 1))


def test_every_cut_and_every_addition_is_refused():
    data = encode_dream(dream_report())
    for length in [*range(40), *range(40, len(data), 97), len(data) - 1]:
        with pytest.raises(RejectedChunk):
            decode_dream(data[:length])
    with pytest.raises(RejectedChunk, match="length"):
        decode_dream(data + b"\0")


def test_arrays_are_views_that_nobody_can_write():
    report = decode_dream(encode_dream(dream_report()))
    with pytest.raises(ValueError, match="read-only"):
        report.model_error[0] = 1.0
