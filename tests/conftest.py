"""Fixtures for everybody: one embedded server a session, a fresh run name a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from deploy.redis_server import EmbeddedRedis

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A real server on a unix socket; shared, so use `run_name` in every key."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), max_memory_bytes=256 * 1024**2)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def data_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A second one, for the data role."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("data"), max_memory_bytes=256 * 1024**2)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def run_name() -> str:
    """A run nobody else uses."""
    return f"run{next(_numbers)}"
