"""A real fleet is scraped while everybody is killed; a part of it runs in CI without Ray.

See `tests/integration/test_exporter.py` for that part.
"""

from __future__ import annotations

import pytest

from tests.chaos.scrapes import TARGETS, run


@pytest.mark.slow
def test_no_scrape_fails_and_no_total_decreases_whoever_dies(tmp_path):
    result = run(1, tmp_path / "run")
    assert (result.failed, result.decreased) == (0, 0), result
    assert result.kills == len(TARGETS)
    assert result.series > 100
    for role in ("actor", "learner", "supervisor"):
        assert result.starts[role] == 2, result
