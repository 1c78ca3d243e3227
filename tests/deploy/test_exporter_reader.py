"""What the exporter keeps in Redis, and for how long."""

from __future__ import annotations

from contextlib import closing

from deploy.exporter.reader import Reader
from deploy.place import RedisUrls
from system.clock import ManualClock
from system.keys import Keys
from system.redis_client import connect


def test_a_run_that_was_just_removed_leaves_no_totals(url, remote):
    """Also if its totals are due once more before the list of runs is."""
    remote.drive()
    clock, key = ManualClock(), Keys(remote.run_id).totals
    with closing(connect(url)) as raw, closing(Reader(RedisUrls(control=url), None, clock)) as one:
        one.read()
        assert raw.call("GET", key) is not None
        clock.sleep(9.0)
        one.read()
        remote.registry.remove(remote.run_id)
        clock.sleep(1.5)
        one.read()
        assert remote.run_id in one.reading.runs, "it is not forgotten yet"
        assert raw.call("GET", key) is None
