"""Lines that several processes append to one file."""

from __future__ import annotations

import errno

import pytest

from system.files import append_line
from tests.learner.disk_for_tests import no_file_larger_than


def test_a_line_that_does_not_fit_is_an_error(tmp_path):
    path = tmp_path / "lines"
    append_line(path, "one")
    with no_file_larger_than(6), pytest.raises(OSError, match="No space left") as caught:
        append_line(path, "two and more")
    assert caught.value.errno == errno.ENOSPC
    append_line(path, "three")
    assert path.read_bytes() == b"one\ntw\nthree\n"
