"""Which dreams a run keeps: few, evenly over the logarithm of its updates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from learner.dream_files import MOST_KEPT, DreamFiles, superfluous
from system.dream_codec import encode_dream
from system.errors import DiskFull, Fenced
from tests.dreams_for_tests import dream_report, said


def kept_after(updates, most):
    kept = []
    for update in updates:
        kept.append(update)
        if (spare := superfluous(kept, most)) is not None:
            kept.remove(spare)
    return kept


def test_the_first_and_the_last_always_stay():
    for last in range(1, 200):
        kept = kept_after(range(last + 1), 5)
        assert (kept[0], kept[-1]) == (0, last)
        assert len(kept) == min(5, last + 1)


def test_what_stays_is_spread_evenly_over_the_logarithm():
    updates = range(10, 200_000, 10)
    kept = kept_after(updates, MOST_KEPT)
    assert len(kept) == MOST_KEPT
    # The first few cannot be closer than they came.
    late = [update for update in kept if update > 100]
    steps = [math.log(after / before) for before, after in pairwise(late)]
    even = math.log(late[-1] / late[0]) / (len(late) - 1)
    assert max(steps) < 2.0 * even
    assert sorted(steps)[len(steps) // 4] > even / 4


def test_two_are_never_too_many():
    assert superfluous([3, 9], 1) is None
    assert superfluous([], 48) is None


def test_files_come_back_by_update(tmp_path):
    files = DreamFiles(tmp_path)
    assert (files.updates(), files.read(3), files.read_before(99)) == ([], None, None)
    for update in (3, 10, 200):
        files.write(update, encode_dream(dream_report(update, update=update)))
    (files.folder / "notes.dream").write_bytes(b"x")
    assert files.updates() == [3, 10, 200]
    found = files.read_before(199)
    assert said(found) == said(dream_report(10, update=10))
    assert files.read_before(2) is None
    (files.folder / "10.dream").write_bytes(b"damaged")
    assert files.read(10) is None


def test_no_more_are_kept_than_allowed(tmp_path):
    files = DreamFiles(tmp_path)
    for update in range(MOST_KEPT + 7):
        files.write(update, b"x")
    kept = files.updates()
    assert len(kept) == MOST_KEPT
    assert (kept[0], kept[-1]) == (0, MOST_KEPT + 6)


def test_a_fenced_learner_writes_nothing(tmp_path):
    def check():
        raise Fenced("a newer one")

    files = DreamFiles(tmp_path, check)
    with pytest.raises(Fenced):
        files.write(1, b"x")
    assert not files.folder.exists()


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    import errno

    from learner import dream_files

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(dream_files, "write_whole", full)
    with pytest.raises(DiskFull, match="dreams"):
        DreamFiles(tmp_path).write(1, b"x")
