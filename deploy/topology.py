"""The fleet on Ray: each process is a Ray actor; they meet in Redis; Ray restarts none of them.

::

    driver: supervisor + terminal          start / drain / kill
       |-- LearnerProcess                  pinned to the driver's machine (it writes the run folder)
       |-- EvaluatorProcess                pinned too
       `-- ActorProcess 0 .. N-1           anywhere, if Redis can be reached from there
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from deploy.config import FleetConfig
from deploy.processes import ActorProcess, EvaluatorProcess, LearnerProcess, Order, Outcome
from deploy.reconcile import LEARNER, Member
from deploy.run_folder import RunFolder
from system.errors import ConfigError, RunError

LOCAL = "127.0.0.1"
OBJECT_STORE_BYTES = 100 * 1024**2
"""Nothing large passes through Ray: only orders and outcomes [bytes]."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""So many processes as cores, one thread each; torch_threads of a config overrides it."""


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine for as long as it is used.

    Raises:
      RunError: Ray does not start, or its cluster cannot be reached.
    """
    # Read when Ray starts. Its workers are nice 15 by default: then the learner yields to all.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": ONE_THREAD},
    }
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address=LOCAL,
                **common,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"the cluster at {address}" if address else "a cluster on this machine"
        raise RunError(
            f"Ray cannot reach {where}: {error}; look with: dreamfleet doctor, or do without: "
            "--runner local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class RayFleet:
    """Implements `deploy.supervisor.Fleet` within a `ray_session`."""

    def __init__(self, order: Order, *, redis_is_embedded: bool) -> None:
        import ray

        self._ray = ray
        self._order = order
        self._config: FleetConfig = order.record.config.fleet
        self._embedded = redis_is_embedded
        self._handles: dict[Member, Any] = {}
        self._runs: dict[Any, Member] = {}
        self._placed: dict[Member, Any] = {}

    def start(self, member: Member) -> None:
        """Starts a process; returns at once."""
        kind, arguments = _process_class(member)
        options = self._options(member)
        handle = self._ray.remote(kind).options(**options).remote(self._order, *arguments)
        self._handles[member] = handle
        self._placed[member] = handle.__ray_ready__.remote()
        self._runs[handle.run.remote()] = member

    def drain(self, member: Member, *, final: bool) -> None:
        """Asks a process to finish."""
        self._handles[member].drain.remote(final=final)

    def kill(self, member: Member) -> None:
        """Ends a process at once."""
        self._ray.kill(self._handles[member], no_restart=True)

    def ended(self) -> dict[Member, Outcome | str]:
        """Processes that ended since the last call."""
        if not self._runs:
            return {}
        futures = list(self._runs)
        ready, _ = self._ray.wait(futures, num_returns=len(futures), timeout=0)
        return {self._runs.pop(future): self._outcome(future) for future in ready}

    def why_pending(self, member: Member) -> str:
        """Names what is missing, or says that it is starting."""
        placed = self._placed.get(member)
        if placed is not None and self._ray.wait([placed], timeout=0)[0]:
            return "starting"
        need = self._options(member)
        free, total = self._ray.available_resources(), self._ray.cluster_resources()
        for name, amount in (("CPU", need["num_cpus"]), ("GPU", need["num_gpus"])):
            if amount > free.get(name, 0.0) + 1e-9:
                return (
                    f"needs {amount:g} {name}; {free.get(name, 0.0):g} of "
                    f"{total.get(name, 0.0):g} are free: scale down or add machines"
                )
        return "waiting for Ray to place it"

    def close(self) -> None:
        """Ends every process that is left."""
        for member in list(self._runs.values()):
            self.kill(member)

    def _outcome(self, future: Any) -> Outcome | str:  # noqa: ANN401
        try:
            outcome = self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except self._ray.exceptions.RayActorError as error:
            return _first_line(error)
        assert isinstance(outcome, Outcome)
        return outcome

    def _options(self, member: Member) -> dict[str, Any]:
        config = self._config
        cpus = {"actor": config.actor_cpus, "learner": config.learner_cpus}
        options: dict[str, Any] = {
            "num_cpus": cpus.get(member.role, config.evaluator_cpus),
            "num_gpus": self._gpus() if member == LEARNER else 0,
            "max_restarts": 0,
            # One thread runs, one is left for `drain`.
            "max_concurrency": 2,
        }
        if self._embedded or member.role != "actor":
            options["scheduling_strategy"] = _here(self._ray)
        return options

    def _gpus(self) -> int:
        on_cpu = self._order.record.config.learner.device == "cpu"
        return int(not on_cpu and self._ray.cluster_resources().get("GPU", 0) >= 1)


def check_cluster(folder: RunFolder, redis: str) -> None:
    """Refuses an embedded Redis where actors on other machines could not reach it.

    Raises:
      ConfigError: the cluster has several machines and Redis listens on a unix socket.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if len(alive) > 1 and redis.startswith("unix://"):
        raise ConfigError(
            f"the cluster has {len(alive)} machines and the embedded Redis of run "
            f"{folder.name!r} can be reached from one only; start a Redis server that all reach "
            "and name it with --redis URL"
        )


def _process_class(member: Member) -> tuple[type, tuple[int, ...]]:
    match member.role:
        case "actor":
            return ActorProcess, (member.slot,)
        case "learner":
            return LearnerProcess, ()
        case _:
            return EvaluatorProcess, ()


def _here(ray: Any) -> Any:  # noqa: ANN401
    """Only on the driver's machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
