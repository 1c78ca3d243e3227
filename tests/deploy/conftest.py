"""Fixtures of the commands: a server, a machine without runs, a run somewhere else."""

from __future__ import annotations

from contextlib import closing

import pytest

from system.keys import RUNS
from system.redis_client import connect
from tests.deploy.remote_for_tests import Remote


@pytest.fixture
def url(redis_server):
    with closing(connect(redis_server.url)) as connection:
        connection.call("DEL", RUNS)
    return redis_server.url


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A folder without runs: the operator's machine."""
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    return tmp_path / "away"


@pytest.fixture
def remote(tmp_path, url, away):
    return Remote(tmp_path / "home", url)
