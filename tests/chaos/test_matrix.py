"""The kill matrix, once around; twenty times each by hand: `python -m tests.chaos.matrix`."""

from __future__ import annotations

import pytest

from tests.chaos.matrix import TARGETS, run


def check(result):
    assert result.acknowledged > 10
    assert result.stored > 10
    assert (result.lost, result.twice) == (0, 0)


@pytest.mark.timeout(1800)
def test_nothing_acknowledged_is_lost_or_stored_twice_whoever_dies(tmp_path):
    check(run(TARGETS, 1, tmp_path / "all", seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_nor_when_the_same_one_dies_again_and_again(target, tmp_path):
    check(run([target], 4, tmp_path / target, seed=1))
