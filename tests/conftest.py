"""Fixtures for everybody: one embedded server a session, a fresh run name a test."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from deploy.redis_server import EmbeddedRedis
from system.models import kernels

_numbers = itertools.count()
# The same examples in every run, on however busy a machine; `make test-slow` draws new ones.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("drawn", **_PATIENT)
settings.register_profile("same", derandomize=True, **_PATIENT)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """A job in the background ignores Ctrl-C and hang-ups, and what is ignored stays ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


@pytest.fixture(params=["fused", "plain"])
def both_paths(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test runs with the fused kernels, and again with the plain implementation."""
    fused = request.param == "fused"
    if fused and kernels.library() is None:
        pytest.skip("no C compiler here")
    with contextlib.nullcontext() if fused else kernels.switched_off():
        yield
