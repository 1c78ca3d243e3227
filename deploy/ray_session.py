"""Joins Ray: the cluster of RAY_ADDRESS, or the one this machine keeps for a run.

::

    deploy.head:   with local_cluster(token): ...     starts one, on loopback, behind a token
    all others:    with joined(cluster, namespace): ...
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from system.errors import RunError

LOCAL = "127.0.0.1"
OBJECT_STORE_BYTES = 100 * 1024**2
"""Nothing large passes through Ray: only orders and outcomes [bytes]."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""So many processes as cores, one thread each; torch_threads of a config overrides it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A Ray cluster to join."""

    address: str
    """`host:port` or `ray://...`, as RAY_ADDRESS has it."""
    token_path: str = ""
    """File with its token; empty: whatever the environment says."""


def cluster_of_environment() -> Cluster | None:
    """The cluster of RAY_ADDRESS; None if that is not set."""
    address = os.environ.get("RAY_ADDRESS")
    return Cluster(address=address) if address else None


@contextlib.contextmanager
def joined(cluster: Cluster, namespace: str) -> Iterator[Any]:
    """Connects; yields the module `ray`.

    Raises:
      RunError: the cluster cannot be reached.
    """
    _prepare(cluster.token_path)
    if cluster.address.startswith(f"{LOCAL}:"):
        _stay_on_loopback()
    import ray

    try:
        ray.init(
            address=cluster.address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": ONE_THREAD},
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise RunError(
            f"Ray cannot reach the cluster at {cluster.address}: {error}; look with: dreamfleet "
            "doctor, or do without: --runner local"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def local_cluster(token_path: Path, temporary: Path) -> Iterator[Cluster]:
    """Starts a cluster of this machine's CPUs that nobody else can reach or use.

    Args:
      token_path: file with the token; without it nobody may join.
      temporary: where Ray keeps its sockets and logs.

    Raises:
      RunError: Ray does not start.
    """
    _prepare(str(token_path))
    _stay_on_loopback()
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=LOCAL,
            _temp_dir=str(temporary),
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise RunError(f"Ray does not start on this machine: {error}") from error
    try:
        address = ray.get_runtime_context().gcs_address
        yield Cluster(address=address, token_path=str(token_path))
    finally:
        ray.shutdown()


def _prepare(token_path: str) -> None:
    """What Ray reads when it is imported and when it starts."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its workers are nice 15 by default: then the learner yields to all.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if token_path:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token_path


def _stay_on_loopback() -> None:
    """Ray replaces 127.0.0.1 by the machine's address, and then listens on all of them.

    It does not on macOS, by this private constant; `tests/integration` lists who listens where.
    """
    import ray._private.ray_constants as constants

    constants.ENABLE_RAY_CLUSTER = False
