"""How far something long is."""

from __future__ import annotations

import pytest

from system.progress import left_s, progress_text


@pytest.mark.parametrize(
    ("share", "elapsed_s", "text"),
    [
        (None, 1.0, "evaluating"),
        (None, 8.2, "evaluating for 8 s"),
        (0.0, 60.0, "evaluating 0%"),
        (0.25, 4.0, "evaluating 25%"),
        (0.25, 10.0, "evaluating 25%, 30 s left"),
        (1.3, 10.0, "evaluating 100%, 0 s left"),
    ],
)
def test_it_says_what_is_known(share, elapsed_s, text):
    assert progress_text("evaluating", share, elapsed_s) == text


def test_at_an_even_pace_the_end_does_not_move():
    ends = [10.0 * k + (left_s(k / 12, 10.0 * k) or 0) for k in range(1, 13)]
    assert ends == pytest.approx([120.0] * 12)
