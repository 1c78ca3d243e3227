"""The kill matrix, two trials for each target; twenty by hand: `python -m tests.chaos.matrix`."""

from __future__ import annotations

import pytest

from tests.chaos.matrix import TARGETS, run


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_acknowledged_is_lost_or_stored_twice(target, tmp_path):
    result = run(target, 2, tmp_path / target, seed=1)
    assert result.acknowledged > 10
    assert result.stored >= result.acknowledged
    assert (result.lost, result.twice) == (0, 0)
